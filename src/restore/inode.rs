//! Makes one inode of a point, complete with its metadata, under a name that nobody has.
//!
//! It is neither synchronised nor given its own name here: what that takes depends on whether something stands there.
//!
//! Crash behaviour: whatever is left under the name is the caller's to remove, also after an error.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use super::attributes;
use super::content::Contents;
use super::directory::{Directory, Name};
use super::options::Policy;
use super::sys::Handle;
use super::write::{Stop, contradiction, refused};
use crate::format::entry::Body;
use crate::view::Inode;

/// An inode that is complete.
pub(super) struct Made<'a> {
    /// The file, if it is one.
    pub(super) file: Option<File>,
    /// What counts those of its kind; it is not counted yet.
    pub(super) counter: &'a AtomicU64,
}

impl<'a> Contents<'a> {
    /// Makes `inode` under `name`; `path` is what problems with its metadata are told of.
    pub(super) fn make(
        &self,
        directory: &Directory,
        name: &Name,
        inode: &Inode,
        path: &[u8],
        policy: &Policy,
    ) -> Result<Made<'a>, Stop> {
        let report = self.report;
        let set = |of: Handle<'_>| attributes::set(of, inode.entry(), policy, report, path);
        let node = |kind, device| {
            let made = directory.new_node(name, kind, device).map_err(refused("create the special file"))?;
            set(Handle::Path(made.as_fd()));
            Ok::<_, Stop>(Made { file: None, counter: &report.specials })
        };
        let made = match &inode.entry().body {
            Body::File(content) => {
                let file = directory.new_file(name).map_err(refused("create the file"))?;
                let bytes = self.write(inode, content, &file)?;
                report.bytes.fetch_add(bytes, Ordering::Relaxed);
                set(Handle::Open(file.as_fd()));
                Made { file: Some(file), counter: &report.files }
            }
            Body::Symlink(target) => {
                let made = directory.new_symlink(name, target).map_err(refused("create the symbolic link"))?;
                set(Handle::Path(made.as_fd()));
                Made { file: None, counter: &report.symlinks }
            }
            Body::BlockDevice(major, minor) => node(libc::S_IFBLK, (*major, *minor))?,
            Body::CharDevice(major, minor) => node(libc::S_IFCHR, (*major, *minor))?,
            Body::Fifo => node(libc::S_IFIFO, (0, 0))?,
            Body::Socket => node(libc::S_IFSOCK, (0, 0))?,
            Body::Directory { .. } | Body::Link(_) => return Err(contradiction("it has the kind of a name")),
        };
        if report.is_halted() { Err(Stop::Halted) } else { Ok(made) }
    }
}
