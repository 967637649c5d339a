//! Mounts of encrypted repositories: the passphrase is told once, reaches every process of the mount and of its jobs, and
//! is nowhere to be seen.

use std::path::Path;
use std::process::Command;

use crate::processes::{eventually, killed_and_gone};
use crate::walk_in::WalkIn;
use crate::{skip, sys};

const PASSPHRASE: &str = "a-passphrase-that-nothing-else-on-this-machine-has";
const TREE: &str = r#"
mkdir -p source/sub/deep
for n in $(seq 100); do seq $n >source/sub/$n; done
head -c 3000000 /dev/urandom >source/large
ln source/large source/sub/large; ln -s sub/1 source/link; mkfifo source/fifo; setfattr -n user.a -v b source/sub/7
"#;

/// The processes with the passphrase in what others can see of them: arguments, environment, or the name of an open file.
fn exposed() -> Vec<String> {
    let mut found = Vec::new();
    let has = |bytes: &[u8]| bytes.windows(PASSPHRASE.len()).any(|window| window == PASSPHRASE.as_bytes());
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        for what in ["cmdline", "environ", "comm", "status"] {
            if std::fs::read(format!("/proc/{pid}/{what}")).is_ok_and(|bytes| has(&bytes)) {
                found.push(format!("{pid} {what}"));
            }
        }
        for file in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            if std::fs::read_link(file.path()).is_ok_and(|name| has(name.as_os_str().as_encoded_bytes())) {
                found.push(format!("{pid} {:?}", file.path()));
            }
        }
    }
    found
}

/// The processes that have the file in memory with the passphrase, and whether each closes it when it starts another.
fn holders() -> Vec<(u32, bool)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        for file in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            if !std::fs::read_link(file.path()).is_ok_and(|name| name.to_string_lossy().contains("amberfs passphrase"))
            {
                continue;
            }
            let number = file.file_name().into_string().unwrap();
            let Ok(info) = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")) else { continue };
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
            found.push((pid, i32::from_str_radix(flags, 8).unwrap() & libc::O_CLOEXEC != 0));
        }
    }
    found
}

/// Waits until those processes that have the passphrase are supervisor and server alone, and have it for nobody else.
fn only_the_mount_has_it(walk_in: &WalkIn, watcher: &str) {
    let own = || [process(walk_in, watcher), process(walk_in, "server")];
    eventually("only the mount's processes have the passphrase, and keep it", || {
        let holders = holders();
        holders.len() == 2 && holders.iter().all(|(pid, closed)| *closed && own().contains(&Some(*pid)))
    });
}

fn asked(walk_in: &WalkIn) -> usize {
    std::fs::read_to_string(walk_in.path("asked")).unwrap().lines().count()
}

/// Mounts with these options, and with no word about the key in the environment.
fn mount(walk_in: &WalkIn, options: &[&str]) {
    let mut command = walk_in.command(&[options, &["mount", "mnt"]].concat());
    let output = command.env_remove("AMBERFS_PASSWORD_COMMAND").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The process of the mount in this role.
fn process(walk_in: &WalkIn, role: &str) -> Option<u32> {
    let (place, role) = (walk_in.path("mnt").canonicalize().ok()?, format!("--role={role}"));
    std::fs::read_dir("/proc").unwrap().find_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let has = |part: &[u8]| line.split(|byte| *byte == 0).any(|argument| argument.starts_with(part));
        (has(place.as_os_str().as_encoded_bytes()) && has(role.as_bytes())).then_some(pid)
    })
}

fn is_mounted(place: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == place.to_str())
}

/// Orders a capture by the control file, and waits for its point; nobody sees the passphrase meanwhile.
fn captured_by_order(walk_in: &WalkIn, content: &str) -> String {
    let before = walk_in.points().len();
    let asked_before = asked(walk_in);
    walk_in.sh(&format!("echo {content} >source/ordered; printf 'capture home\\n' >mnt/.amberfs/control"));
    let points = || walk_in.sh("ls mnt/home/points | wc -l").trim().parse::<usize>().unwrap();
    eventually("the point of the job is there", || {
        assert_eq!(exposed(), Vec::<String>::new());
        points() == before + 1
    });
    assert_eq!(asked(walk_in), asked_before, "no job asks for the passphrase again");
    let point = walk_in.points().pop().unwrap();
    assert_eq!(walk_in.sh(&format!("cat mnt/home/points/{point}/ordered")), format!("{content}\n"));
    assert_eq!(walk_in.sh(&format!("rsync -aHAXn --checksum -i --delete source/ mnt/home/points/{point}/")), "");
    point
}

#[test]
fn an_encrypted_repository_is_mounted_with_a_passphrase_that_is_told_once() {
    if !sys::is_root() {
        return skip::skipped("needs root, to keep copies with their owners; run the tests as root");
    }
    // The search would find it.
    let mut sleep = Command::new("sleep").arg("60").env("SECRET", PASSPHRASE).spawn().unwrap();
    eventually("the search finds what is there", || exposed() == [format!("{} environ", sleep.id())]);
    sleep.kill().unwrap();
    sleep.wait().unwrap();

    let walk_in = WalkIn::encrypted(PASSPHRASE);
    let source = walk_in.path("source");
    walk_in.amberfs(&["source", "add", "home", source.to_str().unwrap()]);
    walk_in.amberfs(&["key", "add", "a-file", "--new-keyfile", "key"]);
    walk_in.sh(TREE);
    let first = walk_in.capture(&["--label", "first"]);
    walk_in.sh("echo more >>source/sub/5; rm source/sub/9; mv source/sub/deep source/sub/deeper");
    let second = walk_in.capture(&[]);
    let refused = walk_in.command(&["mount", "mnt"]).env_remove("AMBERFS_PASSWORD_COMMAND").output().unwrap();
    assert_eq!(refused.status.code(), Some(12), "{refused:?}");
    assert!(!is_mounted(&walk_in.path("mnt")));

    let before = asked(&walk_in);
    mount(&walk_in, &["--password-command", walk_in.path("ask").to_str().unwrap()]);
    assert_eq!(asked(&walk_in), before + 1, "told once, for all processes of the mount");
    assert_eq!(exposed(), Vec::<String>::new());
    only_the_mount_has_it(&walk_in, "supervisor");
    for name in [&first, &second] {
        walk_in.is_as_it_was(name);
    }
    captured_by_order(&walk_in, "third");
    // The keys of what was told are in memory, or in a file without a name.
    let written = walk_in.sh(&format!("grep -rlF {PASSPHRASE} --exclude=ask . --exclude-dir=mnt || true"));
    assert_eq!(written, "");
    // Without its supervisor the mount goes on, watched by a successor that its server has started; and a job still
    // gets the key.
    sys::kill(process(&walk_in, "supervisor").unwrap(), libc::SIGKILL);
    eventually("a successor watches", || process(&walk_in, "successor").is_some());
    only_the_mount_has_it(&walk_in, "successor");
    assert_eq!(exposed(), Vec::<String>::new());
    captured_by_order(&walk_in, "fourth");
    let server = process(&walk_in, "server").unwrap();
    killed_and_gone(server, || !is_mounted(&walk_in.path("mnt")));

    // Again, by a key file, which the processes open themselves.
    let before = asked(&walk_in);
    mount(&walk_in, &["--keyfile", "key"]);
    walk_in.is_as_it_was(&first);
    captured_by_order(&walk_in, "fifth");
    assert!(asked(&walk_in) > before, "the test's own commands ask");
    walk_in.amberfs(&["verify", "--read-data"]);
    let server = process(&walk_in, "server").unwrap();
    killed_and_gone(server, || !is_mounted(&walk_in.path("mnt")));
    mount(&walk_in, &["--keyfile", "key"]);
    walk_in.is_as_it_was(&second);
    walk_in.unmount();

    // By a pipe, which gives it once, to all processes of the mount and those of its jobs.
    walk_in.sh("mkfifo pipe");
    let (key, pipe) = (walk_in.path("key"), walk_in.path("pipe"));
    let gives = std::thread::spawn(move || std::fs::write(pipe, std::fs::read(key).unwrap()).unwrap());
    mount(&walk_in, &["--keyfile", "pipe"]);
    gives.join().unwrap();
    captured_by_order(&walk_in, "sixth");
    walk_in.unmount();
    assert!(process(&walk_in, "server").is_none() || !is_mounted(&walk_in.path("mnt")));
}

#[test]
fn a_mount_that_cannot_be_opened_says_why_and_what_to_do() {
    let walk_in = WalkIn::encrypted(PASSPHRASE);
    walk_in.sh("printf 'not the one' > wrong; chmod 600 wrong");
    let refused = |arguments: &[&str], code: i32, said: [&str; 2]| {
        let output = walk_in.try_amberfs(arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(said.iter().all(|words| told.contains(words)), "{told}");
        assert_eq!(told.lines().count(), 2, "told once: {told}");
        walk_in.sh("! mountpoint -q mnt");
    };
    refused(&["--password-file", "wrong", "mount", "mnt"], 12, ["no key slot", "hint: `amberfs key list`"]);
    refused(&["-r", "absent", "mount", "mnt"], 10, ["there is no repository at", "hint: amberfs init"]);
}
