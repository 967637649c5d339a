//! A tree of very many small files: everything is found again, and the memory of captures and of what serves the mount
//! stays within bounds, which do not depend on what is walked. `AMBERFS_TREE_FILES` sets how many.

use std::fs;

use amberfs::base::limits;

use crate::memory;
use crate::walk_in::WalkIn;

const FILES: usize = 4_000;
const FILES_A_DIRECTORY: usize = 500;

/// Most that a capture may have in memory, in KiB: what the limits give to files on their way, to changed leaves, to the index of
/// chunks, to open packs and to nodes of the point before; and the program itself, with its threads and their buffers.
const CAPTURE_KIB_MAX: u64 = {
    let program = 60 << 20;
    let packs = 2 * limits::UPLOAD_PART_BYTES + limits::META_PACK_BYTES as usize;
    let chunks = 64 * limits::DEDUP_CHUNKS_MAX;
    let nodes = limits::DIRTY_LEAF_BYTES + limits::NODE_CACHE_BYTES;
    (program + limits::CAPTURE_UNITS_BYTES + packs + chunks + nodes) as u64 >> 10
};

#[test]
fn many_files_are_found_again_in_bounded_memory() {
    let files = std::env::var("AMBERFS_TREE_FILES").map_or(FILES, |n| n.parse().expect("a number of files"));
    let walk_in = WalkIn::new();
    let source = walk_in.path("source");
    for file in 0..files {
        let dir = source.join(format!("{:05}", file / FILES_A_DIRECTORY));
        if file % FILES_A_DIRECTORY == 0 {
            fs::create_dir(&dir).unwrap();
        }
        // From nothing, over what an entry holds itself, to what shares a frame; every fifth is the twin of an earlier one.
        let content = if file % 5 == 0 { file.saturating_sub(97 * 20) } else { file };
        fs::write(dir.join(format!("{file:08}")), format!("{content:08}").repeat(content % 97)).unwrap();
    }
    let home = format!("home={}", source.display());
    let capture = || {
        let (_, peak) = memory::run_counted(&walk_in.command(&["capture", &home]));
        assert!(peak < CAPTURE_KIB_MAX, "a capture had {peak} KiB in memory, of {CAPTURE_KIB_MAX}");
        println!("a capture had {peak} KiB in memory");
    };
    capture();
    walk_in.sh("find source -type f -name '*7777' -exec sh -c 'echo changed >> \"$1\"' _ {} \\;");
    capture();
    walk_in.mount();
    let listed = "find . -printf '%P %y %m %s %T@ %C@\\n' | sort";
    walk_in.sh(&format!("(cd source; {listed}) > as-was"));
    for _ in 0..2 {
        walk_in.sh(&format!("(cd mnt/home/latest; {listed}) > as-shown"));
        walk_in.sh("cmp as-was as-shown");
    }
    walk_in.sh("diff -r source mnt/home/latest");
    memory::mount_is_bounded(&walk_in.path(""));
    walk_in.unmount();
}
