//! Reads that hang, panic or meet damage: who is hit, what they are told, and that nobody else is.

use std::process::{Command, Stdio};

use amberfs::base::limits;

use crate::processes::{Toy, eventually};
use crate::sys;
use crate::toy::HANGS;

fn errno<T>(outcome: std::io::Result<T>) -> i32 {
    outcome.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}

fn errors(toy: &Toy) -> String {
    std::fs::read_to_string(toy.join(".amberfs/errors")).unwrap()
}

#[test]
fn a_request_ends_at_its_deadline_and_says_so() {
    let toy = Toy::mounted("read_timeout=0.2,metadata_timeout=0.2");
    assert_eq!(errno(toy.join("trouble/hang-name").metadata()), libc::ETIMEDOUT);
    assert_eq!(errors(&toy).lines().count(), 1);
    // A page that could not be had is EIO for some kernels, whatever we said.
    let read = errno(std::fs::read(toy.join("trouble/hang")));
    assert!([libc::ETIMEDOUT, libc::EIO].contains(&read), "{read}");
    assert!(errors(&toy).contains("deadline"), "{}", errors(&toy));
    assert_eq!(std::fs::read(toy.join("tree/hello")).unwrap(), b"hello\n");
}

/// Runs a script that must end although others hang.
#[track_caller]
fn goes_through(toy: &Toy, script: &str) -> String {
    let script = Command::new("bash").args(["-c", script]).current_dir(toy.path()).stdout(Stdio::piped()).spawn();
    let mut script = script.unwrap();
    eventually("it is not kept waiting", || script.try_wait().unwrap().is_some());
    let output = script.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until so many requests hang, as `metrics` tells.
fn hanging(toy: &Toy, count: usize) {
    let script = format!("until test $(sed -n 's/hanging //p' .amberfs/metrics) -ge {count}; do sleep 0.01; done");
    goes_through(toy, &script);
}

#[test]
fn those_who_hang_keep_nobody_else_waiting_and_can_be_killed() {
    let toy = Toy::mounted("read_timeout=3600,metadata_timeout=3600");
    let start = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    goes_through(&toy, "cat tree/hello");
    let read = |at| start(Command::new("cat").arg(toy.join(&format!("trouble/hangs/hang-{at}"))));
    let name = |at| start(Command::new("stat").arg(toy.join(&format!("trouble/hang-name-{at}"))));
    let desk = "cat .amberfs/status.json .amberfs/events; echo 'capture home' > .amberfs/control && ls .amberfs/jobs";
    // More than there are threads for contents, and so few that the kernel reads them ahead.
    let mut ahead: Vec<_> = (0..40).map(read).collect();
    hanging(&toy, limits::MOUNT_DATA_WORKERS_MAX);
    assert_eq!(goes_through(&toy, "cat tree/hello && ls tree/many | wc -l"), "hello\n3000\n");
    assert_eq!(goes_through(&toy, desk), "{\"jobs\": 0}\nj0\n");
    for reader in &mut ahead {
        reader.kill().unwrap();
        reader.wait().unwrap();
    }
    let mut stuck: Vec<_> = (40..HANGS).map(read).chain((0..HANGS).map(name)).collect();
    hanging(&toy, limits::MOUNT_DATA_WORKERS_MAX + limits::MOUNT_METADATA_WORKERS_MAX);
    assert_eq!(goes_through(&toy, "cat tree/hello"), "hello\n", "the kernel knows it");
    assert!(goes_through(&toy, desk).starts_with("{\"jobs\": 1}\n"));
    // What the kernel waits for itself holds its caller until it is answered; the end of the server answers everything.
    sys::kill(toy.server().unwrap(), libc::SIGKILL);
    for one in &mut stuck {
        assert!(!one.wait().unwrap().success());
    }
    eventually("the dead mount is gone", || !toy.is_mounted());
}

#[test]
fn a_panic_is_an_error_for_one_caller() {
    let toy = Toy::mounted("");
    for _ in 0..20 {
        assert_eq!(errno(toy.join("trouble/panic-name").metadata()), libc::EIO);
        assert_eq!(errno(std::fs::read(toy.join("trouble/panic"))), libc::EIO);
    }
    assert_eq!(std::fs::read(toy.join("tree/hello")).unwrap(), b"hello\n");
    assert!(errors(&toy).contains("a read that panics"));
}

#[test]
fn damage_is_an_error_never_absence_and_is_recorded() {
    let toy = Toy::mounted("");
    assert_eq!(errno(std::fs::read(toy.join("trouble/damaged"))), libc::EIO);
    assert_eq!(errno(std::fs::read(toy.join("trouble/lost"))), libc::EIO);
    assert_eq!(errno(toy.join("trouble/lost-name").metadata()), libc::EIO);
    assert_eq!(errno(toy.join("trouble/no-name").metadata()), libc::ENOENT);
    let errors = errors(&toy);
    for words in [
        "frame 3 of trouble/damaged: pack 7 of chain 2 is damaged",
        "frame 4 of trouble/lost: pack 7",
        "node 5 of tree/lost-name",
    ] {
        assert!(errors.contains(words), "{errors}");
    }
    assert!(!errors.contains("no-name"), "absence is no fault");
}
