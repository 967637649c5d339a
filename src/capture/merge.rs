//! Walks the source and the parent point side by side, and plans what is to be done.
//!
//! Both are in the same order within a directory, so each name is looked at once: in both, it is
//! compared; in the source only, it is new; in the parent only, it is gone. A directory that both have
//! under the same name keeps its identity, a new one gets the next when it is entered, so that
//! identities of a full point follow the walk and with them the order of keys.
//!
//! Nothing is written here: see `planner.rs`, `worker.rs` and `recorder.rs` for what follows.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::change::{Change as Verdict, compare, same_entry};
use super::chunk::{Cutting, Grid, stretches};
use super::counts::Counts;
use super::directory::Directory;
use super::identities::Identities;
use super::known::Known;
use super::large::SLICE_BYTES;
use super::later::{Deferred, Grown};
use super::links::{Links, Seen};
use super::parent::{OldNames, Parent, directory_id};
use super::planner::{Halt, Planner};
use super::progress::Progress;
use super::read::{attributes_of, doubtful, read_full_at};
use super::recorder::mapped;
use super::stat::{Kind, Stat};
use super::sys;
use super::unit::{BeginJob, Change, EndJob, FailedOutcome, Job, LinkJob, ReadJob, SliceJob};
use super::walk::{Entered, Step, Walk, trouble};
use crate::base::limits;
use crate::format::entry::{Body, Entry, Meta};
use crate::format::log::Problem;
use crate::format::{FileId, Key};

/// The walk of a source beside its parent.
pub(super) struct Merge<'a> {
    walk: Walk,
    planner: Planner<'a>,
    parent: &'a Parent,
    identities: &'a Identities,
    counts: &'a Counts,
    progress: &'a Progress,
    links: Links,
    stack: Vec<Level>,
    root: Option<Arc<Directory>>,
    /// Names passed so far.
    position: u64,
}

/// A directory of the current path.
struct Level {
    id: FileId,
    key: Key,
    /// None behind the boundary.
    directory: Option<Arc<Directory>>,
    old: OldNames,
    /// Of each announced directory: whether the parent has something under its name.
    announced: VecDeque<bool>,
}

/// A name that is to be read.
struct Wanted {
    key: Key,
    old: Option<Entry>,
    inode: Option<FileId>,
    touched: bool,
}

impl<'a> Merge<'a> {
    /// Of `walk` beside `parent`.
    ///
    /// # Errors
    /// [`Halt`] when the parent cannot be read.
    pub(super) fn new(
        walk: Walk,
        planner: Planner<'a>,
        parent: &'a Parent,
        identities: &'a Identities,
        counts: &'a Counts,
        progress: &'a Progress,
    ) -> Result<Merge<'a>, Halt> {
        let links = Links::new(parent.inodes()?);
        Ok(Merge {
            walk,
            planner,
            parent,
            identities,
            counts,
            progress,
            links,
            stack: Vec::new(),
            root: None,
            position: 0,
        })
    }

    /// Walks to the end.
    ///
    /// # Errors
    /// [`Halt`].
    pub(super) fn run(mut self) -> Result<(), Halt> {
        self.walk_all()?;
        self.come_back()
    }

    /// Walks to the end, without what is left for later.
    ///
    /// # Errors
    /// [`Halt`].
    pub(super) fn walk_all(&mut self) -> Result<(), Halt> {
        while let Some(step) = self.walk.step()? {
            self.planner.check()?;
            match step {
                Step::Enter(entered) => self.enter(entered)?,
                Step::Name(name, stat) => self.name(&name, stat)?,
                Step::Announce(name) => {
                    let old = self.old_entry(&name)?.is_some();
                    if let Some(level) = self.stack.last_mut() {
                        level.announced.push_back(old);
                    }
                }
                Step::Failed(name, problem) => {
                    let old = self.old_entry(&name)?;
                    self.lost(&name, old, problem)?;
                }
                Step::Listed => self.gone_below(None)?,
                Step::Lost(name, problem) => {
                    let (_, old) = self.announced_entry(&name)?;
                    self.lost(&name, old, problem)?;
                }
                Step::Leave => drop(self.stack.pop()),
                Step::Halted(error) => return Err(error.into()),
            }
        }
        self.unclaimed_inodes()
    }

    /// Comes back to what could not be captured where the walk met it, until nothing is left. Each round reads
    /// or gives up at least one name of every inode that waits.
    ///
    /// # Errors
    /// [`Halt`].
    pub(super) fn come_back(&mut self) -> Result<(), Halt> {
        loop {
            let deferred = self.planner.settle()?;
            if deferred.is_empty() {
                return Ok(());
            }
            let mut read = HashSet::new();
            for deferred in deferred {
                match deferred {
                    Deferred::File(grown) => {
                        let Grown { path, stat, key, old } = *grown;
                        self.again(&path, stat, Wanted { key, old, inode: None, touched: false })?;
                    }
                    Deferred::Link(link) => {
                        if read.insert(link.inode) {
                            // What the parent had of the inode has been taken back already.
                            self.counts.add_bytes(&link.stat);
                            let (key, inode) = (Key::inode(link.inode), Some(link.inode));
                            self.again(&link.path, link.stat, Wanted { key, old: None, inode, touched: false })?;
                        }
                        self.planner.add(Job::Link(*link))?;
                    }
                }
            }
        }
    }

    /// Reads the file at `path`, which was counted as `stat`, wherever the walk is.
    fn again(&mut self, path: &[u8], stat: Stat, wanted: Wanted) -> Result<(), Halt> {
        self.position += 1;
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default()),
            None => (&b""[..], path),
        };
        let Some(root) = &self.root else { return Ok(()) };
        let names = above.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        let opened = names
            .map(|name| name.to_vec())
            .try_fold(Arc::clone(root), |directory, name| directory.open(&name).map(Arc::new));
        match opened {
            Ok(directory) => {
                let fresh = directory.stat_of(name, sys::Ask::Filesystem).ok().filter(|fresh| {
                    fresh.kind == Kind::File && (wanted.inode.is_none() || fresh.identity == stat.identity)
                });
                if let Some(fresh) = fresh {
                    self.counts.resize(stat.meta.size, fresh.meta.size);
                }
                self.plan(&directory, name, fresh.unwrap_or(stat), wanted, true)
            }
            Err(error) => {
                let change = Change { key: wanted.key, old: wanted.old, new: None };
                let problem = trouble(path.to_vec(), &error)?;
                let (counted, inode) = (Some(stat), wanted.inode);
                self.planner.add(Job::Failed(FailedOutcome { change, problem, counted, inode }))
            }
        }
    }

    /// The key of `name` in the directory that is being listed.
    fn key(&self, name: &[u8]) -> Key {
        self.stack.last().map_or_else(Key::root, |level| Key::entry(level.id, name))
    }

    /// What the parent has under `name`; what it has before that is gone.
    fn old_entry(&mut self, name: &[u8]) -> Result<Option<Entry>, Halt> {
        let key = self.key(name);
        self.gone_below(Some(&key))?;
        let Some(level) = self.stack.last_mut() else { return Ok(None) };
        Ok(level.old.next_at(&key)?)
    }

    /// What the parent has under the next announced name, and its key.
    fn announced_entry(&mut self, name: &[u8]) -> Result<(Key, Option<Entry>), Halt> {
        let key = self.key(name);
        let had = match self.stack.last_mut() {
            Some(level) => level.announced.pop_front().unwrap_or(false),
            // The root.
            None => true,
        };
        let old = if had { self.parent.get(&key)? } else { None };
        Ok((key, old))
    }

    /// Removes the parent's entries of this directory before `bound`, or all that are left.
    fn gone_below(&mut self, bound: Option<&Key>) -> Result<(), Halt> {
        while let Some(level) = self.stack.last_mut() {
            let Some((key, old)) = level.old.next_below(bound)? else { break };
            self.remove(key, old)?;
        }
        Ok(())
    }

    fn remove(&mut self, key: Key, old: Entry) -> Result<(), Halt> {
        if let Some(directory) = directory_id(&old) {
            self.remove_below(directory)?;
        }
        self.planner.add(Job::Change(Change { key, old: Some(old), new: None }))
    }

    /// Removes all that the parent has below `directory`. Memory follows the depth.
    fn remove_below(&mut self, directory: FileId) -> Result<(), Halt> {
        let mut path = vec![self.parent.names(directory)?];
        while let Some(names) = path.last_mut() {
            match names.next_below(None)? {
                None => drop(path.pop()),
                Some((key, old)) => {
                    if let Some(directory) = directory_id(&old) {
                        path.push(self.parent.names(directory)?);
                    }
                    self.planner.add(Job::Change(Change { key, old: Some(old), new: None }))?;
                }
            }
        }
        Ok(())
    }

    /// Something that is there and cannot be captured: what the parent has of it does not stand in for it.
    fn lost(&mut self, name: &[u8], old: Option<Entry>, problem: Problem) -> Result<(), Halt> {
        let key = self.key(name);
        if let Some(directory) = old.as_ref().and_then(directory_id) {
            self.remove_below(directory)?;
        }
        let change = Change { key, old, new: None };
        self.planner.add(Job::Failed(FailedOutcome { change, problem, counted: None, inode: None }))
    }

    /// Inode records of the parent to which no name leads any more.
    fn unclaimed_inodes(&mut self) -> Result<(), Halt> {
        for item in self.parent.inode_records()? {
            let (key, file, old) = item?;
            if !self.links.is_claimed(file) {
                self.planner.add(Job::Change(Change { key, old: Some(old), new: None }))?;
            }
        }
        Ok(())
    }

    fn enter(&mut self, entered: Entered) -> Result<(), Halt> {
        let Entered { name, stat, open } = entered;
        if let Err(barrier) = &open {
            self.counts.bar(self.path_of(&name), *barrier);
        }
        let open = open.ok();
        if self.stack.is_empty() {
            self.root.clone_from(&open);
        }
        let (key, old) = self.announced_entry(&name)?;
        let above = self.stack.last().map_or_else(Key::root, |level| level.key.clone());
        let id = match old.as_ref().and_then(directory_id) {
            Some(id) => id,
            None if self.stack.is_empty() => FileId::ROOT,
            None => self.identities.fresh(),
        };
        let names = match old.as_ref().and_then(directory_id) {
            Some(id) => self.parent.names(id)?,
            None => OldNames::none(),
        };
        self.counts.add_name(Kind::Directory);
        if let Some(open) = &open {
            self.progress.at(open.path());
        }
        let verdict = old.as_ref().map(|old| compare(old, self.parent.started, &stat));
        if verdict != Some(Verdict::Unchanged) {
            let (xattrs, problem) = match &open {
                Some(open) => attributes_of(open.fd(), || open.path().to_vec()),
                None => (Vec::new(), None),
            };
            let mut meta = stat.meta;
            if let Some(problem) = problem {
                meta = doubtful(meta);
                self.planner.add(Job::Problem(problem))?;
            }
            let new = Entry { meta, xattrs, body: Body::Directory { id, parent: above } };
            if old.as_ref().is_none_or(|old| !same_entry(old, &new)) {
                self.planner.add(Job::Change(Change { key: key.clone(), old, new: Some(new) }))?;
            }
        }
        self.stack.push(Level { id, key, directory: open, old: names, announced: VecDeque::new() });
        Ok(())
    }

    fn name(&mut self, name: &[u8], stat: Stat) -> Result<(), Halt> {
        self.position += 1;
        let key = self.key(name);
        let old = self.old_entry(name)?;
        if let Some(directory) = old.as_ref().and_then(directory_id) {
            self.remove_below(directory)?;
        }
        self.counts.add_name(stat.kind);
        if stat.has_links() {
            return self.linked(name, stat, key, old);
        }
        self.counts.add_bytes(&stat);
        match old.as_ref().map(|old| compare(old, self.parent.started, &stat)) {
            Some(Verdict::Unchanged) => {
                self.progress.add_files(1, stat.meta.size);
                Ok(())
            }
            verdict => {
                let touched = verdict == Some(Verdict::Touched);
                self.read(name, stat, Wanted { key, old, inode: None, touched })
            }
        }
    }

    /// One of several names of an inode.
    fn linked(&mut self, name: &[u8], stat: Stat, key: Key, old: Option<Entry>) -> Result<(), Halt> {
        let (file, read) = match self.links.see(&stat, self.identities) {
            Seen::Again { file, read } => (file, read),
            Seen::First { file, in_parent } => {
                self.counts.add_bytes(&stat);
                let record_key = Key::inode(file);
                let record = if in_parent { self.parent.get(&record_key)? } else { None };
                let verdict = record.as_ref().map(|record| compare(record, self.parent.started, &stat));
                let read = verdict != Some(Verdict::Unchanged);
                self.links.remember(&stat, file, read);
                if read {
                    let touched = verdict == Some(Verdict::Touched);
                    self.read(name, stat, Wanted { key: record_key, old: record, inode: Some(file), touched })?;
                } else {
                    self.progress.add_files(0, stat.meta.size);
                }
                (file, read)
            }
        };
        self.progress.add_files(1, 0);
        let new = Entry { meta: Meta::default(), xattrs: Vec::new(), body: Body::Link(file) };
        if !read && old.as_ref() == Some(&new) {
            return Ok(());
        }
        let path = self.path_of(name);
        let change = Change { key, old, new: Some(new) };
        self.planner.add(Job::Link(LinkJob { change, inode: file, stat, path }))
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let directory = self.stack.last().and_then(|level| level.directory.as_ref());
        directory.map_or_else(|| name.to_vec(), |directory| directory.path_of(name))
    }

    fn read(&mut self, name: &[u8], stat: Stat, wanted: Wanted) -> Result<(), Halt> {
        let Some(directory) = self.stack.last().and_then(|level| level.directory.clone()) else { return Ok(()) };
        let bytes = if is_large(&stat) { 0 } else { stat.meta.size };
        self.progress.add_files(u64::from(wanted.inode.is_none()), bytes);
        self.plan(&directory, name, stat, wanted, false)
    }

    /// Plans the reading of `name`; `again` when the walk has come back to it.
    fn plan(
        &mut self,
        directory: &Arc<Directory>,
        name: &[u8],
        stat: Stat,
        wanted: Wanted,
        again: bool,
    ) -> Result<(), Halt> {
        if is_large(&stat) {
            return self.large(directory, name, stat, wanted);
        }
        let Wanted { key, old, inode, touched } = wanted;
        self.planner.add(Job::Read(Box::new(ReadJob {
            directory: Arc::clone(directory),
            name: name.to_vec(),
            position: self.position,
            stat,
            key,
            old,
            inode,
            touched,
            again,
        })))
    }

    /// A file too large to be read whole: opened here, so that its slices are of one inode.
    fn large(&mut self, directory: &Arc<Directory>, name: &[u8], listed: Stat, wanted: Wanted) -> Result<(), Halt> {
        let path = directory.path_of(name);
        let Wanted { key, old, inode, touched } = wanted;
        let opened = directory.open_file(name).and_then(|(file, stat)| {
            let other = inode.is_some() && stat.identity != listed.identity;
            if other { Err(io::Error::from_raw_os_error(libc::ESTALE)) } else { Ok((file, stat)) }
        });
        let (file, mut stat) = match opened {
            Ok((file, stat)) => (Arc::new(file), stat),
            Err(error) => {
                let change = Change { key, old, new: None };
                let problem = trouble(path, &error)?;
                return self.planner.add(Job::Failed(FailedOutcome { change, problem, counted: Some(listed), inode }));
            }
        };
        sys::will_read_on(&file);
        self.counts.resize(listed.meta.size, stat.meta.size);
        let (xattrs, unread) = attributes_of(&*file, || path.clone());
        if let Some(problem) = unread {
            stat.meta = doubtful(stat.meta);
            self.planner.add(Job::Problem(problem))?;
        }
        let kept = old.as_ref().and_then(mapped);
        let grid = (Cutting::of(stat.meta.size) == Cutting::Fixed).then_some(Grid::FILE);
        let begin = BeginJob { map: kept.unwrap_or_else(|| self.identities.fresh()), grid, mapped: kept.is_some() };
        self.planner.send_alone(vec![Job::Begin(begin)], 0)?;
        let failed =
            if grid.is_some() { self.fixed_slices(&file, &stat, begin)? } else { self.cut_slices(&file, &stat)? };
        let failed = failed.map(|error| trouble(path.clone(), &error)).transpose()?;
        let (file, only_content) = (Some(file), false);
        let end = EndJob { key, old, file, stat, xattrs, path, failed, inode, touched, only_content };
        self.planner.send_alone(vec![Job::End(Box::new(end))], 0)
    }

    /// Reads a file and cuts it by content; why it could not be read to its end, if so.
    fn cut_slices(&mut self, file: &File, stat: &Stat) -> Result<Option<io::Error>, Halt> {
        let mut slicer = self.planner.slicer();
        for stretch in stretches(file, 0..stat.meta.size) {
            let stretch = match stretch {
                Ok(stretch) => stretch,
                Err(error) => return Ok(Some(error)),
            };
            let most = stretch.end - stretch.start;
            let ran = slicer.run(
                stretch.start,
                most,
                |at, space| read_full_at(file, space, at),
                |data, cuts| self.slice(SliceJob::Cut { data, cuts }),
            )?;
            if ran.failed.is_some() {
                return Ok(ran.failed);
            }
            if ran.bytes < most {
                break;
            }
        }
        let (data, cuts) = slicer.finish();
        self.slice(SliceJob::Cut { data, cuts })?;
        Ok(None)
    }

    /// Leaves a file that is updated in place to the workers, part by part, each with what the parent has there.
    fn fixed_slices(&mut self, file: &Arc<File>, stat: &Stat, begin: BeginJob) -> Result<Option<io::Error>, Halt> {
        let part_bytes = SLICE_BYTES as u64;
        let mut known = Known::of(&self.parent.maps, begin)?;
        let mut at = 0;
        while at < stat.meta.size {
            // Parts without any data are skipped at once: a sparse image may be terabytes of nothing.
            match sys::seek_data(file, at) {
                Ok(Some(data)) if data < stat.meta.size => at = at.max(data / part_bytes * part_bytes),
                Ok(_) => break,
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) => return Ok(Some(error)),
            }
            let part = at..(at + part_bytes).min(stat.meta.size);
            at = part.end;
            let known = known.within(&part)?;
            self.slice(SliceJob::Fixed { file: Arc::clone(file), part, known, grid: Grid::FILE })?;
        }
        Ok(None)
    }

    fn slice(&mut self, slice: SliceJob) -> Result<(), Halt> {
        let bytes = match &slice {
            SliceJob::Cut { data, .. } => data.len(),
            SliceJob::Fixed { part, .. } => usize::try_from(part.end - part.start).unwrap_or(usize::MAX),
            SliceJob::Kept(_) => 0,
        };
        self.progress.add_files(0, bytes as u64);
        self.planner.send_alone(vec![Job::Slice(slice)], bytes)
    }
}

/// Whether a file is too large to be read whole.
fn is_large(stat: &Stat) -> bool {
    stat.kind == Kind::File && stat.meta.size > limits::WHOLE_FILE_BYTES_MAX
}
