//! Parts B and C: what a point writes and a reader reads of maps and of the entries tree.

use std::collections::HashMap;

use crate::chain::{Dedup, PLAIN, Rules, Tree, World};
use crate::change::{Branches, PATTERNS};
use crate::dice::Dice;
use crate::{Scale, mib};

pub(crate) const INNER_CHILDREN: u64 = 256;
/// Stored bytes of one child in an inner node: most of it the hash.
pub(crate) const CHILD_BYTES: u64 = 34;
/// Raw and stored bytes of one extent in a map page: two hashes of 16 bytes, and the rest compresses.
pub(crate) const EXTENT_BYTES: (u64, u64) = (46, 38);

/// Calls `each` for every chunk of a disk that changes in one incremental.
pub(crate) fn disk_changes(
    dice: &mut Dice,
    pattern: &str,
    chunks: u64,
    count: u64,
    point: u64,
    each: &mut dyn FnMut(u64),
) {
    match pattern {
        "random" => (0..count).for_each(|_| each(dice.below(chunks))),
        // Runs of 1 to 4 MiB, nine in ten in a twentieth of the disk.
        "clustered" => {
            let mut done = 0;
            while done < count {
                let run = 16 + dice.below(49);
                let anywhere = dice.below(10) == 0;
                let start = dice.below(if anywhere { chunks } else { chunks / 20 });
                (start..(start + run).min(chunks)).for_each(&mut *each);
                done += run;
            }
        }
        _ => {
            let start = point * count % chunks;
            (start..(start + count).min(chunks)).for_each(&mut *each);
        }
    }
}

pub(crate) fn map_pages(points: u64, disks: &[(&str, u64)]) {
    println!("\n### B. Map of a disk in 64 KiB chunks, {points} incrementals\n");
    println!(
        "| disk | pattern | rate % | page, leaf | map a point, MiB | % of data | map of a full, MiB | leaves | GETs of a scan | KiB read for one random 4K |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (disk, chunks) in disks.iter().copied() {
        for pattern in ["random", "clustered", "sequential"] {
            for rate in [0.001, 0.02] {
                for (page, leaf_kib) in [(128u64, 8u64), (256, 16), (512, 32), (1024, 64), (4096, 32)] {
                    let per_leaf = page.max(leaf_kib * 1024 / EXTENT_BYTES.0 / page * page);
                    let leaf_bytes = 60 + per_leaf * EXTENT_BYTES.1;
                    let leaves = chunks.div_ceil(per_leaf);
                    let count = ((chunks as f64 * rate) as u64).max(1);
                    let mut dice = Dice(7);
                    let mut last = vec![0u32; leaves as usize];
                    // All points of a small disk; of a large one the last hundred, which is a steady state.
                    let simulated = if chunks > 1 << 20 { points.min(100) } else { points };
                    let mut written = 0u64;
                    for point in points - simulated + 1..=points {
                        let mut touched = 0u64;
                        disk_changes(&mut dice, pattern, chunks, count, point, &mut |chunk| {
                            let leaf = &mut last[(chunk / per_leaf) as usize];
                            touched += u64::from(*leaf != point as u32);
                            *leaf = point as u32;
                        });
                        let (mut nodes, mut inner) = (leaves, 0);
                        while nodes > 1 {
                            nodes = nodes.div_ceil(INNER_CHILDREN);
                            inner += nodes.min(touched);
                        }
                        written += touched * leaf_bytes + inner * INNER_CHILDREN.min(leaves) * CHILD_BYTES;
                    }
                    let a_point = written / simulated;
                    let data = count * (64 << 10) * 100 / 177;
                    print!("| {disk} | {pattern} | {} | {page}, {leaf_kib}K |", rate * 100.0);
                    print!(
                        " {:.2} | {:.1} |",
                        a_point as f64 / f64::from(1 << 20),
                        100.0 * a_point as f64 / data as f64
                    );
                    println!(
                        " {} | {leaves} | {} | {} |",
                        mib(leaves * leaf_bytes),
                        gets(&last, leaf_bytes),
                        leaf_bytes >> 10
                    );
                }
            }
        }
    }
}

/// Requests of a scan over leaves last written by these points: what lies in one point's pack with gaps
/// of at most 1 MiB is one request, of about 8 MiB at most.
fn gets(last: &[u32], leaf_bytes: u64) -> u64 {
    // By point: where its current request starts and ends.
    let mut open: HashMap<u32, (usize, usize)> = HashMap::new();
    let mut requests = 0;
    for (leaf, point) in last.iter().enumerate() {
        let request = open.entry(*point).or_insert((usize::MAX, 0));
        let (start, end) = *request;
        let near = start != usize::MAX
            && (leaf - end) as u64 * leaf_bytes <= 1 << 20
            && (leaf - start) as u64 * leaf_bytes < 8 << 20;
        requests += u64::from(!near);
        *request = (if near { start } else { leaf }, leaf);
    }
    requests
}

/// Raw and stored bytes of an entry, and stored bytes of a frame and of a pack in a leaf's tables.
pub(crate) const ENTRY_BYTES: (usize, f64) = (58, 14.0);
pub(crate) const LEAF_TABLE_BYTES: (f64, f64) = (26.0, 28.0);

/// Children of an inner node, at most.
const FANS: [usize; 3] = [64, 128, 256];

/// Bytes of inner nodes written: those above the leaves, and one root above them.
fn inner_bytes(touched: &[(Vec<u32>, u64); 3], fan: usize, leaves: usize) -> u64 {
    let Some((nodes, written)) = FANS.iter().position(|f| *f == fan).map(|i| &touched[i]) else { return 0 };
    let root = if nodes.len() > 1 { nodes.len() as u64 * CHILD_BYTES } else { 0 };
    written * fan.min(leaves) as u64 * CHILD_BYTES + root * u64::from(*written > 0)
}

pub(crate) fn leaves(scale: Scale, rates: &[f64]) {
    println!(
        "\n### C. Leaves of the entries tree, linux tree of {} files, {} incrementals, gap 64\n",
        scale.files, scale.points
    );
    println!(
        "| pattern | rate % | leaf | leaves | metadata a point, KiB | of that inner nodes, fan-out 64 / 128 / 256 | % of new data | newest metadata, MiB (fresh) | outside the full's packs, % | GETs of a scan | rewrites of all at 25 % outside; KiB a point |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for (pattern, name) in PATTERNS {
        for rate in rates.iter().copied() {
            for leaf_kib in [8usize, 16, 32, 64] {
                let entries = leaf_kib * 1024 / ENTRY_BYTES.0;
                let mut world =
                    World::new(Tree::Linux, scale.files, Rules { gap: 64, dedup: Dedup::Share(0.125), ..PLAIN });
                let bytes = |frames: f64, packs: f64| {
                    ENTRY_BYTES.1 * entries as f64 + LEAF_TABLE_BYTES.0 * frames + LEAF_TABLE_BYTES.1 * packs
                };
                let fresh = bytes(world.frames_a_leaf(entries), 1.0);
                let count = world.slots.len().div_ceil(entries);
                let (mut last, mut moved) = (vec![0u32; count], vec![false; count]);
                let (mut touched, mut rewrites) = (0u64, 0u64);
                // By fan-out: the point that last wrote each node above the leaves, and how many were written.
                let mut inner_touched = FANS.map(|fan| (vec![0u32; count.div_ceil(fan)], 0u64));
                let mut branches = Branches::new();
                for point in 1..=scale.points as u32 {
                    let changed = world.change(pattern, rate, &mut branches);
                    world.capture(&changed);
                    for slot in changed {
                        let leaf = slot as usize / entries;
                        touched += u64::from(last[leaf] != point);
                        for (fan, above) in FANS.iter().zip(&mut inner_touched) {
                            let node = &mut above.0[leaf / fan];
                            above.1 += u64::from(*node != point);
                            *node = point;
                        }
                        (last[leaf], moved[leaf]) = (point, true);
                    }
                    if moved.iter().filter(|m| **m).count() * 4 > count {
                        rewrites += 1;
                        moved.fill(false);
                    }
                }
                let frames = world.frames_a_leaf(entries);
                let leaf = bytes(frames, frames.min(scale.points as f64));
                let inner = FANS.map(|fan| inner_bytes(&inner_touched, fan, count) as f64 / scale.points as f64);
                let a_point = touched as f64 / scale.points as f64 * leaf + inner[1];
                let data = world.new_bytes as f64 / 2.2 / scale.points as f64;
                let outside = 100.0 * last.iter().filter(|l| **l != 0).count() as f64 / count as f64;
                print!("| {name} | {} | {leaf_kib}K | {count} |", rate * 100.0);
                let [small, middle, large] = inner.map(|bytes| bytes / 1024.0);
                print!(
                    " {:.0} | {small:.0} / {middle:.0} / {large:.0} | {:.0} |",
                    a_point / 1024.0,
                    100.0 * a_point / data.max(1.0)
                );
                let newest = |leaf: f64| leaf * count as f64 / f64::from(1 << 20);
                print!(" {:.1} ({:.1}) | {outside:.0} | {} |", newest(leaf), newest(fresh), gets(&last, leaf as u64));
                println!(" {rewrites}; {:.0} |", rewrites as f64 * count as f64 * leaf / scale.points as f64 / 1024.0);
            }
        }
    }
}
