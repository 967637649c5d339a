//! One name of a tree that is rolled back, which is no directory in either point.
//!
//! What has other content is made under a temporary name, complete with its metadata, and renamed over what
//! is there; what has the same content gets its metadata in place. A name is therefore as it was before or as
//! it shall be, and only its metadata may be on the way between.
//!
//! What the source has under the name must be what the safety point has: its inode and its time of change tell, and
//! its content where that time is no proof. If it is not, there is no copy of it, so it is left alone and told. That is
//! asked again just before it is replaced. A resumed rollback meets its own work as well, which it knows by looks and
//! proves by reading.
//!
//! Content is on disk before its name leads to it, so that no power failure leaves an empty file.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::attributes;
use super::super::compare::{Unequal, compare_content};
use super::super::directory::{Directory, Identity, Name};
use super::super::outcome::count;
use super::super::sys::{self, Handle, Stat};
use super::super::write::{Stop, contradiction, refused};
use super::tree::{UNKNOWN, Walk};
use crate::base::{Class, hex};
use crate::capture::RACY;
use crate::format::entry::{Body, Content, Entry};
use crate::format::{ChunkRef, FileId};
use crate::view::namespace::ViewError;
use crate::view::{Inode, PointView};

/// The inode that a hard-linked file has got.
#[derive(Debug)]
pub(super) struct Made {
    identity: Identity,
    /// Where one of its names is.
    directory: Vec<u8>,
    name: Name,
}

/// What a name needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    Metadata,
    Content,
}

/// Whether all metadata is equal that somebody has set; when something was read last is nobody's work.
pub(super) fn same_metadata(a: &Entry, b: &Entry) -> bool {
    (a.meta.permissions, a.meta.uid, a.meta.gid, a.meta.mtime)
        == (b.meta.permissions, b.meta.uid, b.meta.gid, b.meta.mtime)
        && a.xattrs == b.xattrs
}

/// Whether the inode has, or had, several names.
fn is_linked(inode: &Inode) -> bool {
    matches!(inode.key().split(), Ok((FileId::HARDLINKS, _)))
}

/// Whether this is the inode that the entry was made of, with its size and time of last change.
fn is_inode_of(stat: &Stat, entry: &Entry) -> bool {
    stat.identity.1 == entry.meta.inode && looks_like(stat, entry)
}

/// Whether an inode looks like this entry: in kind, size and last change of content.
fn looks_like(stat: &Stat, entry: &Entry) -> bool {
    attributes::is_of_kind(stat, &entry.body)
        && stat.mtime == entry.meta.mtime
        && (stat.kind() != libc::S_IFREG || stat.size == entry.meta.size)
}

/// A name next to `name` that nobody else uses, and that a resumed rollback finds again.
fn temporary(name: &Name) -> Option<Name> {
    let hash = blake3::hash(name.bytes());
    let short = hex::encode(hash.as_bytes().get(..8).unwrap_or_default());
    Name::new(format!(".amberfs-{short}").as_bytes())
}

impl Walk<'_> {
    /// Makes `name` what it shall be: `then`, or nothing. The path leads to it already.
    pub(super) fn file(&mut self, name: &[u8], now: Option<&Inode>, then: Option<&Inode>) {
        let Some(name) = Name::new(name) else { return };
        let done = match then {
            Some(then) => self.becomes(&name, now, then),
            None => self.goes(&name, now),
        };
        match done {
            Ok(()) => self.report.reached(),
            Err(Stop::Fault(error)) => self.report.fault(&self.path, "cannot read the content", &error),
            Err(Stop::Refused(action, error)) => self.report.refused(&self.path, action, error),
            Err(Stop::InTheWay) => {
                let what = "left as it is, because the safety point has no copy of what it is now; --force rolls it \
                            back, too";
                self.report.problem(&self.path, Class::Conflict, what.to_owned());
            }
            Err(Stop::Halted) => {}
        }
        self.report.progress.add_file();
    }

    fn goes(&mut self, name: &Name, now: Option<&Inode>) -> Result<(), Stop> {
        if self.is_doubted() && !self.how.force {
            self.report.problem(&self.path, Class::Conflict, UNKNOWN.to_owned());
            return Ok(());
        }
        let Some(here) = self.here() else {
            self.removed += 1;
            return Ok(());
        };
        let Some(stat) = here.stat(name).map_err(refused("look at"))? else { return Ok(()) };
        if stat.is_dir() || (!self.how.force && self.has_no_copy(&here, name, &stat, now, None)?) {
            return Err(Stop::InTheWay);
        }
        self.touch();
        here.unlink(name).map_err(refused("remove"))?;
        self.removed += 1;
        Ok(())
    }

    fn becomes(&mut self, name: &Name, now: Option<&Inode>, then: &Inode) -> Result<(), Stop> {
        let mut need = match now {
            Some(now) => self.need(now, then)?,
            None => Need::Content,
        };
        let linked = is_linked(then) || now.is_some_and(is_linked);
        if need == Need::Nothing && !linked {
            // Only its directory's metadata may be unfinished.
            return Ok(());
        }
        let Some(here) = self.here() else {
            self.expect(need, then);
            return Ok(());
        };
        if self.how.resumed
            && let Some(temporary) = temporary(name)
        {
            // What a killed run has left, if anything.
            drop(here.unlink(&temporary));
        }
        let stat = here.stat(name).map_err(refused("look at"))?;
        match &stat {
            None => need = Need::Content,
            Some(stat) if stat.is_dir() => return Err(Stop::InTheWay),
            Some(stat) => {
                if self.has_no_copy(&here, name, stat, now, Some(then))? {
                    if !self.how.force {
                        return Err(Stop::InTheWay);
                    }
                    need = Need::Content;
                }
                need = self.need_of(need, stat, now, then, &here, name)?;
            }
        }
        if is_linked(then)
            && let Some(made) = self.made.get(then.key())
        {
            if stat.is_some_and(|stat| stat.identity == made.identity) {
                return Ok(());
            }
            match self.link(&here, name, then, stat.as_ref()) {
                Err(Stop::Refused(_, error)) if super::super::links::cannot_link(&error) => {
                    let what =
                        format!("a file of its own now, because it cannot be linked to its other names: {error}");
                    self.report.problem(&self.path, Class::Unsupported, what);
                }
                other => return other,
            }
            need = Need::Content;
        }
        // An inode that another name has got cannot be this one's as well.
        if stat.is_some_and(|stat| stat.links > 1 && self.taken.contains(&stat.identity)) {
            need = Need::Content;
        }
        match need {
            Need::Nothing => {}
            Need::Metadata => self.set_in_place(&here, name, then, stat.as_ref())?,
            Need::Content => self.replace(&here, name, then, stat.as_ref())?,
        }
        if linked && let Some(stat) = here.stat(name).map_err(refused("look at"))? {
            self.taken.insert(stat.identity);
            if is_linked(then) {
                let directory = self.path.rsplitn(2, |byte| *byte == b'/').nth(1).unwrap_or_default().to_vec();
                let made = Made { identity: stat.identity, directory, name: name.clone() };
                self.made.entry(then.key().clone()).or_insert(made);
            }
        }
        Ok(())
    }

    /// What would be done, for who only asks.
    fn expect(&mut self, need: Need, then: &Inode) {
        match need {
            Need::Nothing => {}
            Need::Metadata => self.metadata += 1,
            Need::Content => {
                count(match then.entry().body {
                    Body::Symlink(_) => &self.report.symlinks,
                    Body::File(_) => &self.report.files,
                    _ => &self.report.specials,
                });
                self.report.bytes.fetch_add(then.entry().data_bytes(), Ordering::Relaxed);
            }
        }
    }

    /// What turns `now` into `then`, by the two points alone.
    fn need(&self, now: &Inode, then: &Inode) -> Result<Need, Stop> {
        let (a, b) = (now.entry(), then.entry());
        let same = match (&a.body, &b.body) {
            (Body::File(old), Body::File(new)) => {
                a.meta.size == b.meta.size && self.same_content((now, old), (then, new))?
            }
            // What is like it in kind has nothing more.
            (old, new) => old == new,
        };
        // An attribute that only the system may remove goes with its inode.
        let stays = |name: &[u8]| !attributes::is_ours(name) && !b.xattrs.iter().any(|xattr| xattr.name == name);
        if !same || a.xattrs.iter().any(|xattr| stays(&xattr.name)) {
            return Ok(Need::Content);
        }
        Ok(if same_metadata(a, b) { Need::Nothing } else { Need::Metadata })
    }

    /// Whether both points have the content at the same places; if not, it may still be the same.
    fn same_content(&self, now: (&Inode, &Content), then: (&Inode, &Content)) -> Result<bool, Stop> {
        match (now.1, then.1) {
            (Content::Mapped { data_bytes: old, .. }, Content::Mapped { data_bytes: new, .. }) => {
                Ok(old == new && places(self.now, now.0)? == places(self.then, then.0)?)
            }
            (old, new) => Ok(old == new),
        }
    }

    /// As [`Walk::need`], with what the source has under the name.
    fn need_of(
        &self,
        need: Need,
        stat: &Stat,
        now: Option<&Inode>,
        then: &Inode,
        here: &Directory,
        name: &Name,
    ) -> Result<Need, Stop> {
        let untouched = now.filter(|now| stat.ctime == now.entry().meta.ctime);
        let looks = looks_like(stat, then.entry());
        if need != Need::Content
            || !((self.how.resumed && looks && untouched.is_none()) || self.is_same_size(stat, now, then))
        {
            return Ok(need);
        }
        let equal =
            attributes::is_of_kind(stat, &then.entry().body) && self.is_content_of(self.then, then, here, name)?;
        let is_set = match untouched {
            Some(now) => same_metadata(now.entry(), then.entry()),
            None => looks && attributes::are_set(stat, then.entry(), &self.how.policy),
        };
        Ok(match (equal, is_set) {
            (false, _) => Need::Content,
            (true, true) => Need::Nothing,
            (true, false) => Need::Metadata,
        })
    }

    /// Whether only reading can tell if the content differs: the same content may be stored at two places.
    fn is_same_size(&self, stat: &Stat, now: Option<&Inode>, then: &Inode) -> bool {
        attributes::is_of_kind(stat, &then.entry().body)
            && stat.size == then.entry().meta.size
            && now.is_some_and(|now| now.entry().xattrs == then.entry().xattrs)
    }

    fn is_equal(&self, view: &PointView, inode: &Inode, content: &Content, file: &File) -> Result<bool, Stop> {
        match compare_content(view, self.report, inode, content, file) {
            Ok(()) => Ok(true),
            Err(Unequal::Content(_)) => Ok(false),
            Err(Unequal::Repository(error)) => Err(Stop::Fault(error)),
            // It became shorter.
            Err(Unequal::Target(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
            Err(Unequal::Target(error)) => Err(Stop::Refused("read", error)),
            Err(Unequal::Halted) => Err(Stop::Halted),
        }
    }

    /// Whether no point has what the source has under a name now: it came there, or changed, after the safety point by
    /// somebody else's hand, or could not be captured.
    fn has_no_copy(
        &self,
        here: &Directory,
        name: &Name,
        stat: &Stat,
        now: Option<&Inode>,
        then: Option<&Inode>,
    ) -> Result<bool, Stop> {
        if self.how.copies.has(&self.path) {
            return Ok(true);
        }
        if self.taken.contains(&stat.identity) {
            return Ok(false);
        }
        if let Some(now) = now.filter(|now| is_inode_of(stat, now.entry())) {
            let meta = &now.entry().meta;
            if stat.ctime == meta.ctime && meta.ctime < self.how.started.minus(RACY).file_time() {
                return Ok(false);
            }
            // Names of the same inode change its time when they come and go, and that we do ourselves.
            let may_be_ours = stat.ctime == meta.ctime || self.how.resumed || is_linked(now);
            if may_be_ours && self.is_content_of(self.now, now, here, name)? {
                return Ok(false);
            }
        }
        match then.filter(|then| self.how.resumed && looks_like(stat, then.entry())) {
            Some(then) => Ok(!self.is_content_of(self.then, then, here, name)?),
            None => Ok(true),
        }
    }

    /// Whether what is under the name has the content of this inode of a point, by reading it.
    fn is_content_of(&self, view: &PointView, inode: &Inode, here: &Directory, name: &Name) -> Result<bool, Stop> {
        match &inode.entry().body {
            Body::File(content) => {
                let (file, _) = here.open_file(name).map_err(refused("read"))?;
                self.is_equal(view, inode, content, &file)
            }
            Body::Symlink(target) => Ok(here.read_link(name).map_err(refused("read"))? == *target),
            // The rest has no more than its kind.
            _ => Ok(true),
        }
    }

    fn set_in_place(
        &mut self,
        here: &Arc<Directory>,
        name: &Name,
        then: &Inode,
        looked_at: Option<&Stat>,
    ) -> Result<(), Stop> {
        let entry = then.entry();
        let is_same = |opened: &Stat| looked_at.is_some_and(|looked_at| looked_at.identity == opened.identity);
        self.write_to(here);
        match &entry.body {
            Body::File(_) => {
                let (file, opened) = here.open_file(name).map_err(refused("open"))?;
                if !is_same(&opened) {
                    return Err(Stop::InTheWay);
                }
                attributes::set(Handle::Open(file.as_fd()), entry, &self.how.policy, self.report, &self.path);
            }
            _ => {
                let inode = here.open_inode(name).map_err(refused("open"))?;
                if !is_same(&sys::stat_fd(inode.as_fd()).map_err(refused("look at"))?) {
                    return Err(Stop::InTheWay);
                }
                attributes::set(Handle::Path(inode.as_fd()), entry, &self.how.policy, self.report, &self.path);
            }
        }
        self.metadata += 1;
        Ok(())
    }

    fn replace(&mut self, here: &Directory, name: &Name, then: &Inode, over: Option<&Stat>) -> Result<(), Stop> {
        self.touch();
        let temporary = temporary_or_stop(name)?;
        let settled = self.make(here, &temporary, then).and_then(|()| self.settle(here, &temporary, name, over));
        if settled.is_err() {
            // Nothing may have been made at all.
            drop(here.unlink(&temporary));
        }
        settled
    }

    /// Gives what is complete its name, if that is still free, or still that of what was looked at.
    fn settle(&self, here: &Directory, temporary: &Name, name: &Name, over: Option<&Stat>) -> Result<(), Stop> {
        let Some(over) = over else {
            return here.rename_new(temporary, name).map_err(|error| match error.kind() {
                std::io::ErrorKind::AlreadyExists => Stop::InTheWay,
                _ => Stop::Refused("put in place", error),
            });
        };
        let is = here.stat(name).map_err(refused("look at"))?;
        let is_as_it_was = is.is_none_or(|is| is.identity == over.identity && is.ctime == over.ctime);
        if !is_as_it_was && !self.how.force {
            return Err(Stop::InTheWay);
        }
        here.rename_over(temporary, name).map_err(refused("put in place"))
    }

    /// Makes the inode of `then`, complete, under `temporary`, with its content on disk.
    fn make(&self, here: &Directory, temporary: &Name, then: &Inode) -> Result<(), Stop> {
        let made = self.contents.make(here, temporary, then, &self.path, &self.how.policy)?;
        if let (Some(file), Body::File(content)) = (made.file, &then.entry().body) {
            if !matches!(content, Content::Hole) {
                file.sync_data().map_err(refused("synchronise"))?;
            }
            if self.how.verify {
                self.verify(here, temporary, then, content)?;
            }
        }
        count(made.counter);
        Ok(())
    }

    /// Reads a file back before it takes the place of another.
    fn verify(&self, here: &Directory, temporary: &Name, then: &Inode, content: &Content) -> Result<(), Stop> {
        let (file, _) = here.open_file(temporary).map_err(refused("read back"))?;
        if !self.is_equal(self.then, then, content, &file)? {
            let differs = std::io::Error::other("it differs from what was written");
            return Err(Stop::Refused("trust what was read back", differs));
        }
        count(&self.report.verified);
        Ok(())
    }

    /// Makes `name` another name of the inode that its hard link has got.
    fn link(&mut self, here: &Directory, name: &Name, then: &Inode, over: Option<&Stat>) -> Result<(), Stop> {
        self.touch();
        let Some(made) = self.made.get(then.key()) else { return Err(contradiction("a hard link without an inode")) };
        let temporary = temporary_or_stop(name)?;
        drop(here.unlink(&temporary));
        let from = self.find(&made.directory).map_err(refused("find the other name of"))?;
        from.link(&made.name, here, &temporary).map_err(refused("link"))?;
        let is_made = here.stat(&temporary).map_err(refused("look at"))?;
        let settled = if is_made.is_some_and(|is_made| is_made.identity == made.identity) {
            self.settle(here, &temporary, name, over)
        } else {
            Err(Stop::InTheWay)
        };
        // Still there if it failed, or if both were names of the same inode.
        drop(here.unlink(&temporary));
        settled?;
        count(&self.report.links);
        Ok(())
    }
}

fn temporary_or_stop(name: &Name) -> Result<Name, Stop> {
    let none = || Stop::Refused("name a temporary file", std::io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    temporary(name).ok_or_else(none)
}

/// Where the parts of a file's content are, as one hash.
fn places(view: &PointView, inode: &Inode) -> Result<blake3::Hash, ViewError> {
    let mut hasher = blake3::Hasher::new();
    view.each_chunk::<ViewError>(inode, |at, chunk| {
        let ChunkRef { frame, start, bytes } = chunk;
        hasher.update(format!("{at} {frame:?} {start} {bytes}\n").as_bytes());
        Ok(true)
    })?;
    Ok(hasher.finalize())
}
