//! What the processes of a mount tell each other, and how each learns that another is gone.
//!
//! Supervisor and server hold the two ends of one socket. Whoever dies, by whatever signal, closes its
//! end, so the other reads the end of the stream: no process number is watched, none can be mistaken for
//! another's. Neither end is ever inherited by other processes that the server starts.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::error::MountError;
use super::launch::Failed;
use super::log_file::LogFile;
use super::mountinfo::DeviceId;
use super::sys;

/// One message, a line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Word {
    /// The mount answers; it is the filesystem with this device number.
    Ready(String),
    /// There will be no mount.
    Failed(Failed),
    /// The server has ended as it should; there is nothing to clear.
    Bye,
    /// To the server: unmount and end.
    End,
}

impl Word {
    /// That the mount `device` answers.
    pub(crate) fn ready(device: DeviceId) -> Word {
        Word::Ready(device.to_string())
    }

    /// Writes it to `stream`.
    pub(crate) fn say(&self, stream: &mut impl Write) -> io::Result<()> {
        let mut line = serde_json::to_vec(self).map_err(io::Error::other)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        stream.flush()
    }

    /// Hands every word from `stream` to `each`, until the other side is gone or `each` returns false.
    pub(crate) fn hear_all(stream: impl io::Read, mut each: impl FnMut(Word) -> bool) {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(word) = line.and_then(|line| serde_json::from_slice(&line).map_err(io::Error::other)) else {
                return;
            };
            if !each(word) {
                return;
            }
        }
    }
}

/// Takes the end of a lifeline that came as standard input, and leaves nothing there that a child
/// process could inherit.
pub(crate) fn inherited() -> Result<UnixStream, MountError> {
    let failed = |cause| MountError::Process { doing: "take over the supervisor's socket", cause };
    // A duplicate of Rust's making is not inherited.
    let socket: OwnedFd = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let socket = UnixStream::from(socket);
    if socket.peer_addr().is_err() {
        return Err(MountError::Protocol("--role is for amberfs to start itself; use `amberfs mount`".to_owned()));
    }
    let null = null().map_err(failed)?;
    sys::replace_descriptor(null.as_fd(), libc::STDIN_FILENO).map_err(failed)?;
    Ok(socket)
}

/// Gives up standard output and error, so that nobody who reads from them waits for a process that stays. What it
/// says from now on is in `log`.
pub(crate) fn leave_streams(log: Option<&LogFile>) -> io::Result<()> {
    let null = null()?;
    sys::replace_descriptor(null.as_fd(), libc::STDOUT_FILENO)?;
    let Some(log) = log else { return sys::replace_descriptor(null.as_fd(), libc::STDERR_FILENO) };
    let taken = log.take_over();
    if let Err(error) = &taken {
        tracing::warn!(
            "what this mount says from now on is lost: cannot open its log {}: {error}",
            log.path().display()
        );
        sys::replace_descriptor(null.as_fd(), libc::STDERR_FILENO)?;
    }
    Ok(())
}

fn null() -> io::Result<std::fs::File> {
    OpenOptions::new().read(true).write(true).open("/dev/null")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_as_they_were_said_until_the_end() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let words = [
            Word::ready("0:57".parse().unwrap()),
            Word::Failed(Failed { code: 10, message: "two\nlines".to_owned(), advice: Some("create one".to_owned()) }),
            Word::End,
            Word::Bye,
        ];
        for word in &words {
            word.say(&mut here).unwrap();
        }
        drop(here);
        let mut heard = Vec::new();
        Word::hear_all(there, |word| {
            heard.push(word);
            true
        });
        assert_eq!(heard, words);
    }

    #[test]
    fn nonsense_ends_the_conversation() {
        let mut heard = 0;
        Word::hear_all(&b"{\"ready\":\"0:1\"}\nwhat?\n\"bye\"\n"[..], |_| {
            heard += 1;
            true
        });
        assert_eq!(heard, 1);
    }
}
