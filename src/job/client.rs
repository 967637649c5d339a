//! Talks to a mount's control file as any program may: one write, and the answer in words.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::error::JobError;
use crate::base::limits;

/// The control file of the mount at `mount`.
pub fn control_file(mount: &Path) -> PathBuf {
    mount.join(".amberfs").join("control")
}

/// Hands `commands` to the mount at `mount` as one batch; what it answers.
///
/// # Errors
/// [`JobError::Refused`] with the mount's own words; [`JobError::Io`] when there is no such mount.
pub fn send(mount: &Path, commands: &str) -> Result<String, JobError> {
    if commands.len() > limits::CONTROL_BATCH_BYTES_MAX {
        return Err(JobError::TooLong { bytes: commands.len(), limit: limits::CONTROL_BATCH_BYTES_MAX });
    }
    let path = control_file(mount);
    let mut control = OpenOptions::new().read(true).write(true).open(&path).map_err(JobError::io("open", &path))?;
    // One write is one batch: a loop over partial writes would make two of it.
    let written = control.write(commands.as_bytes());
    let mut reply = String::new();
    let heard = control.read_to_string(&mut reply);
    match written {
        Ok(bytes) if bytes == commands.len() => {
            heard.map_err(JobError::io("read the answer from", &path))?;
            Ok(reply)
        }
        Ok(_) => Err(JobError::io("write", &path)(std::io::ErrorKind::WriteZero.into())),
        Err(error) => match error.raw_os_error() {
            Some(errno) if heard.is_ok() && reply.starts_with("err ") => {
                Err(JobError::Refused { errno, reply: reply.trim_end().to_owned() })
            }
            _ => Err(JobError::io("write", &path)(error)),
        },
    }
}
