//! `amberfs restore`: what was captured comes back as it was, also after kills and to other users.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::bench::{Bench, Ran};
use crate::skip::skipped;
use crate::world::{MANY_LINKS, lose_inode_of};

/// All that `stat` says of what is below `root` and that a restore gives back, by path; attributes and ACLs beside.
fn manifest(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut queue = vec![root.to_owned()];
    while let Some(path) = queue.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().to_owned();
        if stat.is_dir() {
            queue.extend(fs::read_dir(&path).unwrap().map(|item| item.unwrap().path()));
        }
        let content = if stat.is_file() {
            blake3::hash(&fs::read(&path).unwrap()).to_string()
        } else if stat.is_symlink() {
            format!("{:?}", fs::read_link(&path).unwrap())
        } else {
            String::new()
        };
        // The first name of an inode stands for it: hard links form the same groups then.
        let group = if stat.is_dir() { &name } else { inodes.entry(stat.ino()).or_insert_with(|| name.clone()) };
        let (links, size) = if stat.is_dir() { (0, 0) } else { (stat.nlink(), stat.len()) };
        // How many blocks exactly also depends on how the disk is fragmented.
        let has_holes = stat.is_file() && stat.blocks() * 512 < size / 2;
        let line = format!(
            "{:o} {}:{} {links} {size} {has_holes} {:x} {}.{} {group:?} {content}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.rdev(),
            stat.mtime(),
            stat.mtime_nsec(),
        );
        all.insert(name, line);
    }
    let attributes = Command::new("getfattr").args(["-hRdm-", "-e", "hex", "."]).current_dir(root).output().unwrap();
    assert!(attributes.status.success());
    let mut attributes: Vec<String> =
        String::from_utf8(attributes.stdout).unwrap().split("\n\n").map(str::to_owned).collect();
    attributes.sort();
    all.insert(PathBuf::from("\0attributes"), attributes.join("\n\n"));
    all
}

#[track_caller]
fn assert_same(found: &BTreeMap<PathBuf, String>, wanted: &BTreeMap<PathBuf, String>) {
    for (path, line) in wanted {
        assert_eq!(found.get(path), Some(line), "{path:?}");
    }
    let more: Vec<_> = found.keys().filter(|path| !wanted.contains_key(*path)).collect();
    assert!(more.is_empty(), "{more:?}");
}

fn shell(directory: &Path, script: &str) {
    let status = Command::new("bash").args(["-euc", script]).current_dir(directory).status().unwrap();
    assert!(status.success(), "{script}");
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A source with something of everything that the caller can make.
fn source(bench: &Bench) -> PathBuf {
    let root = bench.path("source");
    fs::create_dir(&root).unwrap();
    shell(
        &root,
        r#"
        mkdir -p deep/er/est empty closed; touch -d '1999-12-31 23:59:59.123456789' empty
        head -c 3000000 /dev/urandom >large; head -c 200000 /dev/zero >zeros; : >nothing
        for n in $(seq 100); do echo "small file $n" >deep/er/$n; head -c $((n * 37)) /dev/urandom >deep/er/est/r$n; done
        truncate -s 50M hole; truncate -s 20M sparse
        printf data | dd of=sparse bs=1 seek=4096000 conv=notrunc status=none
        printf end | dd of=sparse bs=1 seek=20971500 conv=notrunc status=none
        ln large deep/again; ln large deep/er/third; ln -s ../nothing deep/link; ln -s /no/where deep/dangling
        ln -P deep/link deep/same-link
        mkfifo -m 640 pipe; chmod 4755 deep/er/7; chmod 2750 deep/er/est; chmod 1777 empty
        setfattr -n user.colour -v blue deep; setfattr -n user.empty deep/er/8; setfacl -m u:4242:rw- deep/er/9
        setfacl -d -m u:4243:r-x closed; echo x >closed/in
        touch -d '2001-02-03 04:05:06.7' closed/in deep/er/10; touch -hd '2002-01-01' deep/link
        "#,
    );
    fs::write(root.join(std::ffi::OsString::from_vec(b"not \xff utf-8\n".to_vec())), "name").unwrap();
    if is_root() {
        shell(
            &root,
            r#"
            mknod null c 1 3; mknod disk b 259 70000; chmod 600 disk
            chown 4242:4343 deep/er/11 pipe; chown -h 4242:4343 deep/dangling; chown 4242:4343 deep/er/7
            chmod 6755 deep/er/7; setcap cap_net_raw+ep deep/er/12; setfattr -h -n trusted.mark -v x deep/dangling
            "#,
        );
    }
    shell(&root, "chmod 555 closed; touch -d '2003-03-03 03:03:03.3' deep/er deep .");
    root
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let bench = Bench::new();
    let root = source(&bench);
    bench.good(["init", "--unencrypted"]);
    bench.good(["capture", "home=source"]);
    let wanted = manifest(&root);
    let told = bench.good(["restore", "home", "--to", "new", "--verify"]);
    assert!(told.starts_with("restored home#"), "{told}");
    assert_same(&manifest(&bench.path("new")), &wanted);
    if !is_root() {
        skipped("devices, owners and capabilities need root");
    }
    // What is there already is refused, counted, replaced; what else is there stays.
    bench.run(["restore", "home", "--to", "new"]).fails(11, "is not empty");
    fs::write(bench.path("new/large"), "changed").unwrap();
    fs::write(bench.path("new/mine"), "mine").unwrap();
    let told = bench.good(["restore", "home", "--to", "other", "-n"]);
    assert!(told.contains("would restore home#") && !bench.path("other").exists(), "{told}");
    bench.good(["restore", "home", "--to", "new", "--force"]);
    assert_eq!(fs::read(bench.path("new/mine")).unwrap(), b"mine");
    fs::remove_file(bench.path("new/mine")).unwrap();
    shell(&bench.path("new"), "touch -d '2003-03-03 03:03:03.3' .");
    assert_same(&manifest(&bench.path("new")), &wanted);
    // A directory of it, and a file of it.
    bench.good(["restore", "home:deep/er", "--to", "part"]);
    assert!(bench.path("part/est/r9").exists() && !bench.path("part/deep").exists());
    fs::create_dir(bench.path("files")).unwrap();
    bench.good(["restore", "home:deep/er/9", "--to", "files"]);
    let told = bench.good(["restore", "home:large", "--to", "files", "--json"]);
    let line = Ran { code: 0, out: told, err: String::new() }.json().pop().unwrap();
    assert_eq!((&line["message_type"], &line["files"]), (&"restored".into(), &1.into()), "{line}");
    assert_eq!(fs::read(bench.path("files/large")).unwrap(), fs::read(root.join("large")).unwrap());
    bench.run(["restore", "home:large", "--to", "files"]).fails(11, "exists already");
    bench.run(["restore", "home:no/such", "--to", "files"]).fails(1, "no such file");
    bench.run(["restore", "home", "--to", "no/such"]).fails(1, "no/such");
    bench.run(["restore", "home", "--to", "repo"]).fails(2, "in the repository");
}

#[test]
fn a_stream_comes_back_as_its_file() {
    let bench = Bench::new();
    bench.good(["init", "--unencrypted"]);
    let mut capture = bench.command(["capture", "--stdin", "dump=dump.sql"]);
    let mut child = capture.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"insert everything;").unwrap();
    assert!(child.wait().unwrap().success());
    bench.good(["restore", "dump", "--to", "."]);
    assert_eq!(fs::read(bench.path("dump.sql")).unwrap(), b"insert everything;");
}

/// Names below `path`, as many as are there now.
fn count(path: &Path) -> usize {
    let Ok(items) = fs::read_dir(path) else { return 0 };
    items.flatten().map(|item| 1 + if item.path().is_symlink() { 0 } else { count(&item.path()) }).sum()
}

/// What stands in `target` while a restore into it is unfinished, and whether that can still be continued.
fn claim(target: &Path) -> Option<bool> {
    let mut items = fs::read_dir(target).ok()?.map(|item| item.unwrap().path());
    let claim = items.find(|path| path.file_name().unwrap().to_string_lossy().starts_with(".amberfs-restore-"))?;
    Some(claim.join("state").exists())
}

#[test]
fn a_killed_restore_goes_on_with_what_is_missing() {
    let wanted_kills: usize = std::env::var("AMBERFS_KILLS").map_or(20, |text| text.parse().unwrap());
    let bench = Bench::new();
    let root = source(&bench);
    bench.good(["init", "--unencrypted"]);
    bench.good(["capture", "home=source"]);
    let wanted = manifest(&root);
    let (mut kills, mut resumed) = (0, 0);
    for round in 0.. {
        let target = bench.path(format!("new{round}"));
        // Each round kills at other stages: after so many names, of which the first are few.
        for step in 0..4 {
            let names = wanted.len() * ((round * 7 + step * 5) % 23) / 20;
            let mut command = bench.command(["restore", "home", "--to"]);
            let mut child = command.arg(&target).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            while child.try_wait().unwrap().is_none() && count(&target) < names {
                std::thread::yield_now();
            }
            child.kill().unwrap();
            kills += usize::from(!child.wait().unwrap().success());
        }
        let left = claim(&target);
        let again = bench.run([OsStr::new("restore"), "home".as_ref(), "--to".as_ref(), target.as_os_str()]);
        let (mut found, mut wanted) = (manifest(&target), wanted.clone());
        if left == Some(true) || again.code == 0 {
            resumed += usize::from(left.is_some());
            assert_eq!((again.code, again.err.as_str()), (0, ""), "{again:?}");
        } else {
            // It was through, but perhaps for the times of the target itself, which are set last of all.
            again.fails(11, "is not empty");
            found.remove(Path::new(""));
            wanted.remove(Path::new(""));
        }
        assert_same(&found, &wanted);
        assert_eq!(claim(&target), None);
        fs::remove_dir_all(&target).unwrap();
        if kills >= wanted_kills {
            break;
        }
    }
    assert!(resumed > 0, "no restore was ever continued");
}

#[test]
fn another_user_gets_what_a_user_may_have() {
    let bench = Bench::new();
    let root = source(&bench);
    symlink("/etc/passwd", root.join("link-out")).unwrap();
    bench.good(["init", "--unencrypted"]);
    bench.good(["capture", "home=source"]);
    if !is_root() {
        return skipped("only root can capture for another user");
    }
    let ran = Ran::of(bench.unprivileged(["restore", "home", "--to", "new", "--json"]).output().unwrap());
    // Device nodes were asked for, and are the only thing that is missing.
    assert_eq!(ran.code, 3, "{ran:?}");
    let mut lines = ran.json();
    let sum = lines.pop().unwrap();
    let mut problems: Vec<String> = lines
        .iter()
        .filter(|line| line["message_type"] == "problem")
        .map(|line| format!("{} {}", line["path"].as_str().unwrap(), line["kind"].as_str().unwrap()))
        .collect();
    problems.sort();
    assert_eq!(problems, ["disk denied", "null denied"]);
    assert!(sum["left_owners"].as_u64().unwrap() > 100, "{sum}");
    assert_eq!(sum["left_attributes"].as_u64(), Some(1), "{sum}");
    assert_eq!(sum["left_set_ids"].as_u64(), Some(3), "{sum}");
    let stat = |name: &str| fs::symlink_metadata(bench.path("new").join(name)).unwrap();
    assert_eq!(stat("deep/er/7").permissions().mode() & 0o7777, 0o755);
    assert_eq!(stat("closed").permissions().mode() & 0o7777, 0o555);
    assert_eq!(stat("closed/in").mtime(), fs::metadata(root.join("closed/in")).unwrap().mtime());
    assert_eq!(stat("deep").mtime(), fs::metadata(root.join("deep")).unwrap().mtime());
    assert!(stat("pipe").file_type().is_fifo());
    assert_ne!(stat("large").uid(), 0);
    let told = Ran::of(bench.unprivileged(["restore", "home", "--to", "less", "--no-devices"]).output().unwrap());
    assert_eq!((told.code, told.err.as_str()), (0, ""), "{told:?}");
    assert!(told.out.contains("only root can set others") && told.out.contains("lost their set-id bits"), "{told:?}");
    let owner = Ran::of(bench.unprivileged(["restore", "home:deep/er/9", "--to", ".", "--owner"]).output().unwrap());
    assert_eq!(owner.code, 3, "{owner:?}");
    assert!(owner.err.contains("cannot set the owner"), "{owner:?}");
}

#[test]
fn a_directory_that_nobody_may_write_to_is_restored_by_an_ordinary_user() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("source/module")).unwrap();
    fs::write(bench.path("source/module/file"), "text").unwrap();
    for mode in [0o555, 0o500] {
        let wanted = bench.path("source/module");
        fs::set_permissions(&wanted, fs::Permissions::from_mode(mode)).unwrap();
        if mode == 0o555 {
            bench.good(["init", "--unencrypted"]);
        }
        bench.good(["capture", "home=source"]);
        let target = format!("new{mode:o}");
        let restore = |more: &[&str]| {
            let arguments = [&["restore", "home:module", "--to", &target], more].concat();
            Ran::of(bench.unprivileged(arguments).output().unwrap())
        };
        // The second finds the target as the first left it: read-only.
        for more in [&[][..], &["--force"]] {
            let ran = restore(more);
            assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
            let found = fs::metadata(bench.path(&target)).unwrap();
            assert_eq!(found.permissions().mode() & 0o7777, mode);
            assert_eq!(found.modified().unwrap(), fs::metadata(&wanted).unwrap().modified().unwrap());
            let names = fs::read_dir(bench.path(&target)).unwrap().map(|item| item.unwrap().file_name());
            assert_eq!(names.collect::<Vec<_>>(), ["file"]);
        }
        restore(&[]).fails(11, "is not empty");
    }
}

#[test]
fn damaged_files_are_named_and_the_rest_comes_back() {
    let bench = Bench::new();
    let root = source(&bench);
    bench.good(["init", "--unencrypted"]);
    bench.good(["capture", "home=source"]);
    // One byte in the first frames of the largest pack: contents, as metadata is small.
    let mut find = Command::new("find");
    find.args(["repo", "-name", "*.pack", "-size", "+1M"]).current_dir(bench.path(""));
    let packs = String::from_utf8(find.output().unwrap().stdout).unwrap();
    let pack = bench.path(packs.lines().next().expect("a pack"));
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[400] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let ran = bench.run(["restore", "home", "--to", "new"]);
    assert_eq!(ran.code, 13, "{ran:?}");
    let named: Vec<&str> = ran
        .err
        .lines()
        .filter_map(|line| line.strip_prefix("amberfs: ")?.split_once(": cannot read the content"))
        .map(|(path, _)| path)
        .collect();
    assert!(!named.is_empty(), "{ran:?}");
    let (found, wanted) = (manifest(&bench.path("new")), manifest(&root));
    for path in wanted.keys().filter(|path| !path.to_string_lossy().contains('\0')) {
        let damaged = named.iter().any(|name| Path::new(name) == path);
        assert_eq!(found.contains_key(path), !damaged, "{path:?} {named:?}");
        let line = |all: &BTreeMap<PathBuf, String>| all[path].rsplit(' ').next().unwrap().to_owned();
        assert!(damaged || line(&found) == line(&wanted), "{path:?}");
    }
}

#[test]
fn an_inode_that_is_lost_hides_no_other_name() {
    let bench = Bench::new();
    fs::create_dir(bench.path("source")).unwrap();
    shell(&bench.path("source"), MANY_LINKS);
    bench.good(["init", "--unencrypted"]);
    bench.good(["capture", "home=source"]);
    lose_inode_of(&bench.path("repo"), "late/b", 0);

    let told = |ran: &Ran, path: &str| {
        assert_eq!(ran.code, 13, "{ran:?}");
        assert!(ran.err.starts_with(&format!("amberfs: {path}: ")) && ran.err.contains(".pack"), "{ran:?}");
    };
    let ran = bench.run(["ls", "home:late"]);
    told(&ran, "late/b");
    assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("a\nb\nc\n", 1));
    let ran = bench.run(["ls", "-l", "home:late"]);
    told(&ran, "late/b");
    let shown: Vec<(char, &str)> = ran.out.lines().map(|l| (l.chars().next().unwrap(), &l[l.len() - 2..])).collect();
    assert_eq!(shown, [('-', " a"), ('?', " b"), ('-', " c")]);
    let widths: Vec<usize> = ran.out.lines().map(str::len).collect();
    assert_eq!(widths, [widths[0]; 3], "columns");
    let ran = bench.run(["ls", "-R", "home"]);
    assert_eq!(ran.code, 13, "{ran:?}");
    let names = |out: &str| out.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let find = Command::new("find")
        .args([".", "-mindepth", "1", "-printf", "%P\n"])
        .current_dir(bench.path("source"))
        .output();
    assert_eq!(names(&ran.out), names(&String::from_utf8(find.unwrap().stdout).unwrap()));
    let ran = bench.run(["ls", "--json", "home:late"]);
    told(&ran, "late/b");
    let kinds: Vec<_> = ran.json().iter().map(|line| (line["message_type"].clone(), line["path"].clone())).collect();
    assert_eq!(
        kinds,
        [("entry", "late/a"), ("problem", "late/b"), ("entry", "late/c")].map(|(a, b)| (a.into(), b.into()))
    );

    let ran = bench.run(["restore", "home:late", "--to", "new"]);
    told(&ran, "b");
    let read = |name: &str| fs::read_to_string(bench.path("new").join(name)).ok();
    assert_eq!(["a", "b", "c"].map(read), [Some("a\n".to_owned()), None, Some("c\n".to_owned())]);
}

/// Runs `script` as root with `$amberfs`, where it may mount: whatever happens there, nothing stays mounted. None where
/// that is not possible.
fn with_mounts(bench: &Bench, script: &str) -> Option<Ran> {
    let amberfs = bench.command([""; 0]);
    let mut command = Command::new("unshare");
    command.args(["-m", "bash", "-euc", script]).current_dir(bench.path("")).env_clear();
    command.envs(amberfs.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("amberfs", env!("CARGO_BIN_EXE_amberfs"));
    let ran = is_root().then(|| Ran::of(command.output().unwrap()));
    let ran = ran.filter(|ran| !ran.err.contains("unshare failed") && !ran.err.contains("permission denied"));
    if ran.is_none() {
        skipped("only root can mount, and only where that is allowed");
    }
    ran
}

#[test]
fn a_full_disk_ends_a_restore_that_goes_on_when_there_is_space() {
    let bench = Bench::new();
    let root = source(&bench);
    bench.good(["init", "--unencrypted"]);
    bench.good(["capture", "home=source"]);
    let script = r#"
        mkdir small; mount -t tmpfs -o size=2m small small; code=0
        $amberfs restore home:deep --to small/new || code=$?
        echo "code $code"; find small/new -maxdepth 1 -name '.amberfs-restore-*'
        mount -o remount,size=100m small; $amberfs restore home:deep --to small/new --verify; cp -a small/new kept
    "#;
    let Some(ran) = with_mounts(&bench, script) else { return };
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.starts_with("amberfs: cannot write ") && ran.err.contains("No space left"), "{ran:?}");
    assert!(ran.out.starts_with("code 1\nsmall/new/.amberfs-restore-"), "{ran:?}");
    assert!(ran.out.contains("finished restoring home#2:deep"), "{ran:?}");
    assert_eq!(fs::read(bench.path("kept/again")).unwrap(), fs::read(root.join("large")).unwrap());
    assert_eq!(count(&bench.path("kept")), count(&root.join("deep")));
}

#[test]
fn a_hard_link_that_would_cross_filesystems_becomes_a_file_and_is_told() {
    let bench = Bench::new();
    let root = source(&bench);
    bench.good(["init", "--unencrypted"]);
    bench.good(["capture", "home=source"]);
    let script = r#"
        mkdir -p new/deep/er; mount -t tmpfs other new/deep/er; code=0
        $amberfs restore home --to new --force || code=$?
        echo "code $code"; cp -a new/deep/er kept
    "#;
    let Some(ran) = with_mounts(&bench, script) else { return };
    assert!(ran.out.ends_with("code 3\n"), "{ran:?}");
    let told: Vec<&str> = ran.err.lines().collect();
    assert_eq!(told.len(), 1, "{ran:?}");
    assert!(told[0].starts_with("amberfs: deep/er/third: restored as a file of its own"), "{ran:?}");
    let inode = |name: &str| fs::metadata(bench.path("new").join(name)).unwrap().ino();
    assert_eq!(inode("large"), inode("deep/again"));
    assert_eq!(fs::read(bench.path("kept/third")).unwrap(), fs::read(root.join("large")).unwrap());
}
