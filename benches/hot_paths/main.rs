//! What the hot paths cost without kernel and network, each by itself.
//!
//! `cargo bench --bench hot_paths [-- NAME…]`, with the names of the modules: frames, leaves, trees, reads, captures. Each prints
//! processor time (which other load disturbs least) for one unit of its work, the median of nine runs, plain and encrypted. It
//! asserts nothing: compare two builds on one machine, one after the other. `cargo bench --bench chunker` has the cutting, and
//! `--bench local_reads` the store. What must not grow unnoticed is counted by `tests/it/costs`.

mod captures;
mod fixture;
mod frames;
mod leaves;
mod reads;
mod trees;

use std::time::{Duration, Instant};

const RUNS: usize = 9;
/// A run is repeated until it has taken so long.
const RUN_AT_LEAST: Duration = Duration::from_millis(60);

type Path = (&'static str, fn());

const PATHS: [Path; 5] = [
    ("frames", frames::run),
    ("leaves", leaves::run),
    ("trees", trees::run),
    ("reads", reads::run),
    ("captures", captures::run),
];

fn main() {
    // What cargo itself passes begins with a dash.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    println!("{:<64} {:>12} {:>12}", "path", "CPU", "wall");
    for (name, run) in PATHS {
        if wanted.is_empty() || wanted.iter().any(|wish| wish == name) {
            run();
        }
    }
}

/// Seconds that all threads of this process have been on a processor.
fn processor_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("list the threads");
    let nanoseconds = |task: std::fs::DirEntry| {
        // A thread may have ended since it was listed.
        let told = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        told.split(' ').next().and_then(|figure| figure.parse::<f64>().ok()).unwrap_or_default()
    };
    tasks.filter_map(Result::ok).map(nanoseconds).sum::<f64>() / 1e9
}

/// Prints what one of `units` costs of what `work` does in this thread, in microseconds.
fn measure(what: &str, units: usize, mut work: impl FnMut()) {
    work();
    let mut figures: Vec<(f64, f64)> = (0..RUNS)
        .map(|_| {
            let (began, before, mut times) = (Instant::now(), processor_seconds(), 0usize);
            while times == 0 || began.elapsed() < RUN_AT_LEAST {
                work();
                times += 1;
            }
            let scale = 1e6 / (times * units) as f64;
            ((processor_seconds() - before) * scale, began.elapsed().as_secs_f64() * scale)
        })
        .collect();
    figures.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (processor, wall) = figures[RUNS / 2];
    println!("{what:<64} {processor:>9.3} us {wall:>9.3} us");
}
