//! The main job on real input: real trees are captured, changed in several ways, captured again and
//! mounted, and every point is what a kept copy is, by everybody's judgement.

use crate::walk_in::WalkIn;
use crate::{skip, sys};

/// Several kinds of change, told to a tree with `$T` as its top and some hundred files in it.
const CHANGES: &str = r#"
mapfile -d '' all < <(find "$T" -type f -size -200k -not -path '*/.git/*' -print0 | sort -z)
files=(); for n in $(seq 0 39); do files+=("${all[$((n * ${#all[@]} / 40))]}"); done
for f in "${files[@]:0:10}"; do echo edited >"$f"; done
for f in "${files[@]:10:10}"; do echo appended >>"$f"; done
rm "${files[@]:20:5}"
chmod 600 "${files[@]:25:5}"
touch -d 2003-04-05T06:07:08.9 "${files[@]:30:5}"
d=$(find "$T" -mindepth 1 -maxdepth 2 -type d -not -name .git -not -path '*/.git*' | sort | sed -n 1p); mv "$d" "$d.renamed"
mkdir -p "$T/fresh/sub"; for n in $(seq 30); do seq $n >"$T/fresh/sub/$n"; done; ln "$T/fresh/sub/3" "$T/fresh/three"
"#;

fn main_job(fill: &str) {
    let walk_in = WalkIn::new();
    walk_in.sh(fill);
    let first = walk_in.capture(&["--label", "first"]);
    walk_in.sh(&format!("T=source\n{CHANGES}"));
    let second = walk_in.capture(&[]);
    let size = || walk_in.sh("find repository -type f | wc -l");
    let before: u64 = size().trim().parse().unwrap();
    let third = walk_in.capture(&[]);
    assert_eq!(size().trim().parse::<u64>().unwrap(), before + 1, "an unchanged capture is one object");
    walk_in.sh("rm -rf source/fresh/sub; echo again >source/again");
    let fourth = walk_in.capture(&["--full"]);
    walk_in.mount();
    for name in [&first, &second, &third, &fourth] {
        walk_in.is_as_it_was(name);
    }
    assert_eq!(
        walk_in.sh("readlink mnt/home/latest mnt/home/labels/first"),
        format!("points/{fourth}\n../points/{first}\n")
    );
    assert_eq!(walk_in.sh("readlink mnt/home/at/now"), format!("../points/{fourth}\n"));
    walk_in.sh("mkdir out; rsync -aHAX mnt/home/latest/ out/");
    assert_eq!(
        walk_in.sh("rsync -aHAX --itemize-changes mnt/home/latest/ out/"),
        "",
        "a second copy transfers nothing"
    );
    walk_in.sh("for git in $(cd source; find . -maxdepth 2 -name .git); do \
         git -c safe.directory='*' -C mnt/home/latest/${git%.git} fsck --strict; done");
    walk_in.unmount();
}

/// Makes a repository with some history out of what is in the directory, or of `files`.
fn git(directory: &str, files: &str) -> String {
    format!(
        "(cd {directory}; git init -q; git config user.name t; git config user.email t@t; git config gc.auto 0; {files}; \
         git add -f .; git commit -qm all; git gc -q)"
    )
}

/// A bounded part of /usr with what is special in it: all that has set-id bits or capabilities, thousands of symbolic
/// links, files with several names, headers, programs.
const USR: &str = r#"
mkdir -p source
take() { rsync -aHAX -0 --files-from=- / source/; }
rsync -aHAXR /usr/include/linux /usr/include/c++ /usr/lib/git-core /usr/share/zoneinfo source/
{ find /usr -xdev -type l -print0 || true; } | head -z -n 800 | take
{ find /usr -xdev -type f -links +1 -size -4M -print0 || true; } | head -z -n 200 | take
find /usr -xdev -type f -perm /6000 -print0 | take
getcap -r /usr 2>/dev/null | sed 's/ cap_[^ ]*$//' | tr '\n' '\0' | take
# A machine without any has both all the same.
cp /usr/bin/env source/usr/with-capability; setcap cap_net_raw+ep source/usr/with-capability
cp /usr/bin/env source/usr/with-setuid; chown 65534:65534 source/usr/with-setuid; chmod 6755 source/usr/with-setuid
[ "$(find source -type l | wc -l)" -gt 100 ]; [ -n "$(getcap -r source)" ]; [ -n "$(find source -perm -4000)" ]
"#;

#[test]
fn real_trees_are_captured_changed_and_walked() {
    if !sys::is_root() {
        return skip::skipped("needs root, to keep copies with their owners; run the tests as root");
    }
    let history = "for n in $(seq 12); do seq $((n * 100)) >f$n; git add -f .; git commit -qm $n; done; echo >last";
    main_job(&format!("{USR}\nmkdir source/repo\n{}", git("source/repo", history)));
}

#[test]
fn whole_trees_are_captured_changed_and_walked() {
    let Ok(trees) = std::env::var("AMBERFS_MAIN_JOB_TREES") else {
        return skip::untried("the main job on all of /usr; .ci/long does, or AMBERFS_MAIN_JOB_TREES=/usr");
    };
    if !sys::is_root() {
        return skip::skipped("needs root, to keep copies with their owners; run the tests as root");
    }
    for tree in trees.split_whitespace() {
        main_job(&format!("cp -a --one-file-system {tree}/. source/"));
    }
}

#[test]
fn the_linux_source_is_captured_changed_and_walked() {
    match std::env::var("AMBERFS_LINUX_SOURCE") {
        Ok(tree) if sys::is_root() => main_job(&format!("cp -a {tree}/. source/; {}", git("source", "true"))),
        Ok(_) => skip::skipped("needs root, to keep copies with their owners; run the tests as root"),
        Err(_) => skip::untried(
            "the main job on the Linux source, as a git repository; .ci/long does, or \
             AMBERFS_LINUX_SOURCE=$(tests/linux-source)",
        ),
    }
}
