//! `amberfs ls`: what a directory held at a moment, without a mount.

use std::io::Write;

use serde::Serialize;

use super::context::{Context, Opened};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, printable};
use crate::base::{Class, Classed, FileTime, hex};
use crate::format::entry::Body;
use crate::job::protocol::{Message, Problem, class_word};
use crate::view::namespace::{FileKind, ViewError};
use crate::view::{Inode, PointView, Selector};

/// List a directory as it was captured
#[derive(Debug, clap::Args)]
pub struct LsArgs {
    /// What to list: SOURCE[@TIME|%LABEL|#ID|~N][:PATH]
    #[arg(value_name = "SELECTOR")]
    selector: std::ffi::OsString,
    /// With mode, links, owner, group, size and time
    #[arg(short, long)]
    long: bool,
    /// Also what lies below, each with its path
    #[arg(short = 'R', long)]
    recursive: bool,
}

/// An entry, as `ls --json` prints it.
#[derive(Serialize)]
struct Listed {
    message_type: &'static str,
    /// From the source's root; bytes that are not UTF-8 are replaced.
    path: String,
    /// The path's bytes in hexadecimal, where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    permissions: String,
    uid: u32,
    gid: u32,
    size: u64,
    links: u32,
    mtime: String,
    ctime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
}

/// What `-l` shows of a file of which only the name is known.
const UNKNOWN: &[u8] = b"??????????   ?     ?     ?            ? ?                   ";

/// Directories that are listed one in another; no real tree is deeper.
const DEPTH_MAX: usize = 4096;

/// Runs it.
///
/// # Errors
/// When there is no such path, or it cannot be read.
pub fn run(args: &LsArgs, context: &Context) -> Result<Exit, Failure> {
    let selector = Selector::parse(args.selector.as_encoded_bytes())?;
    let opened = context.open()?;
    list(args, context, &opened, &selector).map_err(|failure| opened.explained(failure))
}

fn list(args: &LsArgs, context: &Context, opened: &Opened, selector: &Selector) -> Result<Exit, Failure> {
    let (record, point) = opened.resolve(selector)?;
    let view = PointView::new(&opened.repo, record.id, &point.commit.roots);
    let names = selector.names()?;
    let path = names.join(&b'/');
    let top = view
        .walk(names.iter().copied())
        .map_err(|error| reading(format!("{}@{}:{}", record.name, point.name(), printable(&path)), error))?;
    let mut listing = Listing { view: &view, args, json: context.global.json, out: Output::open(), end: Exit::Done };
    if top.kind() == FileKind::Directory {
        listing.directory(&top, &path)?;
    } else {
        let name = names.last().copied().unwrap_or_default();
        listing.entry(&path, name, &top)?;
    }
    listing.out.close()?;
    Ok(listing.end)
}

/// A failure to read `what` in a point: a path that is not there is no damage.
pub fn reading(what: impl std::fmt::Display, error: ViewError) -> Failure {
    Failure::new(error.class(), format!("{what}: {error}"))
}

struct Listing<'a> {
    view: &'a PointView,
    args: &'a LsArgs,
    json: bool,
    out: Output,
    end: Exit,
}

impl Listing<'_> {
    /// The entries of `dir`, and below each directory, if asked for, its own: depth first, as `find` does.
    fn directory(&mut self, dir: &Inode, path: &[u8]) -> Result<(), Failure> {
        // One place in each directory on the way: memory follows the depth, not the tree.
        let mut open = vec![(dir.clone(), path.to_vec(), 0)];
        while let Some((dir, path, skip)) = open.pop() {
            let fault = |error| reading(format!("list {:?}", printable(&path)), error);
            let view = self.view;
            for item in view.list(&dir, skip).map_err(fault)? {
                let item = item.map_err(fault)?;
                let below = if path.is_empty() { item.name.clone() } else { [&path, &b"/"[..], &item.name].concat() };
                let inode = match item.inode {
                    Ok(inode) => inode,
                    Err(error) if error.class() == Class::Corrupt => {
                        self.damaged(&below, &item.name, &error)?;
                        continue;
                    }
                    Err(error) => return Err(reading(printable(&below), error)),
                };
                self.entry(&below, &item.name, &inode)?;
                if self.args.recursive && inode.kind() == FileKind::Directory {
                    if open.len() >= DEPTH_MAX {
                        let what = format!("{}: directories lead in circles", printable(&below));
                        return Err(Failure::new(Class::Corrupt, what));
                    }
                    open.push((dir.clone(), path.clone(), item.next));
                    open.push((inode, below, 0));
                    break;
                }
            }
        }
        Ok(())
    }

    /// A name whose inode is damaged: the name all the same, and on standard error why nothing is known of it.
    fn damaged(&mut self, path: &[u8], name: &[u8], error: &ViewError) -> Result<(), Failure> {
        let failure = Failure::new(error.class(), format!("{}: {error}", printable(path)));
        self.end = failure.exit();
        if self.json {
            let problem = Problem {
                path: String::from_utf8_lossy(path).into_owned(),
                kind: class_word(error.class()).to_owned(),
                detail: error.to_string(),
                touches: Vec::new(),
            };
            self.out.line(Message::Problem(problem).to_line())?;
        } else {
            if self.args.long {
                self.out.bytes(UNKNOWN)?;
            }
            self.out.name(if self.args.recursive { path } else { name })?;
            self.out.bytes(b"\n")?;
        }
        // Nobody is left to tell if that fails; the exit code says it, too.
        drop(writeln!(std::io::stderr(), "{failure}"));
        Ok(())
    }

    fn entry(&mut self, path: &[u8], name: &[u8], inode: &Inode) -> Result<(), Failure> {
        if self.json {
            return self.out.json(&listed(path, inode));
        }
        if self.args.long {
            let meta = &inode.entry().meta;
            let size = match inode.entry().body {
                Body::BlockDevice(major, minor) | Body::CharDevice(major, minor) => format!("{major}, {minor}"),
                _ => meta.size.to_string(),
            };
            let mode = mode(inode.kind(), meta.permissions);
            let time = time(meta.mtime);
            let time = time.get(..19).unwrap_or(&time).replace('T', " ");
            self.out.bytes(
                format!("{mode} {:>3} {:>5} {:>5} {size:>12} {time} ", meta.links, meta.uid, meta.gid).as_bytes(),
            )?;
        }
        self.out.name(if self.args.recursive { path } else { name })?;
        if let (true, Body::Symlink(target)) = (self.args.long, &inode.entry().body) {
            self.out.bytes(b" -> ")?;
            self.out.name(target)?;
        }
        self.out.bytes(b"\n")
    }
}

fn listed(path: &[u8], inode: &Inode) -> Listed {
    let entry = inode.entry();
    let text = String::from_utf8_lossy(path);
    Listed {
        message_type: "entry",
        path_hex: matches!(text, std::borrow::Cow::Owned(_)).then(|| hex::encode(path)),
        path: text.into_owned(),
        kind: kind(inode.kind()).0,
        permissions: format!("{:04o}", entry.meta.permissions),
        uid: entry.meta.uid,
        gid: entry.meta.gid,
        size: entry.meta.size,
        links: entry.meta.links,
        mtime: time(entry.meta.mtime),
        ctime: time(entry.meta.ctime),
        target: match &entry.body {
            Body::Symlink(target) => Some(String::from_utf8_lossy(target).into_owned()),
            _ => None,
        },
        device: match entry.body {
            Body::BlockDevice(major, minor) | Body::CharDevice(major, minor) => Some((major, minor)),
            _ => None,
        },
    }
}

/// A kind as a word, and as the letter that `ls -l` begins with.
fn kind(kind: FileKind) -> (&'static str, char) {
    match kind {
        FileKind::Directory => ("directory", 'd'),
        FileKind::Regular => ("file", '-'),
        FileKind::Symlink => ("symlink", 'l'),
        FileKind::BlockDevice => ("block-device", 'b'),
        FileKind::CharDevice => ("char-device", 'c'),
        FileKind::Fifo => ("fifo", 'p'),
        FileKind::Socket => ("socket", 's'),
    }
}

/// `drwxr-xr-t`, as `ls -l` shows it.
fn mode(file: FileKind, permissions: u16) -> String {
    let mut text = String::from(kind(file).1);
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = permissions >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, permissions & special != 0) {
            (true, true) => set,
            (false, true) => unset,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// A file's time in UTC; seconds since 1970 where the calendar ends.
fn time(time: FileTime) -> String {
    let nanos = i32::try_from(time.nanos).unwrap_or(0);
    match jiff::Timestamp::new(time.seconds, nanos) {
        Ok(timestamp) => timestamp.to_string(),
        Err(_) => format!("@{}.{:09}", time.seconds, time.nanos),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_as_in_ls() {
        for (file, permissions, text) in [
            (FileKind::Regular, 0o644, "-rw-r--r--"),
            (FileKind::Directory, 0o1777, "drwxrwxrwt"),
            (FileKind::Regular, 0o4755, "-rwsr-xr-x"),
            (FileKind::Regular, 0o6644, "-rwSr-Sr--"),
            (FileKind::Directory, 0o1770, "drwxrwx--T"),
            (FileKind::Symlink, 0o777, "lrwxrwxrwx"),
        ] {
            assert_eq!(mode(file, permissions), text);
        }
    }

    #[test]
    fn times_beyond_the_calendar_are_seconds() {
        assert_eq!(time(FileTime { seconds: 0, nanos: 5 }), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(time(FileTime { seconds: -1, nanos: 500_000_000 }), "1969-12-31T23:59:59.5Z");
        assert_eq!(time(FileTime { seconds: i64::MAX, nanos: 0 }), format!("@{}.000000000", i64::MAX));
    }
}
