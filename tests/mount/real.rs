//! The real command on a real repository: that `amberfs mount` plays its roles as the toy does.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::processes::{Toy, eventually, shell};
use crate::world::{how_to_init, tell_key};
use crate::{skip, sys};

/// A repository beside a place to mount it.
pub(crate) struct Real {
    pub(crate) toy: Toy,
}

impl Real {
    pub(crate) fn new() -> Real {
        let real = Real { toy: Toy::unmounted() };
        real.succeeds(how_to_init());
        real
    }

    fn repository(&self) -> PathBuf {
        self.toy.beside("repository")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amberfs"));
        self.with_environment(&mut command).arg("-r").arg(self.repository()).args(arguments);
        command
    }

    fn with_environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        tell_key(command, &self.toy.beside(""));
        command
            .env("AMBERFS_CONFIG", self.toy.beside("config.toml"))
            .env("AMBERFS_STATE_DIR", self.toy.beside("state"))
            .env("AMBERFS_CACHE_DIR", self.toy.beside("cache"))
            .env_remove("AMBERFS_REPOSITORY")
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    pub(crate) fn succeeds(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    pub(crate) fn place(&self) -> String {
        self.toy.path().to_str().unwrap().to_owned()
    }

    pub(crate) fn mount(&self) {
        self.succeeds(&["mount", &self.place()]);
    }
}

#[test]
fn a_repository_is_mounted_and_unmounted() {
    let real = Real::new();
    real.mount();
    let status = std::fs::read_to_string(real.toy.join(".amberfs/status.json")).unwrap();
    assert!(status.contains(&format!("file://{}", real.repository().display())), "{status}");
    let (text, code) = shell("bash", "echo 'capture home' > .amberfs/control; cat .amberfs/control", &real.toy);
    assert_eq!(code, 0);
    assert!(text.contains("home"), "{text}");
    let again = real.run(&["mount", &real.place()]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("already"), "{again:?}");
    real.succeeds(&["umount", &real.place()]);
    assert!(!real.toy.is_mounted() && real.toy.server().is_none());
    assert!(!real.run(&["umount", &real.place()]).status.success());
    // As mount(8) has it with -s: unknown options are passed over, the others hold.
    assert!(!real.run(&["mount", "-o", "nonsense,ro", &real.place()]).status.success());
    let told = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_slice(&real.run(arguments).stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    };
    let mounted = told(&["--json", "mount", "--sloppy", "-o", "nonsense,ro", &real.place()]);
    assert_eq!(mounted, serde_json::json!({ "message_type": "mounted", "mountpoint": real.place() }));
    assert!(real.toy.is_mounted() && !real.toy.control().exists());
    let unmounted = told(&["--json", "umount", &real.place()]);
    assert_eq!(unmounted, serde_json::json!({ "message_type": "unmounted", "mountpoint": real.place() }));
}

/// How often the process has called read(2) and its like: once for each request of the kernel, at least.
fn reads(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/io")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap().parse().unwrap()
}

#[test]
fn a_walk_of_what_the_kernel_knows_asks_for_nothing() {
    const DIRECTORIES: u64 = 200;
    let real = Real::new();
    let tree = real.toy.beside("tree");
    for n in 0..DIRECTORIES {
        let directory = tree.join(n.to_string());
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("file"), n.to_string()).unwrap();
    }
    real.succeeds(&["capture", &format!("source={}", tree.display())]);
    real.mount();
    let server = real.toy.server().unwrap();
    let walk = || {
        let before = reads(server);
        let (found, code) = shell("bash", "find source/latest/ -printf '%p %s %T@ %i\\n' | sort", &real.toy);
        assert_eq!((code, found.lines().count() as u64), (0, 1 + 2 * DIRECTORIES), "{found}");
        (found, reads(server) - before)
    };
    let (found, asked) = walk();
    assert!(asked >= 2 * DIRECTORIES, "{asked} requests are not counted right");
    // The way to the point; and in it, after the first listing, whether a directory has been read since.
    for most in [30 + DIRECTORIES, 30] {
        let (again, asked) = walk();
        assert_eq!(again, found);
        assert!(asked < most, "{asked} requests");
    }
}

#[test]
fn small_files_that_are_read_in_order_come_before_they_are_asked_for() {
    const FILES: usize = 300;
    let real = Real::new();
    let tree = real.toy.beside("tree");
    std::fs::create_dir(&tree).unwrap();
    // Some of one page, some of several, some that end with a page, some empty; each unlike all others.
    let content = |n: usize| {
        let words = (0..).flat_map(|word: u32| {
            blake3::hash(&[n as u32, word].map(u32::to_le_bytes).concat()).to_hex().to_string().into_bytes()
        });
        words.take([100, 2000, 4096, 5000, 12_288, 0, 9001][n % 7]).collect::<Vec<u8>>()
    };
    let name = |n: usize| format!("{n:03}");
    for n in 0..FILES {
        std::fs::write(tree.join(name(n)), content(n)).unwrap();
    }
    std::fs::hard_link(tree.join(name(3)), tree.join("003 again")).unwrap();
    real.succeeds(&["capture", &format!("source={}", tree.display())]);
    real.mount();
    // The way to it is asked for each time, and what is below an open directory is not.
    let opened = std::fs::File::open(real.toy.join("source/latest")).unwrap();
    let point = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    assert_eq!(shell("bash", "ls -l source/latest/ | wc -l", &real.toy), (format!("{}\n", FILES + 2), 0));
    let in_memory = |n: usize| sys::pages_in_memory(&std::fs::File::open(point.join(name(n))).unwrap());
    let pages = |n: usize| content(n).len().div_ceil(4096);

    // One file alone, and one far behind it, bring nothing along.
    for n in [1, 198] {
        assert_eq!(std::fs::read(point.join(name(n))).unwrap(), content(n));
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!((in_memory(2), in_memory(199)), (0, 0));

    assert_eq!(std::fs::read(point.join(name(2))).unwrap(), content(2));
    // The frame ends behind 128 KiB: the files behind it stay where they are. An inode with several names has its own place.
    let with_it: Vec<usize> = (4..20).filter(|n| pages(*n) > 0).collect();
    eventually("the files behind are in memory", || with_it.iter().all(|n| in_memory(*n) == pages(*n)));
    assert_eq!((in_memory(100), in_memory(199)), (0, 0));
    // They are opened and released, and nobody asks for what they hold.
    let server = real.toy.server().unwrap();
    let before = reads(server);
    for n in &with_it {
        assert_eq!(std::fs::read(point.join(name(*n))).unwrap(), content(*n), "{n}");
    }
    let asked = reads(server) - before;
    assert!(asked < 3 * with_it.len() as u64, "{asked} requests for {} files", with_it.len());
    // Whoever reads all of it reads what was captured, whatever was there before and whatever comes in between.
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (point, tree) = (real.toy.join("source/latest"), tree.clone());
            std::thread::spawn(move || are_the_same_trees(&tree, &point))
        })
        .collect();
    for reader in readers {
        reader.join().unwrap();
    }
}

#[track_caller]
fn are_the_same_trees(one: &Path, other: &Path) {
    let output = Command::new("diff").arg("-r").arg(one).arg(other.join(".")).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn a_large_directory_is_listed_with_its_attributes() {
    const FILES: u64 = 3000;
    let real = Real::new();
    let tree = real.toy.beside("tree");
    std::fs::create_dir(&tree).unwrap();
    for n in 0..FILES {
        std::fs::write(tree.join(n.to_string()), n.to_string()).unwrap();
    }
    real.succeeds(&["capture", &format!("source={}", tree.display())]);
    real.mount();
    let server = real.toy.server().unwrap();
    let before = reads(server);
    let (found, code) = shell("bash", "find source/latest/ -printf '%s\\n' | wc -l", &real.toy);
    assert_eq!((code, found.trim()), (0, &*(1 + FILES).to_string()));
    // Pages of a hundred names and more, and no file by itself.
    let asked = reads(server) - before;
    assert!(asked < FILES / 10, "{asked} requests");
}

#[test]
fn the_processes_of_a_real_mount_clear_up_after_each_other() {
    let real = Real::new();
    real.mount();
    sys::kill(real.toy.process("supervisor").unwrap(), libc::SIGKILL);
    eventually("a successor", || real.toy.process("successor").is_some());
    sys::kill(real.toy.server().unwrap(), libc::SIGKILL);
    eventually("the dead mount is gone", || !real.toy.is_mounted());

    let place = real.place();
    let mut foreground = real.command(&["mount", "--foreground", &place]).spawn().unwrap();
    eventually("the mount answers", || real.toy.control().exists());
    sys::kill(foreground.id(), libc::SIGTERM);
    assert_eq!(foreground.wait().unwrap().code(), Some(0));
    assert!(!real.toy.is_mounted());
}

#[test]
fn what_the_processes_of_a_mount_say_is_in_its_log() {
    let real = Real::new();
    for own in [None, Some(real.toy.beside("own.log"))] {
        let place = real.place();
        let mut arguments = vec!["mount", &place];
        arguments.extend(own.iter().flat_map(|path| ["--log-file", path.to_str().unwrap()]));
        real.succeeds(&arguments);
        let status = std::fs::read_to_string(real.toy.join(".amberfs/status.json")).unwrap();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let log = PathBuf::from(status["log"].as_str().unwrap());
        let name = format!("{}.log", place.trim_start_matches('/').replace('-', "\\x2d").replace('/', "-"));
        assert_eq!(log, own.unwrap_or_else(|| real.toy.beside("state/mounts").join(name)));
        sys::kill(real.toy.process("supervisor").unwrap(), libc::SIGKILL);
        eventually("the server tells of it", || std::fs::read_to_string(&log).unwrap().contains("started another"));
        eventually("a successor", || real.toy.process("successor").is_some());
        real.succeeds(&["umount", &place]);
    }
    let output = real.run(&["mount", "--log-file", "/proc/nowhere/log", &real.place()]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("/proc/nowhere/log"), "{text}");
    assert!(!real.toy.is_mounted());
    // Nor does it keep anybody from mounting that there is no place for a log.
    std::fs::remove_dir_all(real.toy.beside("state/mounts")).unwrap();
    std::fs::write(real.toy.beside("state/mounts"), b"in the way").unwrap();
    let output = real.run(&["mount", &real.place()]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("cannot open its log"));
    assert!(std::fs::read_to_string(real.toy.join(".amberfs/status.json")).unwrap().contains("\"log\":null"));
}

#[test]
fn a_mount_that_would_harm_the_repository_is_refused() {
    let real = Real::new();
    let inside = real.repository().join("inside");
    std::fs::create_dir(&inside).unwrap();
    for (place, words) in
        [(inside.to_str().unwrap(), "inside the repository"), (real.toy.beside("").to_str().unwrap(), "hide it")]
    {
        let output = real.run(&["mount", "-o", "nonempty", place]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(words), "{text}");
    }
    std::fs::remove_dir_all(real.repository()).unwrap();
    let output = real.run(&["mount", &real.place()]);
    assert_eq!(output.status.code(), Some(10), "{output:?}");
    assert!(!real.toy.is_mounted());
}

/// A link in a directory of the system, for as long as a test runs.
struct Installed(PathBuf);

impl Installed {
    fn new(program: &Path, link: PathBuf) -> Installed {
        std::os::unix::fs::symlink(program, &link).unwrap();
        Installed(link)
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn mount_by_type_and_by_fstab_shows_the_repository() {
    if !sys::is_root() {
        return skip::skipped("needs root, to put a helper into /sbin and to mount; run the tests as root");
    }
    let helper = Path::new(env!("CARGO_BIN_EXE_amberfs")).with_file_name("mount-amberfs");
    if !helper.exists() {
        return skip::skipped("mount-amberfs is not built; run the tests of the whole workspace");
    }
    let real = Real::new();
    // mount(8) finds helpers by the type's name, in /sbin alone; a name of this test's own hides no installed one.
    let kind = format!("amberfs-test-real-{}", std::process::id());
    let _installed = Installed::new(&helper, Path::new("/sbin").join(format!("mount.{kind}")));
    let (repository, config) = (real.repository(), real.toy.beside("config.toml"));
    std::fs::write(&config, "").unwrap();
    let options = format!("noauto,_netdev,x-systemd.automount,config={}", config.display());
    let fstab = real.toy.beside("fstab");
    let line = format!("{} {} {kind} {options} 0 0\n", repository.display(), real.place());
    std::fs::write(&fstab, line).unwrap();
    let by_type = ["-t", &kind, "-o", &options, repository.to_str().unwrap(), &real.place()].map(str::to_owned);
    let by_fstab = ["-T", fstab.to_str().unwrap(), &real.place()].map(str::to_owned);
    let outcomes = [by_type.to_vec(), by_fstab.to_vec()].map(|arguments| {
        let mount = real.with_environment(Command::new("mount").args(&arguments)).output().unwrap();
        let answers = real.toy.control().exists();
        let umount = Command::new("umount").arg(real.place()).output().unwrap();
        eventually("the server has ended", || real.toy.server().is_none());
        (mount, answers, umount)
    });
    for (mount, answers, umount) in outcomes {
        assert!(mount.status.success() && answers && umount.status.success(), "{mount:?} {answers} {umount:?}");
    }
}
