//! What becomes of the layout of a chain after a thousand incrementals: the figures behind the sizes
//! in `base/limits.rs` and the rules of `docs/decisions/001-sizes.md`, printed as tables.
//!
//! Three questions. How scattered are small files that share frames, by frame size, dedup policy and
//! rewriting rule, and what do old points leave behind when they go? How much map does a disk write
//! and read, by page size? How much metadata does an incremental write, by leaf size?
//!
//! A simulation of references, not of bytes: chunks are numbers with a size, a frame is a size, and
//! compression is a measured curve. One seed, so every run prints the same. Standard library only:
//! `rustc -O --edition 2024 benches/simulate_scatter/main.rs -o sim && ./sim [A1 A2 A3 A4 A5 B C]`, or
//! `cargo bench --bench simulate_scatter`. When a test runner starts it, and with `quick`, the
//! histories are short: that shows that it runs, and its figures mean nothing.

mod chain;
mod change;
mod dice;
mod nodes;
mod scatter;

/// The length of the histories.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) files: usize,
    pub(crate) points: usize,
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / f64::from(1 << 20))
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| words.iter().any(|w| w == word);
    let quick = has("quick") || (std::env::var_os("CARGO").is_some() && !has("--bench"));
    let scale = if quick { Scale { files: 4000, points: 20 } } else { Scale { files: 78_000, points: 1000 } };
    let disks = [("8 GiB", 1u64 << 17), ("2 TiB", 1 << 25)];
    let parts: [(&str, &dyn Fn()); 7] = [
        ("A1", &|| scatter::by_frame_size(scale)),
        ("A2", &|| scatter::by_rule(scale)),
        ("A3", &|| scatter::by_dedup(scale)),
        ("A4", &|| scatter::by_frame_size_with_rules(scale)),
        ("A5", &|| scatter::packs_of_dropped_points(scale)),
        ("B", &|| nodes::map_pages(scale.points as u64, if quick { &disks[..1] } else { &disks })),
        ("C", &|| {
            nodes::leaves(scale, &[0.001, 0.01]);
            nodes::leaves(Scale { files: scale.files * 6, ..scale }, &[0.0001]);
        }),
    ];
    let all = !parts.iter().any(|(name, _)| has(name));
    for (name, run) in parts {
        if all || has(name) {
            run();
        }
    }
}
