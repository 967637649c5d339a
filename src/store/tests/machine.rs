//! What only a real machine shows: permissions as another user, and a filesystem that is full.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::store::DiskCache;

/// Set for the child that runs a test again as an ordinary user.
const CHILD: &str = "AMBERFS_TEST_AS_NOBODY";
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn permissions_are_named_as_such() {
    if is_root() {
        // Nothing is denied to root.
        run_again_as_nobody("store::tests::machine::permissions_are_named_as_such");
        return;
    }
    let (_guard, store, root) = local();
    store.create(&name("log/1"), vec![1]).unwrap();
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let denied = |error: StoreError| {
        assert_eq!(error.class(), Class::Denied, "{error}");
        assert!(error.to_string().contains("log"), "{error}");
    };

    chmod(&root.join("log/1"), 0);
    denied(store.get(&name("log/1"), 9).unwrap_err());
    denied(store.get_range(&name("log/1"), 0..1).unwrap_err());
    denied(store.tail(&name("log/1"), 1).unwrap_err());
    denied(store.wrapped(|objects| objects).get(&name("log/1"), 9).unwrap_err());

    chmod(&root.join("log"), 0o500);
    denied(store.create(&name("log/2"), vec![1]).unwrap_err());
    denied(store.delete(&name("log/1")).unwrap_err());
    let mut upload = store.upload(&name("log/pack")).unwrap();
    denied(upload.write(vec![0; limits::UPLOAD_PART_BYTES + 1]).unwrap_err());
    drop(upload);

    chmod(&root.join("log"), 0);
    denied(store.get(&name("log/1"), 9).unwrap_err());
    denied(store.size(&name("log/1")).unwrap_err());
    denied(store.list("log/", None, None).unwrap_err());
    denied(store.list("", None, None).unwrap_err());
    chmod(&root.join("log"), 0o700);

    let error = Store::local(Path::new("/root/anything")).unwrap_err();
    assert_eq!(error.class(), Class::Denied, "{error}");
    let error = Store::create_local(Path::new("/amberfs-test")).unwrap_err();
    assert_eq!(error.class(), Class::Denied, "{error}");
}

fn run_again_as_nobody(test: &str) {
    assert!(std::env::var_os(CHILD).is_none(), "the child runs as an ordinary user");
    // The test binary may lie where an ordinary user cannot reach it.
    let guard = tempfile::tempdir().unwrap();
    fs::set_permissions(guard.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let binary = guard.path().join("test");
    // Not by fs::copy: another test that starts a process meanwhile would hold the copy open for writing.
    let copied = Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&binary).status().unwrap();
    assert!(copied.success());
    let output = Command::new(&binary)
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .env("TMPDIR", guard.path())
        .current_dir(guard.path())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "as an ordinary user: {text}");
}

/// A small filesystem, unmounted when it is dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(kib: u32) -> Small {
        let guard = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "amberfs-test"])
            .arg(guard.path())
            .output()
            .unwrap();
        assert!(mounted.status.success(), "mount: {}", String::from_utf8_lossy(&mounted.stderr));
        Small(guard)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a store that a failed test leaves open must not keep the mount.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "umount {}", self.0.path().display());
    }
}

#[test]
fn a_full_disk_is_a_clean_error() {
    if !is_root() {
        crate::base::skip::skipped("a full disk needs a small filesystem, and mounting one needs root");
        return;
    }
    let small = Small::mount(20 << 10);
    let root = small.0.path().join("store");
    let store = Store::create_local(&root).unwrap();
    store.create(&name("log/1"), vec![1; 1000]).unwrap();
    let full = |error: StoreError| {
        assert_eq!(error.class(), Class::Exhausted, "{error}");
        assert!(error.to_string().contains("free some space"), "{error}");
    };

    full(store.create(&name("log/2"), vec![2; 21 << 20]).unwrap_err());
    let mut upload = store.upload(&name("packs/1")).unwrap();
    let wrote = (0..9).try_for_each(|_| upload.write(vec![3; limits::UPLOAD_PART_BYTES]));
    full(wrote.and_then(|()| upload.finish()).unwrap_err());

    // Nothing of it is left: neither visible nor taking space.
    assert_eq!(names(&store.list("", None, None).unwrap()), ["log/1"]);
    assert_eq!(fs::read_dir(root.join("log")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(root.join("packs")).unwrap().count(), 0);
    store.create(&name("log/2"), vec![2; 10 << 20]).unwrap();
    assert_eq!(store.get(&name("log/1"), 1000).unwrap(), vec![1; 1000]);
}

#[test]
fn a_full_disk_costs_what_is_kept_on_it_and_nothing_else() {
    if !is_root() {
        crate::base::skip::skipped("a full disk needs a small filesystem, and mounting one needs root");
        return;
    }
    let small = Small::mount(8 << 10);
    let cache = DiskCache::new(&small.0.path().join("cache"), 0, crate::format::RepoId([1; 16]), Env::system());
    let bytes = vec![7; 1 << 20];
    let blocks = (bytes.len() / limits::BLOCK_BYTES) as u64;
    for n in 0..20 {
        cache.write(&name(&format!("packs/{n}")), 0, bytes.clone(), 1 << 30);
        for earlier in 0..=n {
            let found = cache.read(&name(&format!("packs/{earlier}")), 0..blocks);
            assert!(found.iter().flatten().all(|kept| kept.bytes == bytes[..limits::BLOCK_BYTES]), "{n} {earlier}");
        }
    }
    // Half of it was given back, and nothing more is tried for a while.
    let began = std::time::Instant::now();
    loop {
        let used = cache.measured().bytes.unwrap();
        assert!(used >= 2 << 20, "{used} bytes");
        if used <= 6 << 20 {
            break;
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(30), "{used} bytes");
    }
    fs::write(small.0.path().join("others"), vec![1; 2 << 20]).unwrap();
}

#[test]
fn an_unmounted_disk_is_not_an_empty_store() {
    if !is_root() {
        crate::base::skip::skipped("unmounting a disk needs root");
        return;
    }
    let small = Small::mount(64);
    let store = Store::create_local(small.0.path()).unwrap();
    store.create(&name("log/1"), vec![1]).unwrap();
    let unmounted = Command::new("umount").arg("--lazy").arg(small.0.path()).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    for error in [
        store.get(&name("log/2"), 9).unwrap_err(),
        store.list("other/", None, None).unwrap_err(),
        store.create(&name("log/2"), vec![2]).unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::RootGone { .. }), "{error}");
    }
    assert_eq!(fs::read_dir(small.0.path()).unwrap().count(), 0);
    let Small(guard) = &small;
    let again = Command::new("mount").args(["-t", "tmpfs", "amberfs-test"]).arg(guard.path()).status();
    assert!(again.is_ok_and(|status| status.success()), "for the guard to unmount");
}
