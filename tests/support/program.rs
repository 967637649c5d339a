//! Programs that a test puts somewhere in order to start them.
//!
//! Written by another process, because a file that this one has open for writing is open, for a moment, in
//! every child that another test's thread starts meanwhile, and exec answers ETXTBSY ("Text file busy")
//! as long as it is. Include it with `#[path = "../support/program.rs"] mod program;`.

use std::path::Path;
use std::process::Command;

/// Copies the program `from` to `to`, executable by all.
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("install").args(["-m", "755"]).arg(from).arg(to).status().expect("start install");
    assert!(status.success(), "install {} {}: {status}", from.display(), to.display());
}
