//! Reads that hang, panic or meet damage: who is hit, what they are told, and that nobody else is.

use std::process::{Command, Stdio};

use crate::processes::{Toy, eventually, shell};
use crate::sys;

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

#[test]
fn those_who_hang_keep_nobody_else_waiting_and_can_be_killed() {
    let toy = Toy::mounted("read_timeout=3600,metadata_timeout=3600");
    let mut readers: Vec<_> = (0..24)
        .map(|at| {
            let path = toy.join(if at % 2 == 0 { "trouble/hang" } else { "trouble/slow" });
            let offset = format!("skip={at}");
            Command::new("dd")
                .arg(format!("if={}", path.display()))
                .args(["of=/dev/null", "bs=64", "count=1", &offset])
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut namers: Vec<_> = (0..8)
        .map(|_| Command::new("stat").arg(toy.join("trouble/hang-name")).stderr(Stdio::null()).spawn().unwrap())
        .collect();
    assert_eq!(shell("bash", "cat tree/hello && ls tree/many | wc -l", &toy), ("hello\n3000\n".to_owned(), 0));
    for reader in &mut readers {
        reader.kill().unwrap();
        reader.wait().unwrap();
    }
    // A lookup holds its caller until it is answered; the end of the server answers everything.
    sys::kill(toy.server().unwrap(), libc::SIGKILL);
    for namer in &mut namers {
        assert!(!namer.wait().unwrap().success());
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
