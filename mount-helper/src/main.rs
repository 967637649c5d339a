//! `mount.amberfs SOURCE DIR [-sfnv] [-o OPTIONS]`: what mount(8) and fstab call, as
//! <https://man7.org/linux/man-pages/man8/mount.8.html> says under "External helpers".
//!
//! It translates to `amberfs mount` and does nothing else: no mount is made here. It depends on libc
//! alone, because it may run as root, early at boot, out of a table that somebody else wrote.
//!
//! If it is installed setuid by mistake it gives its privileges up before it looks at anything, and
//! runs `amberfs` without the caller's environment.

mod options;
mod program;
mod sys;

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use options::{Request, Usage};

/// Exit codes of mount(8).
const INCORRECT_INVOCATION: u8 = 1;
const SYSTEM_ERROR: u8 = 2;
const MOUNT_FAILURE: u8 = 32;

fn main() -> ExitCode {
    let borrowed = match sys::drop_borrowed_privileges() {
        Ok(borrowed) => borrowed,
        Err(error) => return fail(SYSTEM_ERROR, &format!("cannot give up privileges: {error}")),
    };
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let request = match Request::parse(&arguments) {
        Ok(request) => request,
        Err(Usage(message)) => {
            return fail(
                INCORRECT_INVOCATION,
                &format!("{message}\nusage: mount.amberfs REPOSITORY DIRECTORY [-sfnv] [-o OPTIONS]"),
            );
        }
    };
    let Some(amberfs) = program::find(sys::is_root()) else {
        return fail(
            SYSTEM_ERROR,
            "cannot find the program amberfs; install it beside mount.amberfs or in /usr/local/bin",
        );
    };
    let mut command = Command::new(&amberfs);
    command.args(request.command());
    if borrowed {
        command.env_clear().env("PATH", program::PATH.join(":"));
    }
    if request.verbose {
        eprintln!("mount.amberfs: {command:?}");
    }
    if request.fake {
        return ExitCode::SUCCESS;
    }
    match command.status() {
        Err(error) => fail(SYSTEM_ERROR, &format!("cannot run {}: {error}", amberfs.display())),
        Ok(status) => match status.code() {
            Some(0) => ExitCode::SUCCESS,
            // It has said why. mount(8) takes our code for a set of bits of its own.
            Some(2) => ExitCode::from(INCORRECT_INVOCATION),
            _ => ExitCode::from(MOUNT_FAILURE),
        },
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("mount.amberfs: {message}");
    ExitCode::from(code)
}
