//! Rollbacks of real sources: a disk image with ext4, a loop device, a tree with all kinds of changes; there and
//! back, killed at random and continued. Kept copies are the judges, by cmp, e2fsck, rsync and git.

use std::time::{Duration, Instant};

use crate::disks::{Loop, can_mount_images};
use crate::walk_in::WalkIn;
use crate::{skip, sys};

/// The command fails with this code and says these words.
#[track_caller]
fn refused(walk_in: &WalkIn, arguments: &[&str], code: i32, words: &str) {
    let output = walk_in.try_amberfs(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(words), "{arguments:?}: {said}");
}

/// The last line of `--json`.
#[track_caller]
fn rolled(walk_in: &WalkIn, arguments: &[&str]) -> serde_json::Value {
    let said = walk_in.amberfs(&[&["rollback", "--json", "--yes"], arguments].concat());
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

/// Starts a rollback and kills it after so long; whether it was still at work.
fn killed(walk_in: &WalkIn, arguments: &[&str], after: Duration) -> bool {
    let mut child = walk_in.command(&[&["rollback", "--yes", "--quiet"], arguments].concat()).spawn().unwrap();
    std::thread::sleep(after);
    drop(child.kill());
    child.wait_with_output().unwrap().status.code().is_none()
}

/// Starts a rollback, while none is unfinished, and kills it as soon as it is at writing; whether it was not faster.
fn killed_at_writing(walk_in: &WalkIn, arguments: &[&str]) -> bool {
    assert!(!under_way(walk_in));
    let mut child = walk_in.command(&[&["rollback", "--yes", "--quiet"], arguments].concat()).spawn().unwrap();
    let is_note = |name: std::fs::DirEntry| name.path().extension().is_some_and(|extension| extension == "json");
    let has_begun =
        || std::fs::read_dir(walk_in.path("state/rollbacks")).is_ok_and(|names| names.flatten().any(is_note));
    while child.try_wait().unwrap().is_none() && !has_begun() {
        std::thread::yield_now();
    }
    drop(child.kill());
    drop(child.wait());
    under_way(walk_in)
}

/// Whether a rollback has begun to write and not ended.
fn under_way(walk_in: &WalkIn) -> bool {
    walk_in.sh("ls state/rollbacks 2>/dev/null || true").contains(".json")
}

/// Moments of a rollback that takes this long, from its beginning to its end.
fn moments(of: Duration) -> impl Iterator<Item = Duration> + Clone {
    (1..=12).map(move |part| of * part / 12)
}

#[test]
fn an_image_goes_back_and_forth_between_its_points() {
    if !can_mount_images() {
        return;
    }
    let walk_in = WalkIn::new();
    let sh = |script: &str| walk_in.sh(script);
    sh("truncate -s 80M disk.img; mkfs.ext4 -q disk.img; mkdir in
        mount -o loop disk.img in; cp -r /usr/include/linux in/; head -c 9M /dev/urandom >in/noise; umount in");
    let change = [
        "true",
        "mount -o loop disk.img in; rm -r in/linux/usb; head -c 3M /dev/urandom >in/more; umount in",
        "truncate -s 100M disk.img; e2fsck -fy disk.img >&2; resize2fs disk.img >&2; mount -o loop disk.img in; rm in/noise; umount in",
    ];
    let mut points = Vec::new();
    for (number, script) in change.iter().enumerate() {
        sh(script);
        points.push(walk_in.capture_of(&["--disk", "vm=disk.img"], &["--label", &format!("p{number}")]));
        sh(&format!("cp --sparse=always disk.img kept/{number}"));
    }
    let inode = sh("stat -c %i disk.img");
    let dry = rolled(&walk_in, &["vm%p0", "--dry-run"]);
    assert!(dry["written_bytes"].as_u64() > Some(1 << 16) && dry["complete"] == false, "{dry}");
    sh("cmp disk.img kept/2");
    for number in [0, 2, 1, 0] {
        let done = rolled(&walk_in, &[&format!("vm%p{number}"), "--verify"]);
        assert!(done["safety"].is_string() && done["kept_bytes"].as_u64() > Some(1 << 20), "{done}");
        assert!(done["written_bytes"].as_u64() < Some(40 << 20), "{done}");
        sh(&format!("cmp disk.img kept/{number}; e2fsck -fn disk.img >/dev/null 2>&1"));
        assert_eq!(sh("stat -c %i disk.img"), inode);
    }
    // What comes next builds on the point that was rolled back to, and later ones stay.
    sh("head -c 1M /dev/urandom | dd of=disk.img bs=1M seek=70 conv=notrunc status=none; cp disk.img kept/3");
    let next = walk_in.amberfs(&["capture", "--json", "--disk", "vm=disk.img"]);
    let next: serde_json::Value = serde_json::from_str(next.lines().last().unwrap()).unwrap();
    assert_eq!(next["parent"], points[0].as_str(), "{next}");
    assert!(next["new_bytes"].as_u64() < Some(3 << 20), "{next}");
    for number in 0..3 {
        walk_in.amberfs(&["restore", &format!("vm%p{number}"), "--to", "out.raw", "--force"]);
        sh(&format!("cmp out.raw kept/{number}"));
    }
    // Safety points are points: the last one is what the disk was before.
    walk_in.amberfs(&["rollback", "--yes", "--no-safety-point", "vm%before-rollback"]);
    sh("cmp disk.img kept/1");
    walk_in.mount();
    let names = sh("ls mnt/vm/chains/0 | cut -d- -f1 | uniq -d; ls mnt/vm/chains/0 | wc -l; ls mnt/vm/points | wc -l");
    assert_eq!(names.trim(), "8\n8", "{names}");
    walk_in.unmount();

    sh("mount -o loop,ro,noload disk.img in");
    refused(&walk_in, &["rollback", "--yes", "vm%p0"], 11, "is in use: unmount it");
    sh("umount in; cmp disk.img kept/1; [ -z \"$(ls state/rollbacks | grep json)\" ]");
}

#[test]
fn a_device_is_rolled_back_and_one_that_is_too_small_or_mounted_is_not() {
    if !can_mount_images() {
        return;
    }
    let walk_in = WalkIn::new();
    let sh = |script: &str| walk_in.sh(script);
    let device = Loop::new(&walk_in, 64 << 20);
    let at = device.path();
    let source = format!("vm={at}");
    sh(&format!("mkdir in; mkfs.ext4 -q {at}; mount {at} in; cp -r /usr/include/linux in/; umount in; cp {at} kept/0"));
    walk_in.capture_of(&["--disk", &source], &["--label", "p0"]);
    sh(&format!("mount {at} in; rm -r in/linux/usb; head -c 20M /dev/urandom >in/noise; umount in; cp {at} kept/1"));
    walk_in.capture_of(&["--disk", &source], &["--label", "p1"]);
    sh(&format!("mount -o ro,noload {at} in"));
    refused(&walk_in, &["rollback", "--yes", "vm%p0"], 11, "is in use");
    sh(&format!("umount in; cmp {at} kept/1"));
    let began = Instant::now();
    rolled(&walk_in, &["vm%p0"]);
    let took = began.elapsed();
    walk_in.amberfs(&["rollback", "--yes", "--verify", "vm%p0"]);
    sh(&format!("cmp {at} kept/0; e2fsck -fn {at} >/dev/null 2>&1"));

    // Killed at writing, then wherever it is, and continued: one safety point for all of it.
    let mut safe = usize::from(killed_at_writing(&walk_in, &["vm%p1"]));
    for after in moments(took) {
        if killed(&walk_in, &["vm%p1"], after) && under_way(&walk_in) {
            safe += 1;
            assert!(walk_in.amberfs(&["status"]).contains("unfinished rollback: amberfs rollback vm#"));
        }
    }
    let points = walk_in.points().len();
    let begun = under_way(&walk_in);
    let done = rolled(&walk_in, &["vm%p1"]);
    let resumed = done["resumed"].as_bool().unwrap();
    assert!(begun || !resumed, "{done}");
    assert_eq!(walk_in.points().len(), points + usize::from(!resumed));
    sh(&format!("cmp {at} kept/1"));
    if safe == 0 {
        skip::untried("killing the rollback of a device while it writes: it was never at that when it was killed");
    }

    // What a mounted filesystem has written around the pages through which the device is read.
    sh(&format!(
        "mount {at} in; cat {at} >/dev/null; head -c 5M /dev/urandom | dd of=in/noise conv=notrunc status=none; sync"
    ));
    let dry = rolled(&walk_in, &["vm%p1", "--dry-run"]);
    sh("umount in");
    assert!(dry["written_bytes"].as_u64() >= Some(5 << 20), "{dry}");

    let small = Loop::new(&walk_in, 10 << 20);
    walk_in.amberfs(&["source", "add", "--disk", "vm", small.path()]);
    refused(&walk_in, &["rollback", "--yes", "vm%p0"], 1, "the disk needs 67108864");
}

/// A tree with all that a filesystem has, and changes of all kinds to it.
const TREE: &str = r#"
mkdir -p source/d/e source/gone source/closed source/kind
cp -r /usr/include/linux source/
(cd source; git init -q repo; cd repo; git config user.email a@b; git config user.name c; cp -r ../linux/netfilter .; git add .; git commit -qm first)
cd source
echo one >d/file; echo same >d/same; ln -s file d/link; ln d/file d/e/hard; mkfifo pipe; echo x >name-with-$'\n'-newline
head -c 5000000 /dev/urandom >large; truncate -s 9M sparse; echo end >>sparse; touch empty
ln large d/large-too; echo a >kind/file; mkdir kind/dir; echo in >kind/dir/in; ln -s nowhere kind/link
chmod 640 d/same; setfattr -n user.colour -v blue d/same 2>/dev/null || true; chmod 500 closed
touch -d 2001-02-03T04:05:06.123456789 d d/same gone
mkdir left; echo keep >left/excluded.tmp; echo known >left/known
"#;
const CHANGE: &str = r#"
cd source
(cd repo; git rm -rq --cached netfilter; git checkout -q -b other; echo more >>new; git add new; git commit -qm second)
rm -r linux/usb; mv linux/can linux/mnt; sed -i s/one/two/ d/file; rm d/e/hard; ln d/same d/e/hard
rm pipe; echo file >pipe; chmod 4755 d/same; chown 12:34 empty; ln -sf other d/link; rm kind/link; mkdir kind/link; echo deep >kind/link/deep
rm -r kind/dir; echo file >kind/dir; rm kind/file; mkdir -p kind/file/below; echo x >kind/file/below/x
rmdir gone; mkdir -p fresh/a/b; echo new >fresh/a/b/c; ln fresh/a/b/c fresh/hard; rm d/large-too; printf Z | dd of=large bs=1 seek=4000000 conv=notrunc status=none
setfattr -x user.colour d/same 2>/dev/null || true; truncate -s 3M sparse; chmod 700 closed; touch closed/new; chmod 555 closed
rm left/known; echo new >>left/excluded.tmp
"#;

/// The tree is what was kept under this name, what is excluded aside.
#[track_caller]
fn is_kept(walk_in: &WalkIn, name: &str) {
    let differs = "rsync -aHAXn --checksum --itemize-changes --delete --exclude=*.tmp";
    assert_eq!(walk_in.sh(&format!("{differs} kept/{name}/ source/")), "", "{name}");
    walk_in.sh("[ -z \"$(find source -name '.amberfs-*')\" ]; [ ! -e source/repo ] || git -C source/repo fsck --strict >/dev/null 2>&1");
}

/// A configured source `home` with two points, `p0` and `p1`, each kept.
fn tree() -> Option<WalkIn> {
    if !sys::is_root() {
        skip::skipped("needs root, to set owners; run the tests as root");
        return None;
    }
    let walk_in = WalkIn::new();
    let source = walk_in.path("source");
    walk_in.amberfs(&["source", "add", "home", source.to_str().unwrap(), "--exclude", "*.tmp"]);
    walk_in.sh(TREE);
    walk_in.sh("cp -a source kept/p0");
    walk_in.capture_of(&["home"], &["--label", "p0"]);
    walk_in.sh(CHANGE);
    walk_in.sh("cp -a source kept/p1");
    walk_in.capture_of(&["home"], &["--label", "p1"]);
    Some(walk_in)
}

#[test]
fn a_tree_goes_back_and_forth_between_its_points() {
    let Some(walk_in) = tree() else { return };
    let dry = rolled(&walk_in, &["home%p0", "--dry-run"]);
    assert!(dry["files"].as_u64() > Some(5) && dry["removed"].as_u64() > Some(3), "{dry}");
    is_kept(&walk_in, "p1");
    let done = rolled(&walk_in, &["home%p0", "--verify"]);
    assert_eq!((&done["problems"], &done["complete"]), (&0.into(), &true.into()), "{done}");
    assert!(done["files"].as_u64() < Some(200) && done["verified"].as_u64() > Some(0), "{done}");
    is_kept(&walk_in, "p0");
    assert_eq!(walk_in.sh("cat source/left/excluded.tmp"), "keep\nnew\n");
    // There is nothing to do again, and nothing is touched.
    let before = walk_in.sh("find source -printf '%P %C@\\n' | sort");
    let done = rolled(&walk_in, &["home%p0", "--no-safety-point"]);
    assert_eq!((&done["files"], &done["removed"], &done["metadata"]), (&0.into(), &0.into(), &0.into()), "{done}");
    assert_eq!(walk_in.sh("find source -printf '%P %C@\\n' | sort"), before);
    assert_eq!(walk_in.points().len(), 3);
    // Forth, and from another chain.
    rolled(&walk_in, &["home%p1"]);
    is_kept(&walk_in, "p1");
    walk_in.amberfs(&["capture", "--full", "home"]);
    let done = rolled(&walk_in, &["home%p0"]);
    is_kept(&walk_in, "p0");
    // The content that both chains have is compared where it is, and stays.
    assert!(done["files"].as_u64() < Some(200), "{done}");
    let next = walk_in.amberfs(&["capture", "home"]);
    assert!(next.contains("nothing changed") || next.contains("changed or new"), "{next}");
    rolled(&walk_in, &["home%before-rollback"]);
    is_kept(&walk_in, "p1");
    walk_in.mount();
    let points = walk_in.sh("cat mnt/home/chains/*/*/d/file | sort | uniq -c | wc -l; ls mnt/home/points | wc -l");
    assert!(points.starts_with('2'), "{points}");
    walk_in.unmount();
}

#[test]
fn a_tree_that_was_killed_on_its_way_goes_on() {
    let Some(walk_in) = tree() else { return };
    let mut begun = 0;
    let began = Instant::now();
    rolled(&walk_in, &["home%p1"]);
    rolled(&walk_in, &["home%p0"]);
    for (round, after) in moments(began.elapsed() / 2).enumerate() {
        let to = ["home%p1", "home%p0"][round % 2];
        killed(&walk_in, &[to], after);
        let points = walk_in.points().len();
        // One that was killed before it wrote its own note leaves that of the one before it.
        let continues = under_way(&walk_in) && walk_in.sh("cat state/rollbacks/*.json").contains(to);
        // Every third one is not continued, but superseded by the one that follows.
        if round % 3 != 2 {
            let done = rolled(&walk_in, &[to]);
            // Killed between the head's entry and taking the note away, it was through.
            let resumed = done["resumed"].as_bool().unwrap();
            assert!((continues || !resumed) && done["problems"] == 0, "{done}");
            assert_eq!(walk_in.points().len(), points + usize::from(!resumed));
            begun += usize::from(resumed);
            is_kept(&walk_in, &to[5..]);
        }
    }
    let interrupted = (0..20).any(|_| {
        rolled(&walk_in, &["home%p1"]);
        killed_at_writing(&walk_in, &["home%p0"])
    });
    let done = rolled(&walk_in, &["home%p0"]);
    assert_eq!(done["resumed"], interrupted, "{done}");
    is_kept(&walk_in, "p0");
    if begun == 0 && !interrupted {
        skip::untried("killing the rollback of a tree while it writes: it was never at that when it was killed");
    }
}

#[test]
fn hooks_run_in_order_and_what_changes_meanwhile_is_left_alone() {
    let Some(walk_in) = tree() else { return };
    let hooks = |stop: &str, start: &str| {
        let source = walk_in.path("source");
        let text = format!(
            "[[source]]\nname = \"home\"\npath = {source:?}\nexclude = [\"*.tmp\"]\nstop = [\"sh\", \"-c\", {stop:?}]\nstart = [\"sh\", \"-c\", {start:?}]\n"
        );
        std::fs::write(walk_in.path("config.toml"), text).unwrap();
    };
    let log = walk_in.path("log");
    let note =
        |word: &str| format!("echo {word} $(cat '{}') >>'{}'", walk_in.path("source/d/file").display(), log.display());
    let log = || walk_in.sh("cat log; rm log");
    hooks(&note("stop"), &note("start"));
    rolled(&walk_in, &["home%p0"]);
    assert_eq!(log(), "stop two\nstart one\n");
    // A stop hook that fails ends it, and what it may have stopped is started.
    hooks(&format!("{}; exit 3", note("stop")), &note("start"));
    refused(&walk_in, &["rollback", "--yes", "home%p1"], 1, "the stop hook of the source");
    assert_eq!(log(), "stop one\nstart one\n");
    is_kept(&walk_in, "p0");
    hooks("sleep 600", &note("start"));
    refused(&walk_in, &["rollback", "--yes", "--hook-timeout", "1", "home%p1"], 1, "did not end within 1 s");
    assert_eq!(log(), "start one\n");
    hooks("echo said by the hook", &format!("{}; exit 4", note("start")));
    refused(&walk_in, &["rollback", "--yes", "home%p1"], 3, "said by the hook");
    assert_eq!(log(), "start two\n");
    is_kept(&walk_in, "p1");

    // A hook after the stop is none; so a note of a rollback that has begun stands for what happens meanwhile.
    hooks("true", "true");
    walk_in.sh("cp -a source kept/before");
    let unfinished = (0..20).any(|_| {
        rolled(&walk_in, &["home%p1"]);
        killed_at_writing(&walk_in, &["home%p0"])
    });
    if !unfinished {
        skip::untried("changes between a killed rollback and its continuation: it was always through");
        return;
    }
    walk_in.sh("echo mine >source/d/file; echo mine >source/d/mine");
    refused(
        &walk_in,
        &["rollback", "--yes", "home%p0"],
        3,
        "d/file: left as it is, because the safety point has no copy",
    );
    assert_eq!(walk_in.sh("cat source/d/file source/d/mine"), "mine\nmine\n");
}

#[test]
fn a_rollback_that_is_not_meant_is_refused() {
    let Some(walk_in) = tree() else { return };
    let refused = |arguments: &[&str], code, words| refused(&walk_in, arguments, code, words);
    refused(&["rollback", "home%p0"], 2, "there is no terminal to ask at");
    refused(&["rollback", "--yes", "home%p0:d"], 2, "a source is rolled back as a whole");
    refused(&["rollback", "--yes", "home%none"], 1, "none");
    refused(&["rollback", "--yes", "nobody"], 1, "no source");
    let typed = |word: &str| {
        let program = std::env::var("AMBERFS_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_amberfs").to_owned());
        walk_in.sh(&format!(
            "export AMBERFS_REPOSITORY=$PWD/repository AMBERFS_CONFIG=$PWD/config.toml AMBERFS_STATE_DIR=$PWD/state AMBERFS_CACHE_DIR=$PWD/cache
             (sleep 0.5; echo {word}) | script -qec '{program} rollback home%p0' /dev/null || true"
        ))
    };
    if walk_in.sh("command -v script || true").is_empty() {
        skip::untried("a terminal: there is no script(1)");
    } else {
        assert!(typed("hom").contains("that is not home: nothing was changed"));
        is_kept(&walk_in, "p1");
        assert!(typed("home").contains("rolled back"));
        is_kept(&walk_in, "p0");
    }
    walk_in.amberfs(&["source", "remove", "home"]);
    let elsewhere =
        walk_in.command(&["rollback", "--yes", "home%p1"]).env("AMBERFS_HOST", "elsewhere").output().unwrap();
    let said = String::from_utf8_lossy(&elsewhere.stderr).into_owned();
    assert!(elsewhere.status.code() == Some(11) && said.contains("which is not this machine"), "{said}");
    let mut stream =
        walk_in.command(&["capture", "--stdin", "text"]).stdin(std::process::Stdio::null()).spawn().unwrap();
    assert!(stream.wait().unwrap().success());
    refused(&["rollback", "--yes", "text"], 1, "is a stream");
}

/// What a point cannot know is never taken for removed, and what nothing has a copy of is never replaced.
#[test]
fn what_a_point_does_not_know_stays() {
    if !sys::is_root() {
        return skip::skipped("needs root, to mount");
    }
    let walk_in = WalkIn::new();
    let sh = |script: &str| walk_in.sh(script);
    sh("mkdir -p source/d source/cache source/below source/bound elsewhere
        echo 1 >source/d/file; echo secret >source/d/key.pem; echo old >source/cache/object; echo kept >elsewhere/file
        printf 'Signature: 8a477f597d28d172789f06886806bc55' >source/cache/CACHEDIR.TAG; echo in >source/bound/was-there");
    // Left out on the command line, and only there.
    let home = format!("home={}", walk_in.path("source").display());
    walk_in.amberfs(&["capture", "--exclude", "*.pem", "--exclude-caches", "--label", "p0", &home]);
    walk_in.amberfs(&["capture", "--label", "p1", &home]);
    sh("echo 2 >source/d/file; echo newer >source/d/key.pem; echo new >source/cache/object; rm -r source/bound/*
        mount -t tmpfs none source/below; echo mounted >source/below/file; mount --bind elsewhere source/bound");
    let done = walk_in.try_amberfs(&["rollback", "--yes", "home%p0", "--cross-filesystems"]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    // It had a file in it that lies under the mount now.
    assert!(said.contains("bound: another filesystem is mounted there"), "{said}");
    assert_eq!(done.status.code(), Some(3), "{said}");
    assert_eq!(
        sh("cat source/d/file source/d/key.pem source/cache/object source/below/file elsewhere/*"),
        "1\nnewer\nnew\nmounted\nkept\n"
    );
    // What is left out now stays as it is, though the point has it; and --force does not change that.
    sh("umount source/below source/bound");
    let done = rolled(&walk_in, &["home%p1", "--exclude", "*.pem", "--exclude", "/cache", "--force"]);
    assert_eq!(done["problems"], 0, "{done}");
    assert_eq!(
        sh("cat source/d/file source/d/key.pem source/cache/object source/bound/was-there"),
        "1\nnewer\nnew\nin\n"
    );
    rolled(&walk_in, &["home%p1"]);
    assert_eq!(sh("cat source/d/key.pem source/cache/object"), "secret\nold\n");

    // Patterns that are too long to be recorded leave everything in doubt.
    sh("for i in $(seq 200); do echo \"a-name-that-nobody-has-$i\"; done >patterns");
    walk_in.amberfs(&[
        "capture",
        "--exclude-file",
        walk_in.path("patterns").to_str().unwrap(),
        "--label",
        "long",
        &home,
    ]);
    sh("echo x >source/d/new");
    refused(&walk_in, &["rollback", "--yes", "home%long"], 3, "d/new: left as it is: the point does not know");
    sh("[ -e source/d/new ]");
    rolled(&walk_in, &["home%long", "--force"]);
    sh("[ ! -e source/d/new ]");

    // A source that has gone is made anew by a restore, one whose files have gone is likely not mounted.
    sh("mv source source.away");
    refused(&walk_in, &["rollback", "--yes", "home%p0"], 1, "amberfs restore SELECTOR --to");
    sh("mkdir source");
    refused(&walk_in, &["rollback", "--yes", "home%p0"], 11, "is empty, and its newest point is not");
    rolled(&walk_in, &["home%p0", "--force"]);
    assert_eq!(sh("cat source/d/file"), "1\n");
}

/// Only root reads everything; what an ordinary user's capture could not read is in no point, and stays.
#[test]
fn what_could_not_be_captured_is_neither_removed_nor_replaced() {
    if !sys::is_root() {
        return skip::skipped("needs root, to become another user");
    }
    let walk_in = WalkIn::new();
    let sh = |script: &str| walk_in.sh(script);
    let sources = format!("home={}", walk_in.path("source").display());
    sh("mkdir -p source/shut source/open; echo a >source/shut/in; echo b >source/open/mine; echo c >source/open/theirs
        chmod 700 source/shut; chmod 600 source/open/theirs; chown -R 1234:1234 source/open/mine source/open source
        chown 0:0 source/shut source/open/theirs; chmod 755 .; mkdir u; chown -R 1234:1234 u repository");
    let as_user = |arguments: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=1234", "--regid=1234", "--clear-groups", "--"]);
        let plain = walk_in.command(arguments);
        command.arg(plain.get_program()).args(plain.get_args());
        for (name, value) in plain.get_envs().filter_map(|(name, value)| Some((name, value?))) {
            command.env(name, value);
        }
        command.env("AMBERFS_STATE_DIR", walk_in.path("u/state")).env("AMBERFS_CACHE_DIR", walk_in.path("u/cache"));
        command.output().unwrap()
    };
    let partial = as_user(&["capture", "--label", "p0", &sources]);
    assert_eq!(partial.status.code(), Some(3), "{partial:?}");
    sh(
        "echo changed >source/open/mine; echo changed >source/open/theirs; chown 0:0 source/open/theirs; echo more >source/open/more",
    );
    let done = as_user(&["rollback", "--yes", "home%p0"]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(3), "{said}");
    assert_eq!(sh("cat source/open/* source/shut/in"), "b\nchanged\na\n", "{said}");
    // Root can remove it all, and does not, because the point does not know.
    sh("chown -R 0:0 repository; echo again >source/open/more");
    let done = walk_in.try_amberfs(&["rollback", "--yes", "home%p0"]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        done.status.code() == Some(3) && said.contains("open/theirs: left as it is: the point does not know"),
        "{said}"
    );
    assert_eq!(sh("cat source/open/* source/shut/in; ls source/open"), "b\nchanged\na\nmine\ntheirs\n", "{said}");
}

#[test]
fn an_interrupted_rollback_is_what_it_was_asked_for_and_is_not_taken_up_after_use() {
    let walk_in = WalkIn::new();
    let sh = |script: &str| walk_in.sh(script);
    sh("head -c 30M /dev/urandom >disk.img; mkdir -p log");
    let marks = walk_in.path("log/marks");
    let text = format!(
        "[[source]]\nname = \"vm\"\npath = {:?}\ndisk = true\nstart = [\"touch\", {marks:?}]\n",
        walk_in.path("disk.img")
    );
    std::fs::write(walk_in.path("config.toml"), text).unwrap();
    sh("chmod 600 config.toml; cp disk.img kept/0");
    walk_in.capture_of(&["vm"], &["--label", "p0"]);
    sh("head -c 20M /dev/urandom | dd of=disk.img conv=notrunc status=none; cp disk.img kept/1");
    walk_in.capture_of(&["vm"], &["--label", "p1"]);
    sh("head -c 9M /dev/urandom | dd of=disk.img conv=notrunc status=none; cp disk.img kept/2");
    let interrupted = (0..40).any(|_| {
        sh("rm -f log/marks; cp kept/2 disk.img");
        killed_at_writing(&walk_in, &["vm~1"])
    });
    if !interrupted {
        return skip::untried("killing the rollback of an image while it writes: it was never at that");
    }
    sh("[ ! -e log/marks ]");
    let safety = walk_in.points().len();
    // `vm~1` would be another point by now.
    let done = rolled(&walk_in, &["vm~1"]);
    assert_eq!((&done["resumed"], walk_in.points().len()), (&true.into(), safety), "{done}");
    let point = done["id"].as_u64().unwrap();
    sh("[ -e log/marks ]");
    walk_in.amberfs(&["restore", &format!("vm#{point}"), "--to", "out.raw"]);
    sh("cmp out.raw disk.img; rm out.raw");

    // Somebody has used the disk after the kill: what they wrote is captured before the rollback goes on.
    let interrupted = (0..40).any(|_| {
        sh("cp kept/2 disk.img");
        killed_at_writing(&walk_in, &["vm%p0"])
    });
    if !interrupted {
        return skip::untried("using a disk between a killed rollback and its continuation: it was always through");
    }
    sh("printf mine | dd of=disk.img bs=1 seek=29000000 conv=notrunc status=none; cp disk.img kept/used");
    let done = rolled(&walk_in, &["vm%p0"]);
    assert_eq!(done["resumed"], false, "{done}");
    assert_eq!(done["earlier"].as_array().unwrap().len(), 1, "{done}");
    sh("cmp disk.img kept/0");
    walk_in.amberfs(&["restore", done["safety"].as_str().unwrap(), "--to", "used.raw"]);
    sh("cmp used.raw kept/used");

    // Without a safety point there is none to take away at the end: the newest point is somebody's.
    let mut points = Vec::new();
    let interrupted = (0..40).any(|_| {
        sh("cp kept/0 disk.img");
        walk_in.amberfs(&["capture", "vm"]);
        points = walk_in.points();
        killed_at_writing(&walk_in, &["vm%p1", "--no-safety-point"])
    });
    if !interrupted {
        return skip::untried("killing a rollback without a safety point while it writes: it was never at that");
    }
    sh("mkdir note; cp state/rollbacks/*.json note/");
    rolled(&walk_in, &["vm%p1", "--no-safety-point"]);
    sh("cmp disk.img kept/1");
    assert_eq!(walk_in.points(), points);
    // As if it had been killed between the head's entry and taking the note away.
    sh("cp note/*.json state/rollbacks/");
    let done = rolled(&walk_in, &["vm%p1", "--no-safety-point"]);
    assert_eq!((&done["resumed"], walk_in.points()), (&false.into(), points), "{done}");
}

#[test]
fn a_damaged_point_and_a_disk_in_use_are_met_before_there_is_any_harm() {
    let walk_in = WalkIn::new();
    let sh = |script: &str| walk_in.sh(script);
    sh("head -c 5M /dev/urandom >disk.img");
    walk_in.capture_of(&["--disk", "vm=disk.img"], &["--label", "p0"]);
    sh("head -c 5M /dev/urandom >disk.img; cp disk.img kept/1");
    walk_in.capture_of(&["--disk", "vm=disk.img"], &["--label", "p1"]);
    // A program that locks as QEMU does.
    let lock = walk_in.path("lock.py");
    std::fs::write(&lock, "import fcntl,struct,sys,time\nf=open('disk.img','r+b')\nfcntl.fcntl(f,37,struct.pack('hhqqi4x',0,0,100,1,0))\nprint('locked',flush=True)\ntime.sleep(600)\n").unwrap();
    let mut holder = std::process::Command::new("python3")
        .arg(&lock)
        .current_dir(walk_in.path("."))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 6];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut said).unwrap();
    refused(&walk_in, &["rollback", "--yes", "vm%p0"], 11, "a program has locked it");
    holder.kill().unwrap();
    holder.wait().unwrap();
    if can_mount_images() {
        let device = sh("losetup --find --show disk.img").trim().to_owned();
        let refusal = walk_in.try_amberfs(&["rollback", "--yes", "vm%p0"]);
        sh(&format!("losetup --detach {device}"));
        assert!(String::from_utf8_lossy(&refusal.stderr).contains(&format!("{device} shows it")), "{refusal:?}");
    }
    // The largest pack of the first point loses a bit.
    sh("pack=$(find repository -type f -size +1M -printf '%T@ %p\\n' | sort -n | head -1 | cut -d' ' -f2-)
        chmod u+w $pack; printf '\\x55' | dd of=$pack bs=1 seek=1000000 conv=notrunc status=none");
    for more in [&[][..], &["--no-safety-point"]] {
        let points = walk_in.points().len();
        refused(&walk_in, &[&["rollback", "--yes", "vm%p0"], more].concat(), 13, "");
        sh("cmp disk.img kept/1");
        assert!(!under_way(&walk_in));
        assert_eq!(walk_in.points().len(), points + usize::from(more.is_empty()));
    }
}
