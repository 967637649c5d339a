//! The walk over real directories, changed under its feet between its steps.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::capture::directory::Directory;
use crate::capture::exclude::CACHE_SIGNATURE;

fn walk_with(root: &Path, cross: bool, refused: Vec<crate::capture::stat::Identity>, rules: Rules) -> Walk {
    let root = Directory::root(root).unwrap();
    let boundary = Boundary::new(&root, cross, refused).unwrap();
    Walk::new(root, boundary, rules, 0)
}

fn plain() -> Rules {
    Rules { excludes: Excludes::none(), skip_caches: false }
}

fn walk(root: &Path) -> Walk {
    walk_with(root, false, Vec::new(), plain())
}

/// One line per step that says something of the tree.
fn told(walk: &mut Walk) -> Vec<String> {
    let mut lines = Vec::new();
    let mut path: Vec<Vec<u8>> = Vec::new();
    while let Some(step) = walk.step().unwrap() {
        let shown = |path: &[Vec<u8>], name: &[u8]| {
            let mut whole: Vec<&[u8]> = path.iter().skip(1).map(Vec::as_slice).collect();
            whole.push(name);
            String::from_utf8_lossy(&whole.join(&b'/')).into_owned()
        };
        match step {
            Step::Enter(entered) => {
                let barred = if entered.open.is_err() { " (barred)" } else { "" };
                if !path.is_empty() {
                    lines.push(format!("{}/{barred}", shown(&path, &entered.name)));
                }
                path.push(entered.name);
            }
            Step::Name(name, stat) => lines.push(format!("{} {:?}", shown(&path, &name), stat.kind)),
            Step::Announce(_) | Step::Listed => {}
            Step::Failed(_, problem) | Step::Lost(_, problem) => {
                lines.push(format!("{} !{:?}", shown_path(&problem.path), problem.kind));
            }
            Step::Leave => drop(path.pop()),
            Step::Halted(error) => panic!("told: {error}"),
        }
    }
    assert!(path.is_empty(), "every directory is left");
    lines
}

fn shown_path(path: &[u8]) -> String {
    crate::capture::directory::shown(path)
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(status.success(), "{program} {arguments:?}");
}

/// A mount that ends with the test.
struct Mounted(PathBuf);

impl Mounted {
    fn new(arguments: &[&str], at: &Path) -> Mounted {
        let at = at.to_owned();
        let mut all = arguments.to_vec();
        all.push(at.to_str().unwrap());
        run("mount", &all);
        Mounted(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[self.0.to_str().unwrap()]);
    }
}

/// Whether the test may mount; says loudly when it may not.
#[track_caller]
fn may_mount() -> bool {
    let root = crate::base::sys::effective_uid() == 0;
    if !root {
        crate::base::skip::skipped("only root may mount: run the tests as root");
    }
    root
}

#[test]
fn names_come_in_byte_order_and_directories_after_them() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("b/inner")).unwrap();
    fs::create_dir(at("d")).unwrap();
    for file in ["c", "a", "b/x", "d/y", "b/inner/z", "B"] {
        fs::write(at(file), file).unwrap();
    }
    symlink("/etc", at("s")).unwrap();
    let raw = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff"));
    fs::write(raw, "").unwrap();
    assert_eq!(
        told(&mut walk(dir.path())),
        [
            "B File",
            "a File",
            "c File",
            "s Symlink",
            "\u{fffd} File",
            "b/",
            "b/x File",
            "b/inner/",
            "b/inner/z File",
            "d/",
            "d/y File"
        ]
    );
}

#[test]
fn scouts_change_nothing_of_what_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // One directory of more names than are looked at in one go or held ahead, and a tree wider and deeper than the windows.
    fs::create_dir_all(at("large/inner")).unwrap();
    for number in 0..NAMES_AHEAD_MAX + 3 * RUN {
        fs::File::create(at("large").join(number.to_string())).unwrap();
    }
    for number in 0..3 * SUBDIRECTORIES_AHEAD {
        let deep = (0..number % 9).map(|_| "d").collect::<Vec<_>>().join("/");
        fs::create_dir_all(at("wide").join(number.to_string()).join(deep).join("end")).unwrap();
        fs::write(at("wide").join(number.to_string()).join("x.o"), "").unwrap();
    }
    let deep = (0..OPEN_MAX + 9).map(|level| if level % 2 == 0 { "a" } else { "b" }).collect::<Vec<_>>();
    for length in 1..=deep.len() {
        for side in ["c", "d"] {
            fs::create_dir_all(at("z").join(deep[..length].join("/")).join(side)).unwrap();
        }
    }
    let rules = || Rules { excludes: Excludes::new(&["*.o".into()], &[]).unwrap(), skip_caches: true };
    let alone = told(&mut walk_with(dir.path(), false, Vec::new(), rules()));
    assert_eq!(
        alone.len(),
        1 + 1 + NAMES_AHEAD_MAX + 3 * RUN + 1 + {
            let wide: usize = (0..3 * SUBDIRECTORIES_AHEAD).map(|number| 2 + number % 9).sum();
            wide + 1 + 3 * deep.len()
        }
    );
    for scouts in [1, 2, 7] {
        let root = Directory::root(dir.path()).unwrap();
        let boundary = Boundary::new(&root, false, Vec::new()).unwrap();
        let with = told(&mut Walk::new(root, boundary, rules(), scouts));
        assert!(with == alone, "{scouts} scouts");
    }
}

#[test]
fn every_kind_is_told_and_none_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    run("mkfifo", &[&at("fifo")]);
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let mut expected = vec!["fifo Fifo".to_owned(), "socket Socket".to_owned()];
    let made = Command::new("mknod").args([&at("null"), "c", "1", "3"]).status().unwrap();
    if made.success() {
        run("mknod", &[&at("zblock"), "b", "7", "250"]);
        expected.insert(1, "null CharDevice".to_owned());
        expected.push("zblock BlockDevice".to_owned());
        assert!(fs::symlink_metadata(at("null")).unwrap().file_type().is_char_device());
    } else {
        crate::base::skip::skipped("only root may make device nodes: run the tests as root");
    }
    assert_eq!(told(&mut walk(dir.path())), expected);
}

#[test]
fn paths_far_beyond_path_max_are_walked_with_few_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let name = "n".repeat(200);
    // Made relative to directories, as no path is short enough: 60 × 201 bytes.
    let mut at = Directory::root(dir.path()).unwrap();
    let mut made = Vec::new();
    for level in 0..60 {
        use std::os::fd::AsRawFd;
        let proc = PathBuf::from(format!("/proc/self/fd/{}", at.fd().as_raw_fd()));
        fs::create_dir(proc.join(&name)).unwrap();
        fs::create_dir(proc.join("side")).unwrap();
        fs::write(proc.join(format!("file{level}")), "x").unwrap();
        let next = at.open(name.as_bytes()).unwrap();
        made.push(at);
        at = next;
    }
    let lines = told(&mut walk(dir.path()));
    assert_eq!(lines.len(), 3 * 60);
    assert!(!lines.iter().any(|line| line.contains('!')), "{lines:?}");
    assert!(lines.iter().any(|line| line.len() > 59 * 200 && line.ends_with("file59 File")));
    // The side branches come when their parents are found again on the way up.
    assert_eq!(lines.iter().filter(|line| line.ends_with("side/")).count(), 60);
    assert!(lines.last().unwrap() == "side/");
    // tempfile removes by path, which is too long here.
    run("rm", &["-rf", dir.path().to_str().unwrap()]);
}

#[test]
fn a_directory_moved_while_its_depths_are_walked_leads_nowhere_else() {
    for (moved, expected) in [
        // The directory below the closed one: the closed one is still where it was.
        ("d/d/d", &["d/d/z", "other", "other/d", "other/z"][..]),
        // The closed one itself: what is left to do in it cannot be done, what is above can.
        ("d/d", &["d/d/z !Changed", "other", "other/d", "other/z"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let deep = (0..OPEN_MAX + 4).map(|_| "d").collect::<Vec<_>>().join("/");
        fs::create_dir_all(at(&deep)).unwrap();
        fs::create_dir_all(at("d/d/z")).unwrap();
        fs::create_dir_all(at("other/z")).unwrap();
        let mut walk = walk(dir.path());
        let mut depth = 0;
        while depth < OPEN_MAX + 5 {
            depth += usize::from(matches!(walk.step().unwrap(), Some(Step::Enter(_))));
        }
        fs::rename(at(moved), at("other/d")).unwrap();
        if moved == "d/d" {
            // Bait: a directory of the old name with one of the same name in it.
            fs::create_dir_all(at("d/d/z")).unwrap();
            // The way up through `..` leads to where it was moved, which is not where it was.
            fs::rename(at("other/d/d"), at("other/z/d")).unwrap();
        }
        let mut seen = Vec::new();
        while let Some(step) = walk.step().unwrap() {
            match step {
                Step::Lost(_, problem) => seen.push(format!("{} !{:?}", shown_path(&problem.path), problem.kind)),
                Step::Enter(entered) => seen.extend(entered.open.map(|open| shown_path(open.path()))),
                _ => {}
            }
        }
        seen.retain(|path| !path.starts_with("other/d/") && !path.starts_with("other/z/"));
        assert_eq!(seen, expected, "{moved}");
    }
}

#[test]
fn a_symlink_swapped_in_for_a_directory_is_not_followed() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("secret"), "").unwrap();
    for name in ["a", "b", "c", "e"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let mut walk = walk(dir.path());
    while !matches!(walk.step().unwrap(), Some(Step::Listed)) {}
    fs::remove_dir(dir.path().join("a")).unwrap();
    symlink(outside.path(), dir.path().join("a")).unwrap();
    fs::remove_dir(dir.path().join("b")).unwrap();
    run("mkfifo", &[dir.path().join("c2").to_str().unwrap()]);
    fs::remove_dir(dir.path().join("c")).unwrap();
    fs::rename(dir.path().join("c2"), dir.path().join("c")).unwrap();
    let mut steps = Vec::new();
    while let Some(step) = walk.step().unwrap() {
        steps.push(match step {
            Step::Lost(_, problem) => format!("{} {:?}", shown_path(&problem.path), problem.kind),
            Step::Enter(entered) => String::from_utf8(entered.name).unwrap(),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(steps, ["a Changed", "b Vanished", "c Changed", "e", "Listed", "Leave", "Leave"]);
}

#[test]
fn what_is_excluded_is_not_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for path in ["src", "target/debug", "src/target"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    for file in ["src/main.rs", "src/main.o", "target/debug/x", "src/target/y", "keep.o"] {
        fs::write(at(file), "").unwrap();
    }
    let excludes = Excludes::new(&["*.o".into(), "!keep.o".into(), "/target/".into()], &[]).unwrap();
    let rules = Rules { excludes, skip_caches: false };
    let lines = told(&mut walk_with(dir.path(), false, Vec::new(), rules));
    assert_eq!(lines, ["keep.o File", "src/", "src/main.rs File", "src/target/", "src/target/y File"]);
}

#[test]
fn of_a_tagged_cache_only_the_tag_is_kept_if_asked() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (cache, text) in [("real", CACHE_SIGNATURE), ("fake", b"Signature: none")] {
        fs::create_dir(at(cache)).unwrap();
        fs::write(at(cache).join("CACHEDIR.TAG"), text).unwrap();
        fs::write(at(cache).join("data"), "").unwrap();
    }
    let all = told(&mut walk(dir.path()));
    assert_eq!(
        all,
        ["fake/", "fake/CACHEDIR.TAG File", "fake/data File", "real/", "real/CACHEDIR.TAG File", "real/data File"]
    );
    let rules = Rules { excludes: Excludes::none(), skip_caches: true };
    let kept = told(&mut walk_with(dir.path(), false, Vec::new(), rules));
    assert_eq!(kept, ["fake/", "fake/CACHEDIR.TAG File", "fake/data File", "real/", "real/CACHEDIR.TAG File"]);
}

#[test]
fn other_filesystems_are_empty_directories_unless_crossed() {
    if !may_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("m n/under")).unwrap();
    fs::create_dir(at("z")).unwrap();
    let _mounted = Mounted::new(&["-t", "tmpfs", "tmpfs"], &at("m n"));
    fs::write(at("m n/inside"), "").unwrap();
    assert_eq!(told(&mut walk(dir.path())), ["m n/ (barred)", "z/"]);
    let crossed = told(&mut walk_with(dir.path(), true, Vec::new(), plain()));
    assert_eq!(crossed, ["m n/", "m n/inside File", "z/"]);
}

#[test]
fn a_mount_of_amberfs_is_never_entered() {
    if !may_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["mnt", "bound", "plain"] {
        fs::create_dir(at(name)).unwrap();
    }
    // A FUSE mount of that name without a server behind it: asking it anything would wait for ever.
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
    let options = {
        use std::os::fd::AsRawFd;
        format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd())
    };
    let _mounted = {
        let target = std::ffi::CString::new(at("mnt").as_os_str().as_bytes()).unwrap();
        mount_fuse(&target, &options);
        Mounted(at("mnt"))
    };
    let _bound = Mounted::new(&["--bind", at("mnt").to_str().unwrap()], &at("bound"));
    for cross in [false, true] {
        let lines = told(&mut walk_with(dir.path(), cross, Vec::new(), plain()));
        assert_eq!(lines, ["bound/ (barred)", "mnt/ (barred)", "plain/"], "cross: {cross}");
    }
    drop(device);
}

/// `mount(8)` cannot hand a descriptor on, so the system call is made here.
fn mount_fuse(target: &std::ffi::CStr, options: &str) {
    crate::capture::sys::tests_only::mount(c"amberfs", target, c"fuse.amberfs", options).unwrap();
}

#[test]
fn the_repository_is_never_entered_whatever_way_leads_there() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("repo/log")).unwrap();
    fs::create_dir_all(at("bound")).unwrap();
    fs::write(at("repo/amberfs"), "").unwrap();
    let refused = || vec![Directory::root(&at("repo")).unwrap().stat().identity];
    let mut expected = vec!["bound/".to_owned(), "repo/ (barred)".to_owned()];
    assert_eq!(told(&mut walk_with(dir.path(), false, refused(), plain())), expected);
    for inside in ["repo", "repo/log"] {
        let root = Directory::root(&at(inside)).unwrap();
        let error = Boundary::new(&root, false, refused()).unwrap_err();
        assert!(matches!(error, CaptureError::InsideRepository { .. }), "{error}");
    }
    if may_mount() {
        let _bound = Mounted::new(&["--bind", at("repo").to_str().unwrap()], &at("bound"));
        expected[0] = "bound/ (barred)".to_owned();
        for cross in [false, true] {
            assert_eq!(told(&mut walk_with(dir.path(), cross, refused(), plain())), expected);
        }
    }
}

#[test]
fn a_missing_root_is_an_error_and_an_unreadable_directory_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Directory::root(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    fs::write(dir.path().join("file"), "").unwrap();
    assert_eq!(Directory::root(&dir.path().join("file")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    let denied = problem(b"x".to_vec(), &io::Error::from_raw_os_error(libc::EACCES));
    assert_eq!(denied.kind, ProblemKind::Unreadable);
    assert!(denied.detail.contains("ermission denied"), "{}", denied.detail);
}
