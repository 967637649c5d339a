//! Metadata of an open inode: owner, extended attributes, permissions, times, in the order that lasts.
//!
//! The owner comes first, because changing it clears set-id bits and capabilities. Extended attributes
//! come before the permissions, which may forbid to set them; the group's permissions are an ACL's mask
//! and say the same as the ACL does. Times come last: they are the mark of a file that is complete.

use std::io;
use std::sync::atomic::Ordering;

use super::options::Policy;
use super::outcome::{Report, count};
use super::sys::{self, Handle, Stat};
use crate::format::entry::{Body, Entry, Xattr};

/// Capabilities lend rights as set-id bits do.
const CAPABILITY: &[u8] = b"security.capability";

/// Gives an inode of its own the metadata of `entry`. What cannot be set is noted; the rest is set.
pub(super) fn set(of: Handle<'_>, entry: &Entry, policy: &Policy, report: &Report<'_>, path: &[u8]) {
    let permissions = set_all_but_last(of, entry, policy, report, path);
    set_last(of, permissions, entry, report, path);
}

/// Sets what comes before permissions and times; the permissions that are due, of which a symbolic link has none.
fn set_all_but_last(of: Handle<'_>, entry: &Entry, policy: &Policy, report: &Report<'_>, path: &[u8]) -> Option<u32> {
    let meta = &entry.meta;
    let mut owned = policy.keeps_owner(meta);
    if policy.owner {
        if let Err(error) = sys::chown(of, meta.uid, meta.gid) {
            owned = false;
            report.refused(path, "set the owner", error);
        }
    } else if !owned {
        count(&report.left_owners);
    }
    let dropped = set_xattrs(of, entry, policy, owned, report, path);
    if matches!(entry.body, Body::Symlink(_)) {
        return None;
    }
    let directory = matches!(entry.body, Body::Directory { .. });
    let permissions = policy.permissions(meta, directory, owned);
    if dropped || permissions != u32::from(meta.permissions) {
        count(&report.left_set_ids);
    }
    Some(permissions)
}

/// Sets permissions, if there are any, and times.
fn set_last(of: Handle<'_>, permissions: Option<u32>, entry: &Entry, report: &Report<'_>, path: &[u8]) {
    if let Some(permissions) = permissions
        && let Err(error) = sys::chmod(of, permissions)
    {
        report.refused(path, "set the permissions", error);
    }
    if let Err(error) = sys::set_times(of, entry.meta.atime, entry.meta.mtime) {
        report.refused(path, "set the times", error);
    }
}

/// A directory out of which something has yet to be removed: its owner may write to it until [`Open::close`].
#[derive(Debug)]
#[must_use = "it stays writable until it is closed"]
pub(super) struct Open<'a> {
    directory: Handle<'a>,
    entry: &'a Entry,
    permissions: Option<u32>,
}

/// As [`set`], of the target itself, but leaves it open.
pub(super) fn set_open<'a>(directory: Handle<'a>, entry: &'a Entry, policy: &Policy, report: &Report<'_>) -> Open<'a> {
    let permissions = set_all_but_last(directory, entry, policy, report, b"");
    // Should the end of the restore be cut off, everything else is as it must be already.
    set_last(directory, permissions.map(|permissions| permissions | 0o700), entry, report, b"");
    Open { directory, entry, permissions }
}

impl Open<'_> {
    /// Sets what is left.
    pub(super) fn close(self, report: &Report<'_>) {
        set_last(self.directory, self.permissions, self.entry, report, b"");
    }
}

/// Whether `stat` shows an inode as [`set`] leaves it, as far as `stat` can show; its content is another matter.
pub(super) fn are_set(stat: &Stat, entry: &Entry, policy: &Policy) -> bool {
    let meta = &entry.meta;
    let kind = kind(&entry.body).0;
    let owned = policy.keeps_owner(meta);
    let permissions = policy.permissions(meta, kind == libc::S_IFDIR, owned);
    is_of_kind(stat, &entry.body)
        && (kind == libc::S_IFLNK || stat.mode & 0o7777 == permissions)
        && (!policy.owner || (stat.uid, stat.gid) == (meta.uid, meta.gid))
        && stat.mtime == meta.mtime
        && (kind != libc::S_IFREG || stat.size == meta.size)
}

/// Whether `stat` shows an inode of this kind; of a device, the same one.
pub(super) fn is_of_kind(stat: &Stat, body: &Body) -> bool {
    let (kind, node) = kind(body);
    stat.kind() == kind && node.is_none_or(|node| node == stat.node)
}

fn kind(body: &Body) -> (u32, Option<(u32, u32)>) {
    match body {
        Body::Directory { .. } => (libc::S_IFDIR, None),
        Body::File(_) | Body::Link(_) => (libc::S_IFREG, None),
        Body::Symlink(_) => (libc::S_IFLNK, None),
        Body::BlockDevice(major, minor) => (libc::S_IFBLK, Some((*major, *minor))),
        Body::CharDevice(major, minor) => (libc::S_IFCHR, Some((*major, *minor))),
        Body::Fifo => (libc::S_IFIFO, None),
        Body::Socket => (libc::S_IFSOCK, None),
    }
}

/// Gives an inode exactly the attributes of `entry`, as far as the caller may; whether capabilities were dropped.
fn set_xattrs(of: Handle<'_>, entry: &Entry, policy: &Policy, owned: bool, report: &Report<'_>, path: &[u8]) -> bool {
    // A directory with a default ACL hands it down to what is made in it.
    for name in present(of).split(|byte| *byte == 0).filter(|name| is_ours(name)) {
        if !entry.xattrs.iter().any(|xattr| xattr.name == name)
            && let Err(error) = sys::c_string(name).and_then(|name| sys::remove_attribute(of, &name))
            && error.raw_os_error() != Some(libc::ENODATA)
        {
            report.refused(path, "remove an inherited attribute", error);
        }
    }
    let mut dropped = false;
    for xattr in &entry.xattrs {
        if xattr.name == CAPABILITY && !(policy.set_id && owned) {
            dropped = true;
        } else if is_system(&xattr.name) && !policy.system_attributes {
            report.left_attributes.fetch_add(1, Ordering::Relaxed);
        } else if let Err(error) = set_xattr(of, xattr) {
            let name = String::from_utf8_lossy(&xattr.name).into_owned();
            let error = io::Error::new(error.kind(), format!("{name}: {error}"));
            report.refused(path, "set an extended attribute", error);
        }
    }
    dropped
}

fn set_xattr(of: Handle<'_>, xattr: &Xattr) -> io::Result<()> {
    let name = sys::c_string(&xattr.name)?;
    match sys::set_attribute(of, &name, &xattr.value) {
        // Some attributes cannot be set again to what they are.
        Err(error) => match sys::attribute(of, &name) {
            Ok(value) if value == xattr.value => Ok(()),
            _ => Err(error),
        },
        Ok(()) => Ok(()),
    }
}

/// The names of the attributes that are there; none where the filesystem has none.
fn present(of: Handle<'_>) -> Vec<u8> {
    sys::list_attributes(of).unwrap_or_default()
}

/// Whether an attribute that the point does not have is removed. Security labels are the system's to set.
pub(super) fn is_ours(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_")
}

/// Whether only the system's administrator may set it.
fn is_system(name: &[u8]) -> bool {
    name.starts_with(b"security.") || name.starts_with(b"trusted.")
}
