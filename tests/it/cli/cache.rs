//! What this machine keeps of what was fetched over a network: where, how much, and that killing whoever writes it
//! does no harm. The server is moto.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use super::bench::{Bench, Ran};
use crate::servers::moto;

fn run(bench: &Bench, place: &str, arguments: &[&str]) -> Ran {
    Ran::of(command(bench, place, arguments).output().unwrap())
}

fn command(bench: &Bench, place: &str, arguments: &[&str]) -> std::process::Command {
    let url = format!("s3://amber/{place}?endpoint={}", moto().endpoint());
    let mut command = bench.command(["-r", &url]);
    command.args(arguments).env("AWS_ACCESS_KEY_ID", "AK").env("AWS_SECRET_ACCESS_KEY", "SK");
    command
}

/// A repository at `place` with one point, of a file of 3 MB.
fn captured(place: &str) -> (Bench, String) {
    let bench = Bench::new();
    let content: String = (0..400_000u32).map(|n| format!("{:07x}\n", n.wrapping_mul(2_654_435_761) >> 4)).collect();
    std::fs::create_dir(bench.path("source")).unwrap();
    std::fs::write(bench.path("source/file"), &content).unwrap();
    let source = format!("home={}", bench.path("source").display());
    for arguments in [&["init", "--unencrypted"][..], &["-q", "capture", &source]] {
        let ran = run(&bench, place, arguments);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    (bench, content)
}

#[test]
fn what_is_fetched_is_kept_unless_that_is_not_wanted_and_status_tells_of_it() {
    let (bench, content) = captured("kept");
    let cache = bench.path("cache");
    drop(std::fs::remove_dir_all(&cache));
    for nothing in [&["--no-cache", "cat", "home:file"][..], &["--cache-size=0", "cat", "home:file"]] {
        assert!(run(&bench, "kept", nothing).out == content);
        assert!(!cache.exists());
    }
    std::fs::write(bench.path("config.toml"), "[cache]\nmib = 0\n").unwrap();
    assert!(run(&bench, "kept", &["cat", "home:file"]).out == content);
    assert!(!cache.exists());
    std::fs::write(bench.path("config.toml"), "[cache]\nmib = 100\n").unwrap();
    for _ in 0..2 {
        assert!(run(&bench, "kept", &["cat", "home:file"]).out == content);
    }
    assert_eq!(cache.join("blocks").metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let status = run(&bench, "kept", &["--json", "status"]).json().remove(0);
    assert_eq!(status["disk_cache"]["bytes_max"], 100 << 20);
    assert!(status["disk_cache"]["bytes"].as_u64().unwrap() > 1 << 20, "{status}");
    // The second reader had all that the first one had not.
    assert!((40..=95).contains(&status["disk_cache"]["hit_percent"].as_u64().unwrap()), "{status}");
    let told = run(&bench, "kept", &["status"]).out;
    assert!(told.contains("disk cache  ") && told.contains(" % of what was asked for"), "{told}");
    // A repository in a directory has none.
    assert_eq!(bench.run(["init", "--unencrypted"]).code, 0);
    assert!(!bench.good(["status"]).contains("disk cache"));
}

#[test]
fn readers_that_are_killed_leave_a_cache_that_is_right() {
    let (bench, content) = captured("killed");
    let mut killed = 0;
    for round in 0..12 {
        drop(std::fs::remove_dir_all(bench.path("cache")));
        let mut reader = command(&bench, "killed", &["cat", "home:file"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(40 + 15 * round));
        reader.kill().unwrap();
        killed += u32::from(!reader.wait().unwrap().success());
        let ran = run(&bench, "killed", &["cat", "home:file"]);
        assert!(ran.code == 0 && ran.out == content && ran.err.is_empty(), "round {round}: {}", ran.err);
    }
    assert!(killed > 0, "nobody was killed in time");
}
