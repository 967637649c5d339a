//! A tree of very many small files: everything is found again, and the memory of what serves the mount
//! stays within its bound, which does not depend on what is walked. `AMBERFS_TREE_FILES` sets how many.

use std::fs;

use crate::memory;
use crate::walk_in::WalkIn;

const FILES: usize = 4_000;
const FILES_A_DIRECTORY: usize = 500;

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
    walk_in.amberfs(&["capture", &home]);
    walk_in.sh("find source -type f -name '*7777' -exec sh -c 'echo changed >> \"$1\"' _ {} \\;");
    walk_in.amberfs(&["capture", &home]);
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
