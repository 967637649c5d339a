//! The control file as shells and programs use it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;

use crate::processes::{Toy, shell};

fn reply(toy: &Toy) -> String {
    std::fs::read_to_string(toy.control()).unwrap()
}

fn submit(toy: &Toy, batch: &[u8]) -> Result<(), i32> {
    let mut file = OpenOptions::new().write(true).open(toy.control()).unwrap();
    let written = file.write(batch).map_err(|error| error.raw_os_error().unwrap())?;
    assert_eq!(written, batch.len());
    Ok(())
}

fn accepted(count: usize) -> String {
    use std::os::unix::fs::MetadataExt;
    format!("accepted {count} for {}\n", std::fs::metadata("/proc/self").unwrap().uid())
}

#[test]
fn every_shell_can_command_and_read_its_reply() {
    let toy = Toy::mounted("");
    let ways = [
        ("bash", "echo capture home > .amberfs/control"),
        ("bash", "echo capture home >> .amberfs/control"),
        ("bash", "echo capture home >| .amberfs/control"),
        ("bash", "printf 'capture home' > .amberfs/control"),
        ("dash", "echo capture home > .amberfs/control"),
        ("dash", "echo capture home | tee .amberfs/control >/dev/null"),
        ("dash", "echo capture home | tee -a .amberfs/control >/dev/null"),
        ("dash", "echo capture home | cat > .amberfs/control"),
        ("dash", "echo capture home | dd of=.amberfs/control status=none"),
        (
            "dash",
            "echo capture home > /tmp/amberfs-line.$$ && cp /tmp/amberfs-line.$$ .amberfs/control; e=$?; rm /tmp/amberfs-line.$$; exit $e",
        ),
        ("python3", "open('.amberfs/control', 'w').write('capture home\\n')"),
        ("python3", "import pathlib; pathlib.Path('.amberfs/control').write_text('capture home')"),
        (
            "bash",
            "touch .amberfs/control && chmod 600 .amberfs/control && truncate -s 0 .amberfs/control && echo capture home > .amberfs/control",
        ),
    ];
    for (at, (program, script)) in ways.iter().enumerate() {
        assert_eq!(shell(program, script, &toy), (String::new(), 0), "{program}: {script}");
        assert_eq!(reply(&toy), accepted(1));
        assert_eq!(std::fs::read_to_string(toy.join(".amberfs/events")).unwrap().lines().count(), at + 1);
    }
}

#[test]
fn a_descriptor_for_both_reads_the_reply_to_what_it_wrote() {
    let toy = Toy::mounted("");
    let script = "exec 3<>.amberfs/control; echo capture home >&3; cat <&3; echo capture nope >&3; cat <&3; echo capture home >&3; cat <&3";
    for program in ["bash", "dash"] {
        let (text, _) = shell(program, script, &toy);
        let lines: Vec<&str> =
            text.lines().filter(|line| line.starts_with("accepted") || line.starts_with("no ")).collect();
        assert_eq!(
            lines,
            [accepted(1).trim(), "no source \"nope\"; did you mean \"home\"?", accepted(1).trim()],
            "{text}"
        );
    }
    let script = "
import os
f = os.open('.amberfs/control', os.O_RDWR)
os.write(f, b'capture home\\ncapture home\\n')
print(os.read(f, 4), os.read(f, 100), os.read(f, 100))
try: os.lseek(f, 0, 0)
except OSError as e: print(e.strerror)
";
    let (text, _) = shell("python3", script, &toy);
    let rest = accepted(2).split_off(4).trim().to_owned();
    assert_eq!(text, format!("b'acce' b'{rest}\\n' b''\nIllegal seek\n"));
}

#[test]
fn a_refusal_reaches_the_writer_with_its_reason() {
    let toy = Toy::mounted("");
    let (text, code) = shell("bash", "echo capture hom > .amberfs/control", &toy);
    assert_eq!(code, 1);
    assert!(text.contains("No such file or directory"), "{text}");
    assert_eq!(reply(&toy), "no source \"hom\"; did you mean \"home\"?\n");
    assert_eq!(shell("dash", "echo nonsense > .amberfs/control", &toy).1, 1);
    assert_ne!(shell("dash", "echo nonsense | tee .amberfs/control", &toy).1, 0);
    assert_eq!(submit(&toy, b"nonsense"), Err(libc::EINVAL));
    assert_eq!(submit(&toy, b"capture busy"), Err(libc::EBUSY));
    assert_eq!(submit(&toy, &[b'x'; 4096]), Err(libc::E2BIG));
    assert_eq!(submit(&toy, &[b'x'; 300_000]), Err(libc::E2BIG), "a batch comes in one piece");
    // A group of commands is as many batches, and each has its own outcome.
    let (_, code) =
        shell("bash", "{ echo capture home; echo capture nope; echo capture home; } > .amberfs/control", &toy);
    assert_eq!(code, 0);
    assert_eq!(std::fs::read_to_string(toy.join(".amberfs/events")).unwrap().lines().count(), 2);
}

#[test]
fn a_batch_is_applied_whole_or_not_at_all() {
    let toy = Toy::mounted("");
    assert_eq!(submit(&toy, b"# several\ncapture home\n\ncapture home job=second"), Ok(()));
    assert_eq!(reply(&toy), accepted(2));
    assert_eq!(submit(&toy, b"capture home\ncapture nope\n"), Err(libc::ENOENT));
    assert_eq!(std::fs::read_to_string(toy.join(".amberfs/events")).unwrap().lines().count(), 2);
    assert_eq!(std::fs::read_to_string(toy.join(".amberfs/jobs/second/state")).unwrap(), "committed\n");
    assert_eq!(std::fs::read_to_string(toy.join(".amberfs/jobs/second/result")).unwrap(), "2026-11-20T12-00-00Z\n");
    assert_eq!(
        shell("bash", "ls .amberfs/jobs; ls .amberfs/jobs/second", &toy).0,
        "j0\nsecond\nerror\nlog\nprogress.json\nresult\nstate\n"
    );
    assert!(!toy.join(".amberfs/jobs/third").exists());
    submit(&toy, b"capture home job=third").unwrap();
    assert!(toy.join(".amberfs/jobs/third/state").exists(), "that there was none must not be remembered");
}

#[test]
fn growing_files_grow_under_an_open_descriptor_and_others_stay() {
    let toy = Toy::mounted("");
    submit(&toy, b"capture home").unwrap();
    let mut events = File::open(toy.join(".amberfs/events")).unwrap();
    let mut status = File::open(toy.join(".amberfs/status.json")).unwrap();
    let mut text = String::new();
    events.read_to_string(&mut text).unwrap();
    assert_eq!(text, "{\"line\": \"capture home\"}\n");
    submit(&toy, b"capture home job=x").unwrap();
    assert!(events.metadata().unwrap().len() > text.len() as u64);
    text.clear();
    events.read_to_string(&mut text).unwrap();
    assert_eq!(text, "{\"line\": \"capture home job=x\"}\n");
    text.clear();
    status.read_to_string(&mut text).unwrap();
    assert_eq!(text, "{\"jobs\": 1}\n");
    status.rewind().unwrap();
    let before = status.metadata().unwrap().ino();
    assert_eq!(std::fs::read_to_string(toy.join(".amberfs/status.json")).unwrap(), "{\"jobs\": 2}\n");
    assert_ne!(toy.join(".amberfs/status.json").metadata().unwrap().ino(), before);
    assert_eq!(events.metadata().unwrap().ino(), toy.join(".amberfs/events").metadata().unwrap().ino());
}

#[test]
fn many_writers_at_once_lose_nothing() {
    let toy = Toy::mounted("");
    std::thread::scope(|threads| {
        for writer in 0..8 {
            let toy = &toy;
            threads.spawn(move || {
                for at in 0..25 {
                    let mut file = OpenOptions::new().read(true).write(true).open(toy.control()).unwrap();
                    let lines = 1 + at % 3;
                    let batch = format!("capture home job=w{writer}-{at}\n").repeat(lines);
                    file.write_all(batch.as_bytes()).unwrap();
                    let mut text = String::new();
                    file.read_to_string(&mut text).unwrap();
                    assert_eq!(text, accepted(lines), "each descriptor has its own reply");
                }
            });
        }
    });
    let lines = std::fs::read_to_string(toy.join(".amberfs/events")).unwrap().lines().count();
    assert_eq!(lines, 8 * (0..25).map(|at| 1 + at % 3).sum::<usize>());
}
