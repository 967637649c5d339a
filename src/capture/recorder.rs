//! Takes results in traversal order and writes them down: frames into packs, names, pages and usage
//! into the trees.
//!
//! One thread does this, so packs are filled in the order in which a tree is read back, and the same
//! source gives the same trees. Edits are gathered into batches, because a leaf that takes a hundred
//! edits at once is copied once.
//!
//! Invariants: usage changes by exactly the references that entries and pages gain and lose; a name of
//! a hard-linked inode is kept only while the inode's record is.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;

use super::change::same_entry;
use super::claims::Claims;
use super::content::{OldPages, OpenContent, PageSink, map_extent};
use super::counts::{Counts, Problems};
use super::error::CaptureError;
use super::identities::Identities;
use super::later::{Deferred, Grown, Later};
use super::progress::Progress;
use super::read;
use super::stat::{Kind, Stat};
use super::unit::{
    BeginJob, Change, Done, EndJob, FailedOutcome, LinkJob, NewFrame, Outcome, Piece, Place, ReadJob, ReadOutcome,
    frame_of,
};
use super::walk::trouble;
use crate::base::limits;
use crate::format::entry::{Body, Content, Entry, Extent};
use crate::format::frame::{self, FrameKind};
use crate::format::leaf::{Entries, Maps, Usage};
use crate::format::log::{Problem, ProblemKind, Roots, Stats};
use crate::format::map::{MapExtent, MapPage};
use crate::format::{ChunkRef, FileId, FrameRef, Key, problems};
use crate::repo::tree::{Delta, Edit, Tree, TreeWriter};
use crate::repo::{Dedup, RepoError, Session};

/// Edits that are gathered before a tree takes them.
const BATCH: usize = 2048;
/// Frames whose usage is gathered before the tree takes it.
const USAGE_BATCH: usize = 16384;

/// What all of a capture's results amount to.
#[derive(Debug)]
pub(super) struct Recorded {
    /// The trees.
    pub(super) roots: Option<Roots>,
    /// Whether anything differs from the parent.
    pub(super) changed: bool,
    /// What was counted; bytes stored are not known yet.
    pub(super) stats: Stats,
    /// The frame with the list of problems.
    pub(super) problems_frame: Option<FrameRef>,
    /// The problems that are listed.
    pub(super) problems: Vec<Problem>,
}

/// Writes results down.
pub(super) struct Recorder<'s> {
    session: &'s Session,
    dedup: &'s Dedup,
    claims: &'s Claims,
    counts: &'s Counts,
    progress: &'s Progress,
    identities: &'s Identities,
    parent: Option<Roots>,
    old_maps: Tree<Maps>,
    entries: TreeWriter<'s, Entries>,
    sink: Sink<'s>,
    batch: BTreeMap<Key, Option<Entry>>,
    later: &'s Later,
    /// Inodes whose record could not be read so far, and why. A path in it is the name through which it was tried.
    lost_inodes: HashMap<FileId, Problem>,
    open: Option<OpenFile>,
    problems: Problems,
    changed: bool,
    stats: Stats,
}

/// The large file under way.
struct OpenFile {
    begin: BeginJob,
    content: OpenContent,
    failed: Option<std::io::Error>,
}

/// Takes pages and references.
struct Sink<'s> {
    maps: TreeWriter<'s, Maps>,
    usage: TreeWriter<'s, Usage>,
    pages: BTreeMap<Key, Option<MapPage>>,
    deltas: BTreeMap<Key, i64>,
    changed: bool,
}

/// Removes a page and keeps it, to take back what it refers to.
struct Take<'p>(&'p RefCell<Vec<MapPage>>);

impl Edit<MapPage> for Take<'_> {
    fn edit(self, old: Option<&MapPage>) -> Result<Option<MapPage>, RepoError> {
        self.0.borrow_mut().extend(old.cloned());
        Ok(None)
    }
}

impl Sink<'_> {
    /// Takes back pages that stand already.
    fn take_back(&mut self, pages: Vec<Key>) -> Result<(), RepoError> {
        self.flush_pages()?;
        let taken = RefCell::new(Vec::new());
        for keys in pages.chunks(BATCH / 64) {
            self.maps.apply(keys.iter().map(|key| (key.clone(), Take(&taken))).collect())?;
            for page in taken.take() {
                self.count_page(&page, -1)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, chunk: &ChunkRef, by: i64) -> Result<(), RepoError> {
        let (pack, frame) = frame_of(chunk);
        *self.deltas.entry(Key::usage(pack, frame)).or_default() += by;
        if self.deltas.len() >= USAGE_BATCH { self.flush_usage() } else { Ok(()) }
    }

    fn count_extents(&mut self, extents: &[Extent], by: i64) -> Result<(), RepoError> {
        extents.iter().try_for_each(|extent| self.count(&extent.chunk, by))
    }

    fn count_page(&mut self, page: &MapPage, by: i64) -> Result<(), RepoError> {
        page.extents.iter().try_for_each(|extent| self.count(&extent.chunk, by))
    }

    fn page(&mut self, key: Key, page: Option<MapPage>) -> Result<(), RepoError> {
        self.changed = true;
        self.pages.insert(key, page);
        if self.pages.len() >= BATCH / 64 { self.flush_pages() } else { Ok(()) }
    }

    fn flush_pages(&mut self) -> Result<(), RepoError> {
        self.maps.apply(std::mem::take(&mut self.pages).into_iter().collect())
    }

    fn flush_usage(&mut self) -> Result<(), RepoError> {
        let deltas = std::mem::take(&mut self.deltas).into_iter();
        self.usage.apply(deltas.filter(|(_, by)| *by != 0).map(|(key, by)| (key, Delta(by))).collect())
    }
}

impl PageSink for Sink<'_> {
    fn put(&mut self, key: Key, old: Option<&MapPage>, new: MapPage) -> Result<(), RepoError> {
        if let Some(old) = old {
            self.count_page(old, -1)?;
        }
        self.count_page(&new, 1)?;
        self.page(key, Some(new))
    }

    fn remove(&mut self, key: Key, old: &MapPage) -> Result<(), RepoError> {
        self.count_page(old, -1)?;
        self.page(key, None)
    }
}

/// What a recorder shares with the rest of the capture.
#[derive(Clone, Copy)]
pub(super) struct Shared<'s> {
    pub(super) session: &'s Session,
    pub(super) dedup: &'s Dedup,
    pub(super) claims: &'s Claims,
    pub(super) counts: &'s Counts,
    pub(super) progress: &'s Progress,
    pub(super) identities: &'s Identities,
    pub(super) later: &'s Later,
}

impl<'s> Recorder<'s> {
    /// Writes over the trees of `parent`; none starts from nothing.
    pub(super) fn new(shared: Shared<'s>, parent: Option<Roots>) -> Recorder<'s> {
        let Shared { session, dedup, claims, counts, progress, identities, later } = shared;
        let maps = parent.and_then(|roots| roots.maps);
        Recorder {
            session,
            dedup,
            claims,
            counts,
            progress,
            identities,
            parent,
            old_maps: Tree::new(session.reader(), maps),
            entries: TreeWriter::new(session, parent.map(|roots| roots.entries)),
            sink: Sink {
                maps: TreeWriter::new(session, maps),
                usage: TreeWriter::new(session, parent.and_then(|roots| roots.usage)),
                pages: BTreeMap::new(),
                deltas: BTreeMap::new(),
                changed: false,
            },
            batch: BTreeMap::new(),
            later,
            lost_inodes: HashMap::new(),
            open: None,
            problems: Problems::default(),
            changed: false,
            stats: Stats::default(),
        }
    }

    /// Writes down what has become of the next unit.
    ///
    /// # Errors
    /// [`CaptureError`]; the capture has failed then.
    pub(super) fn record(&mut self, done: Done) -> Result<(), CaptureError> {
        self.stats.read_bytes += done.read_bytes;
        self.counts.add_changed(done.changed_bytes);
        let mut frames = Vec::with_capacity(done.frames.len());
        for NewFrame { frame, chunks } in done.frames {
            if chunks.iter().all(|chunk| self.claims.place(&chunk.hash).is_some()) {
                // Earlier units were to store the same, and this one was faster to encode it.
                frames.push(None);
                continue;
            }
            self.progress.add_stored(frame.bytes.len() as u64);
            let pointer = self.session.append(frame, &chunks)?;
            for chunk in &chunks {
                let place = ChunkRef { frame: pointer, start: chunk.start, bytes: chunk.bytes };
                self.stats.new_bytes += u64::from(chunk.bytes);
                self.dedup.insert(chunk.hash, place);
                self.claims.settle(done.number, &chunk.hash, place);
            }
            frames.push(Some(pointer));
        }
        for result in done.results {
            match result {
                Outcome::Change(change) => self.change(change)?,
                Outcome::Failed(failed) => self.failed(failed)?,
                Outcome::Problem(problem) => self.problem(problem),
                Outcome::Link(link) => self.link(link)?,
                Outcome::Read(read) => self.read(*read, &frames)?,
                Outcome::Grown(job) => self.grown(*job)?,
                Outcome::Halted(error) => return Err(error),
                Outcome::Begin(begin) => {
                    let content = OpenContent::new(begin, &self.old_maps)?;
                    self.open = Some(OpenFile { begin, content, failed: None });
                }
                Outcome::Slice(pieces, failed) => self.slice(&pieces, failed, &frames)?,
                Outcome::Kept(extents) => self.kept(extents)?,
                Outcome::End(end) => self.end(*end)?,
            }
        }
        self.claims.forget(done.number);
        Ok(())
    }

    fn problem(&mut self, problem: Problem) {
        self.progress.add_problem();
        self.problems.add(problem);
    }

    /// Where the chunk of `piece` is.
    fn resolve(&self, piece: &Piece, frames: &[Option<FrameRef>]) -> Result<ChunkRef, RepoError> {
        let place = match &piece.place {
            Place::Known(chunk) => Some(*chunk),
            Place::New(index, start) => match frames.get(*index).copied().flatten() {
                Some(frame) => Some(ChunkRef { frame, start: *start, bytes: piece.bytes }),
                None => self.claims.place(&piece.hash),
            },
            Place::Claimed => self.claims.place(&piece.hash),
        };
        place.ok_or_else(|| RepoError::Defect { what: "a chunk that another unit was to store is not there".into() })
    }

    fn edit(&mut self, key: Key, new: Option<Entry>) -> Result<(), RepoError> {
        self.changed = true;
        self.batch.insert(key, new);
        if self.batch.len() >= BATCH { self.flush_entries() } else { Ok(()) }
    }

    fn flush_entries(&mut self) -> Result<(), RepoError> {
        self.entries.apply(std::mem::take(&mut self.batch).into_iter().collect())
    }

    /// Takes back the references of an entry that goes. Pages under `kept` are taken care of elsewhere.
    fn release(&mut self, old: &Entry, kept: Option<FileId>) -> Result<(), RepoError> {
        match &old.body {
            Body::File(Content::Extents(extents)) => self.sink.count_extents(extents, -1),
            Body::File(Content::Mapped { id, .. }) if kept != Some(*id) => {
                let mut pages = OldPages::of(&self.old_maps, *id)?;
                while let Some((key, page)) = pages.next_below(None)? {
                    self.sink.remove(key, &page)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Puts `new` where `old` was. `merged` are pages that have been dealt with, under their new content.
    fn replace(&mut self, key: Key, old: Option<&Entry>, new: Entry, merged: Option<FileId>) -> Result<(), RepoError> {
        if old.is_some_and(|old| same_entry(old, &new)) {
            return Ok(());
        }
        if let Some(old) = old {
            self.release(old, merged)?;
        }
        if let Body::File(Content::Extents(extents)) = &new.body {
            self.sink.count_extents(extents, 1)?;
        }
        self.edit(key, Some(new))
    }

    fn change(&mut self, change: Change) -> Result<(), RepoError> {
        let Change { key, old, new } = change;
        match (old, new) {
            (old, Some(new)) => self.replace(key, old.as_ref(), new, None),
            (Some(old), None) => {
                self.release(&old, None)?;
                self.edit(key, None)
            }
            (None, None) => Ok(()),
        }
    }

    fn failed(&mut self, failed: FailedOutcome) -> Result<(), RepoError> {
        let FailedOutcome { change, problem, counted, inode } = failed;
        self.lost(problem, counted, inode);
        self.change(change)
    }

    /// Notes that something will be missing.
    fn lost(&mut self, problem: Problem, counted: Option<Stat>, inode: Option<FileId>) {
        if let Some(stat) = counted {
            self.counts.drop_bytes(&stat);
        }
        match inode {
            // Its names will each say so, and are dropped with their links, or lead to it after all.
            Some(inode) => drop(self.lost_inodes.insert(inode, problem)),
            None => {
                if let Some(stat) = counted {
                    self.counts.drop_name(stat.kind);
                }
                self.problem(problem);
            }
        }
    }

    fn link(&mut self, link: LinkJob) -> Result<(), RepoError> {
        let Some(lost) = self.lost_inodes.get(&link.inode) else { return self.change(link.change) };
        // Another name than the one that failed may still lead to the inode.
        if lost.path != link.path && matches!(lost.kind, ProblemKind::Vanished | ProblemKind::Changed) {
            self.later.push(Deferred::Link(Box::new(link)));
            return Ok(());
        }
        let problem = Problem { path: link.path, kind: lost.kind, detail: lost.detail.clone() };
        self.counts.drop_name(link.stat.kind);
        self.problem(problem);
        self.change(Change { new: None, ..link.change })
    }

    /// A file that must be read in slices: its turn comes at the end.
    fn grown(&mut self, job: ReadJob) -> Result<(), RepoError> {
        let path = job.directory.path_of(&job.name);
        let ReadJob { stat, key, old, inode, .. } = job;
        if inode.is_none() {
            self.later.push(Deferred::File(Box::new(Grown { path, stat, key, old })));
            return Ok(());
        }
        // No name of it has failed, so all of them wait.
        self.lost(read::changed(Vec::new()), Some(stat), inode);
        self.change(Change { key, old, new: None })
    }

    fn read(&mut self, read: ReadOutcome, frames: &[Option<FrameRef>]) -> Result<(), RepoError> {
        let ReadOutcome { job, mut entry, pieces, problem } = read;
        if let Some(inode) = job.inode {
            self.lost_inodes.remove(&inode);
        }
        if let Some(problem) = problem {
            self.problem(problem);
        }
        let mut merged = None;
        let mut differs = false;
        if !pieces.is_empty() {
            merged = job.old.as_ref().and_then(mapped);
            let map = match merged {
                Some(id) => id,
                // A small file has more extents than an entry holds only if holes cut it to pieces.
                None if pieces.len() > limits::ENTRY_EXTENTS_MAX => self.identities.fresh(),
                None => FileId::TOP,
            };
            let begin = BeginJob { map, grid: None, mapped: merged.is_some() };
            let mut content = OpenContent::new(begin, &self.old_maps)?;
            for piece in &pieces {
                let chunk = self.resolve(piece, frames)?;
                content.push(map_extent(piece.offset, chunk, &piece.hash), &mut self.sink)?;
            }
            let gathered = content.finish(&mut self.sink)?;
            differs = gathered.differs;
            entry.body = Body::File(gathered.content);
        }
        self.count_file(job.old.as_ref(), &entry, &job.stat, job.touched && !differs);
        self.replace(job.key, job.old.as_ref(), entry, merged)
    }

    /// Counts a file that was read; `same` unless something tells that its content differs.
    fn count_file(&mut self, old: Option<&Entry>, new: &Entry, listed: &Stat, same: bool) {
        if let Body::File(content) = &new.body {
            let before = |old: &Entry| matches!(&old.body, Body::File(before) if before == content);
            self.stats.changed_files += u64::from(!(same && old.is_some_and(before)));
            if listed.kind == Kind::File {
                self.counts.resize(listed.meta.size, new.meta.size);
            }
        }
    }

    fn slice(
        &mut self,
        pieces: &[Piece],
        failed: Option<std::io::Error>,
        frames: &[Option<FrameRef>],
    ) -> Result<(), RepoError> {
        let Some(mut open) = self.open.take() else {
            return Err(RepoError::Defect { what: "a slice of no file".into() });
        };
        for piece in pieces {
            let chunk = self.resolve(piece, frames)?;
            open.content.push(map_extent(piece.offset, chunk, &piece.hash), &mut self.sink)?;
        }
        open.failed = open.failed.or(failed);
        self.open = Some(open);
        Ok(())
    }

    fn kept(&mut self, extents: Vec<MapExtent>) -> Result<(), RepoError> {
        let Some(open) = &mut self.open else {
            return Err(RepoError::Defect { what: "a slice of no file".into() });
        };
        extents.into_iter().try_for_each(|extent| open.content.push(extent, &mut self.sink))
    }

    fn end(&mut self, end: EndJob) -> Result<(), CaptureError> {
        let Some(open) = self.open.take() else {
            return Err(RepoError::Defect { what: "the end of no file".into() }.into());
        };
        let EndJob { key, old, file, stat, xattrs, path, failed, inode, touched, only_content } = end;
        let covered = open.content.end();
        let merged = open.begin.mapped.then_some(open.begin.map);
        let after = file.as_ref().map(|file| Stat::of(file.as_fd())).transpose();
        let error = open.failed.as_ref().or(after.as_ref().err());
        let failed = match (failed, error) {
            (None, Some(error)) => Some(trouble(path.clone(), error)?),
            (failed, _) => failed,
        };
        let gathered = open.content.finish(&mut self.sink)?;
        if let Some(problem) = failed {
            self.sink.take_back(gathered.pages)?;
            self.lost(problem, Some(stat), inode);
            let Some(old) = old else { return Ok(()) };
            self.release(&old, merged)?;
            return Ok(self.edit(key, None)?);
        }
        if let Some(inode) = inode {
            self.lost_inodes.remove(&inode);
        }
        if only_content && !gathered.differs && old.as_ref().is_some_and(|old| old.meta.size == stat.meta.size) {
            return Ok(());
        }
        let mut meta = stat.meta;
        if let Ok(Some(after)) = after
            && !stat.same_content(&after)
        {
            meta.size = meta.size.min(after.meta.size).max(covered);
            meta = read::doubtful(meta);
            self.problem(read::changed(path));
        }
        let entry = Entry { meta, xattrs, body: Body::File(gathered.content) };
        self.count_file(old.as_ref(), &entry, &stat, touched && !gathered.differs);
        Ok(self.replace(key, old.as_ref(), entry, merged)?)
    }

    /// Writes the trees; nothing is recorded afterwards.
    ///
    /// # Errors
    /// [`RepoError`]; the capture has failed then.
    pub(super) fn finish(mut self) -> Result<Recorded, RepoError> {
        self.session.data_complete();
        self.flush_entries()?;
        self.sink.flush_pages()?;
        self.sink.flush_usage()?;
        let changed = self.changed || self.sink.changed;
        let listed = self.problems.listed();
        let problems_frame = if listed.is_empty() {
            None
        } else {
            let frame = frame::encode(FrameKind::Problems, &problems::encode(listed), 0);
            Some(self.session.append(frame, &[])?)
        };
        let entries = self.entries.finish()?;
        let (maps, usage) = (self.sink.maps.finish()?, self.sink.usage.finish()?);
        let roots = match self.parent.filter(|_| !changed) {
            Some(parent) => Some(parent),
            None => entries.map(|entries| Roots { entries, maps, usage }),
        };
        let stats = Stats {
            problems: self.problems.count(),
            changed_files: self.stats.changed_files,
            read_bytes: self.stats.read_bytes,
            new_bytes: self.stats.new_bytes,
            ..self.counts.stats()
        };
        Ok(Recorded { roots, changed, stats, problems_frame, problems: self.problems.into_listed() })
    }
}

/// Under which identity the parent keeps pages of a file.
pub(super) fn mapped(entry: &Entry) -> Option<FileId> {
    match &entry.body {
        Body::File(Content::Mapped { id, .. }) => Some(*id),
        _ => None,
    }
}
