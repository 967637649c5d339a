//! How time and memory grow with the number of entries, of points and of readers.
//!
//! `cargo bench --bench growth [-- DIRECTORY [MOST]]`: makes repositories in DIRECTORY (a temporary one unless given) of 10,000
//! entries and ten times more each time, up to MOST (1,000,000; 10,000,000 takes minutes and 3 GB), and of up to 10,000
//! points; measures in a process of its own each time, without a kernel mount, and prints a table with the law that each row
//! should follow, and the same as a picture in SVG. As root it drops the kernel's caches before each. It asserts nothing.
//!
//! The entries are written by the writer of trees itself, as captures of that many files would have them, but for the
//! walking; what captures of real trees cost is measured up to 100,000 files.

mod picture;
mod synthetic;
mod work;

use std::path::{Path, PathBuf};
use std::process::Command;

use picture::Line;

/// What one process measured.
#[derive(Debug, Clone, Copy)]
struct Figure {
    seconds: f64,
    /// The largest resident set, in MiB.
    memory: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["measured", what, repository, count] => {
            let seconds = work::measured(what, Path::new(repository), count.parse().expect("a number"));
            println!("{seconds} {}", largest_resident_set());
        }
        [] => {
            let place = tempfile::tempdir().expect("make a directory");
            all(place.path(), 1_000_000);
        }
        [place] => all(Path::new(place), 1_000_000),
        [place, most, ..] => all(Path::new(place), most.parse().expect("a number of entries")),
    }
}

/// Measures `what` in another process, `repeated` times; the one in the middle.
fn measure(what: &str, repository: &Path, count: u64, repeated: usize) -> Figure {
    let mut figures: Vec<Figure> = (0..repeated)
        .map(|_| {
            // Only root may, and warm figures are figures too.
            let _dropped = Command::new("sync").status().and_then(|_| std::fs::write("/proc/sys/vm/drop_caches", "3"));
            let program = std::env::current_exe().expect("this program");
            let mut child = Command::new(program);
            child.arg("measured").arg(what).arg(repository).arg(count.to_string());
            let output = child.output().expect("start this program");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
            let mut words = said.split_whitespace().map(|word| word.parse().expect("a figure"));
            Figure { seconds: words.next().expect("seconds"), memory: words.next().expect("MiB") }
        })
        .collect();
    figures.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    figures[repeated / 2]
}

fn largest_resident_set() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("read the process's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the largest resident set");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("kB") / 1024.0
}

fn all(place: &Path, most: u64) {
    std::fs::create_dir_all(place).expect("make the directory");
    let entries: Vec<u64> = (4..).map(|power| 10u64.pow(power)).take_while(|count| *count <= most).collect();
    let repository = |name: String| -> PathBuf { place.join(name) };
    let mut lines = Vec::new();
    let mut row = |what: &'static str,
                   over: &'static str,
                   law: &'static str,
                   counts: &[u64],
                   measured: &dyn Fn(u64) -> Figure| {
        let figures: Vec<(u64, Figure)> = counts.iter().map(|count| (*count, measured(*count))).collect();
        let cells: Vec<String> = figures
            .iter()
            .map(|(count, figure)| format!("{count}: {:.4} s, {:.0} MiB", figure.seconds, figure.memory))
            .collect();
        println!("| {what} | {law} in {over} | {} |", cells.join(" | "));
        lines.push(Line {
            what,
            over,
            seconds: figures.iter().map(|(count, figure)| (*count, figure.seconds)).collect(),
        });
    };

    for count in &entries {
        let place = repository(format!("entries-{count}"));
        if !place.exists() {
            measure("make entries", &place, *count, 1);
        }
    }
    let of_entries = |count: u64| repository(format!("entries-{count}"));
    row("mount, to the names of the points", "entries", "constant", &entries, &|n| {
        measure("mount", &of_entries(n), n, 3)
    });
    row("ls of one directory of a fresh mount", "entries", "logarithmic", &entries, &|n| {
        measure("ls", &of_entries(n), n, 3)
    });
    row("first byte of a file in a fresh mount", "entries", "logarithmic", &entries, &|n| {
        measure("byte", &of_entries(n), n, 3)
    });
    row("find with attributes in a fresh mount", "entries", "linear", &entries, &|n| {
        measure("find", &of_entries(n), n, 1)
    });
    row("verify", "entries", "linear", &entries, &|n| measure("verify", &of_entries(n), n, 1));

    let trees: Vec<u64> = entries.iter().copied().filter(|count| *count <= 100_000).collect();
    let of_tree = |count: u64| repository(format!("tree-{count}"));
    row("full capture", "entries", "linear", &trees, &|n| measure("full capture", &of_tree(n), n, 1));
    row("unchanged capture", "entries", "linear", &trees, &|n| measure("unchanged capture", &of_tree(n), n, 3));
    row("capture of one changed file", "entries", "linear", &trees, &|n| measure("changed capture", &of_tree(n), n, 3));

    let points = [1, 100, 10_000];
    for count in points {
        let place = repository(format!("points-{count}"));
        if !place.exists() {
            measure("make points", &place, count, 1);
        }
    }
    let of_points = |count: u64| repository(format!("points-{count}"));
    row("mount, to the names of the points", "points", "constant, but for the names", &points, &|n| {
        measure("mount", &of_points(n), n, 3)
    });
    row("first byte in the middle point", "points", "constant", &points, &|n| measure("byte", &of_points(n), n, 3));
    row("verify", "points", "linear", &points, &|n| measure("verify", &of_points(n), n, 1));

    let readers = [1, 16, 64];
    let hundred = repository("entries-100000".to_owned());
    row("find with attributes, by several at once", "readers", "as one, and no slower", &readers, &|n| {
        measure("find by readers", &hundred, n, 3)
    });
    row("small files read, by several at once", "readers", "as one, and no slower", &readers, &|n| {
        measure("files by readers", &hundred, n, 3)
    });

    let picture = place.join("growth.svg");
    std::fs::write(&picture, picture::drawn(&lines)).expect("write the picture");
    println!("\n{}", picture.display());
}
