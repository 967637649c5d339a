//! How a test says that it could not run, or what it left for longer campaigns: loudly, and so that
//! `tests/run` repeats it at the end.
//!
//! Test runners hide what a passing test prints, so the reason also goes to a file. Include it with
//! `#[path = "../support/skip.rs"] mod skip;` and return from the test right after the call.

use std::io::Write;

/// Reports that the calling test did not run, and why; says what would make it run.
#[track_caller]
pub(crate) fn skipped(why: &str) {
    told("SKIPPED", why);
}

/// Reports that the calling test ran as far as it goes here, and what a longer campaign tries besides.
#[allow(dead_code)]
#[track_caller]
pub(crate) fn untried(what: &str) {
    told("NOT TRIED", what);
}

#[track_caller]
fn told(word: &str, why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("{word} {test} ({}): {why}", std::panic::Location::caller());
    eprintln!("{line}");
    if let Some(file) = std::env::var_os("AMBERFS_TEST_SKIPS") {
        let mut file =
            std::fs::OpenOptions::new().create(true).append(true).open(file).expect("open the list of skips");
        writeln!(file, "{line}").expect("append to the list of skips");
    }
}
