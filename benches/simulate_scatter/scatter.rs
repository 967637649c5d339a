//! Parts A1 to A5: how scattered the newest point is, and what old points leave behind.

use crate::chain::{Dedup, FRAME_OVERHEAD, KIB, NONE, PLAIN, Rules, Tree, World, stored};
use crate::change::{Branches, PATTERNS, Pattern};
use crate::{Scale, mib};

/// Caches of decoded frames that walks are measured with.
pub(crate) const CACHES: [u64; 2] = [96 << 20, 8 << 20];
/// Points that are kept when old ones are dropped.
pub(crate) const KEPT: usize = 100;

/// The walk of the newest point, against the ideal: every file once, in full frames of 256 KiB.
#[derive(Clone, Copy)]
pub(crate) struct Walk {
    /// Frames decoded, in ideal walks.
    pub(crate) frames: f64,
    /// Bytes decoded for one byte of file.
    pub(crate) bytes: f64,
    /// Bytes and overheads together, in ideal walks.
    pub(crate) cost: f64,
}

/// What a history leaves; sizes in stored bytes.
pub(crate) struct Outcome {
    pub(crate) world: World,
    /// By cache, as in [`CACHES`].
    pub(crate) walks: [Walk; 2],
    /// Written by the incrementals.
    pub(crate) stored: u64,
    /// After all but the newest points are dropped: live chunks, the frames and the packs that hold them.
    pub(crate) live_chunks: u64,
    pub(crate) live_frames: u64,
    pub(crate) live_packs: u64,
}

pub(crate) fn history(tree: Tree, scale: Scale, pattern: Pattern, rate: f64, rules: Rules) -> Outcome {
    let mut world = World::new(tree, scale.files, rules);
    let base = world.stored_bytes();
    let mut branches = Branches::new();
    let mut live: Vec<bool> = Vec::new();
    for point in 0..scale.points {
        let changed = world.change(pattern, rate, &mut branches);
        world.capture(&changed);
        if point + KEPT >= scale.points {
            live.resize(world.copies.len(), false);
            world.slots.iter().for_each(|s| live[s.copy as usize] = true);
        }
    }
    let useful = world.useful() as f64;
    let ideal_frames = useful / f64::from(PLAIN.group);
    let walks = CACHES.map(|cache| {
        let (frames, bytes) = world.walk(cache);
        let cost = (bytes + frames * FRAME_OVERHEAD) as f64;
        Walk {
            frames: frames as f64 / ideal_frames,
            bytes: bytes as f64 / useful,
            cost: cost / (useful + ideal_frames * FRAME_OVERHEAD as f64),
        }
    });
    let mut alive = vec![0u64; world.frames.len()];
    for (copy, _) in world.copies.iter().zip(&live).filter(|(_, live)| **live) {
        alive[copy.frame as usize] += u64::from(copy.bytes);
    }
    let packs = world.frames.last().map_or(0, |f| f.pack as usize + 1);
    let (mut held, mut in_use) = (vec![0u64; packs], vec![false; packs]);
    let (mut live_chunks, mut live_frames) = (0, 0);
    for (frame, alive) in world.frames.iter().zip(alive) {
        held[frame.pack as usize] += stored(frame.raw);
        if alive > 0 {
            in_use[frame.pack as usize] = true;
            live_frames += stored(frame.raw);
            live_chunks += (stored(frame.raw) as f64 * alive as f64 / frame.raw as f64) as u64;
        }
    }
    let live_packs = held.iter().zip(in_use).filter(|(_, in_use)| *in_use).map(|(held, _)| held).sum();
    Outcome { walks, stored: world.stored_bytes() - base, live_chunks, live_frames, live_packs, world }
}

pub(crate) fn by_frame_size(scale: Scale) {
    println!("\n### A1. No rule: cost of a walk of the newest point, in ideal walks (cache 96 MiB / 8 MiB)\n");
    println!(
        "| tree | pattern | rate % | 64K | 128K | 256K | 1M | bytes per byte, 256K | stored MiB 64K / 256K / 1M |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (tree, tree_name) in [(Tree::Usr, "usr"), (Tree::Linux, "linux")] {
        for (pattern, name) in PATTERNS {
            for rate in [0.001, 0.01] {
                let sized = |k: u32| history(tree, scale, pattern, rate, Rules { group: k * KIB, ..PLAIN });
                let outcomes = [64, 128, 256, 1024].map(sized);
                print!("| {tree_name} | {name} | {} |", rate * 100.0);
                for o in &outcomes {
                    print!(" {:.1} / {:.1} |", o.walks[0].cost, o.walks[1].cost);
                }
                print!(" {:.1} / {:.1} |", outcomes[2].walks[0].bytes, outcomes[2].walks[1].bytes);
                println!(" {} / {} / {} |", mib(outcomes[0].stored), mib(outcomes[2].stored), mib(outcomes[3].stored));
            }
        }
    }
}

pub(crate) fn by_rule(scale: Scale) {
    println!("\n### A2. Rules against scatter; linux tree, 256 KiB frames\n");
    println!(
        "| pattern | rate % | rule | walk cost 96M / 8M | frames 96M / 8M | bytes per byte | frames a leaf of 565 | stored MiB | stored again, % |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let gap = |gap| Rules { gap, dedup: Dedup::Share(0.125), ..PLAIN };
    let heal = |gap, heal, region| Rules { gap, heal, region, dedup: Dedup::Share(0.125), ..PLAIN };
    let rules = [
        ("none", PLAIN),
        ("gap 16", gap(16)),
        ("gap 64", gap(64)),
        ("gap 256", gap(256)),
        ("heal 4/64", heal(NONE, 4.0, 64)),
        ("gap 64, heal 3/64", heal(64, 3.0, 64)),
        ("gap 64, heal 2/64", heal(64, 2.0, 64)),
        ("gap 64, heal 2/256", heal(64, 2.0, 256)),
    ];
    for (pattern, name) in PATTERNS {
        for rate in [0.001, 0.01] {
            for (rule, rules) in rules {
                let mut o = history(Tree::Linux, scale, pattern, rate, rules);
                let leaf = o.world.frames_a_leaf(565);
                let again =
                    100.0 * o.world.again_bytes as f64 / (o.world.new_bytes + o.world.again_bytes).max(1) as f64;
                let [large, small] = o.walks;
                print!("| {name} | {} | {rule} | {:.1} / {:.1} |", rate * 100.0, large.cost, small.cost);
                print!(" {:.1} / {:.1} | {:.1} |", large.frames, small.frames, large.bytes);
                println!(" {leaf:.0} | {} | {again:.0} |", mib(o.stored));
            }
        }
    }
}

pub(crate) fn by_dedup(scale: Scale) {
    println!(
        "\n### A3. Which dedup hits of small chunks to accept; 256 KiB frames, gap 64, 0.5 % a point: walk cost 96M / 8M; stored MiB\n"
    );
    let policies = [
        ("always", Dedup::Always),
        ("never", Dedup::Never),
        ("neighbours 32", Dedup::Neighbours(32)),
        ("neighbours 128", Dedup::Neighbours(128)),
        ("share 1/16", Dedup::Share(1.0 / 16.0)),
        ("share 1/8", Dedup::Share(0.125)),
        ("share 1/4", Dedup::Share(0.25)),
    ];
    println!("| tree | pattern |{}", policies.map(|(name, _)| format!(" {name} |")).concat());
    println!("|---|---|{}", "---|".repeat(policies.len()));
    for (tree, tree_name) in [(Tree::Usr, "usr"), (Tree::Linux, "linux")] {
        for (pattern, name) in PATTERNS {
            print!("| {tree_name} | {name} |");
            for (_, dedup) in policies {
                let o = history(tree, scale, pattern, 0.005, Rules { dedup, gap: 64, ..PLAIN });
                print!(" {:.1} / {:.1}; {} |", o.walks[0].cost, o.walks[1].cost, mib(o.stored));
            }
            println!();
        }
    }
}

pub(crate) fn by_frame_size_with_rules(scale: Scale) {
    println!(
        "\n### A4. Frame sizes, with gap 64 and share 1/8, 0.5 % a point: walk cost 96M / 8M; stored MiB of all points; MiB held when all but the newest {KEPT} are dropped\n"
    );
    let sizes = [64, 128, 256, 512, 1024];
    println!("| tree | pattern | live chunks |{}", sizes.map(|k| format!(" {k}K |")).concat());
    println!("|---|---|---|{}", "---|".repeat(sizes.len()));
    for (tree, tree_name) in [(Tree::Usr, "usr"), (Tree::Linux, "linux")] {
        for (pattern, name) in PATTERNS {
            let rules = |k| Rules { group: k * KIB, gap: 64, dedup: Dedup::Share(0.125), ..PLAIN };
            let outcomes = sizes.map(|k| history(tree, scale, pattern, 0.005, rules(k)));
            print!("| {tree_name} | {name} | {} |", mib(outcomes[2].live_chunks));
            for o in &outcomes {
                print!(
                    " {:.1} / {:.1}; {}; {} |",
                    o.walks[0].cost,
                    o.walks[1].cost,
                    mib(o.world.stored_bytes()),
                    mib(o.live_frames)
                );
            }
            println!();
        }
    }
}

pub(crate) fn packs_of_dropped_points(scale: Scale) {
    println!(
        "\n### A5. All but the newest {KEPT} points dropped; linux tree, 0.5 % a point, 256 KiB frames: MiB of live chunks, of frames that hold one, of packs that hold one\n"
    );
    println!("| pattern | rule | chunks | frames | packs |");
    println!("|---|---|---|---|---|");
    let gap = Rules { gap: 64, dedup: Dedup::Share(0.125), ..PLAIN };
    for (pattern, name) in PATTERNS {
        for (rule, rules) in
            [("none", PLAIN), ("gap 64, share 1/8", gap), ("and heal 2/64", Rules { heal: 2.0, ..gap })]
        {
            let o = history(Tree::Linux, scale, pattern, 0.005, rules);
            println!("| {name} | {rule} | {} | {} | {} |", mib(o.live_chunks), mib(o.live_frames), mib(o.live_packs));
        }
    }
}
