//! The directories of a mount: every source with its points, labels, chains and times.
//!
//! Everything here is computed from the logs' states when it is asked for. A state is refreshed when
//! it is older than the refresh interval and somebody looks, never in the background; when the store
//! does not answer, what is known goes on being shown. Node ids of generated things name their
//! content (a link's target, a file's version), so that the kernel may cache them by id.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::base::{Class, Classed, FileTime, Instant};
use crate::chain::name::{check_label, check_source, parse_point};
use crate::chain::state::LogState;
use crate::chain::{ChainError, Point, RepoLog, SourceLog, SourceState};
use crate::format::log::SourceRecord;
use crate::format::object::LogId;
use crate::format::{ChainId, EntryOrdinal, PointId, SourceId};
use crate::repo::Repo;
use crate::view::disk::{LastMap, Shown};
use crate::view::info;
use crate::view::inode::Inode;
use crate::view::loss;
use crate::view::moment::Moment;
use crate::view::namespace::{Attr, DirEntry, FileKind, Found, Namespace, NodeId, SeekTo, ViewError, WrongKind};
use crate::view::nodes::Nodes;
use crate::view::paths::Paths;
use crate::view::point::PointView;
use crate::view::selector::Pick;

use self::disks::OfDisk;
use self::fresh::Fresh;
use self::names::{chain_name, link_target};

mod beside;
mod disks;
mod fresh;
mod located;
mod logs;
mod names;

/// How a mount shows a repository.
#[derive(Debug, Clone)]
pub struct MountSettings {
    /// Owner of everything generated; of contents too with `own_all`.
    pub owner: (u32, u32),
    /// Show every file as owned by `owner`.
    pub own_all: bool,
    /// How old a log's state may be when it is shown.
    pub refresh: Duration,
    /// The zone of dates without one. It is asked for when there is one to read: to find it takes milliseconds.
    pub zone: fn() -> jiff::tz::TimeZone,
    /// Whether to spare later readers of a log what had to be read of it, by a checkpoint.
    pub sum_up: bool,
}

/// A node that no point holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Generated {
    Source(SourceId),
    Points(SourceId),
    Labels(SourceId),
    Chains(SourceId),
    Chain(SourceId, ChainId),
    Times(SourceId),
    /// A link to a point, from so many directories below the source's.
    Link(SourceId, PointId, u8),
    /// `info.json` as of an instant of the log: its entries counted.
    Info(SourceId, u64),
}

/// What a mount shows of a repository.
#[derive(Debug)]
pub struct MountView {
    repo: Arc<Repo>,
    sources: RepoLog,
    settings: MountSettings,
    nodes: Nodes<Generated>,
    paths: Paths,
    open: Mutex<Open>,
    fresh: Fresh,
    last_map: Arc<LastMap>,
}

#[derive(Debug, Default)]
struct Open {
    /// When the repository log was last asked.
    asked: Option<Instant>,
    logs: HashMap<SourceId, (Arc<SourceLog>, Option<Instant>)>,
    /// The newest `info.json` of each source, by the count of log entries it tells of.
    info: HashMap<SourceId, (u64, Bytes)>,
    /// Logs that could not be refreshed when they were last asked: since when, and why.
    failing: HashMap<LogId, (Instant, String)>,
}

const DIRECTORIES: [&str; 4] = ["points", "labels", "chains", "at"];

fn chain_fault(error: ChainError) -> ViewError {
    ViewError::fault("read a log", error)
}

impl MountView {
    /// Shows `repo`; reads its log once.
    ///
    /// # Errors
    /// [`ChainError`] when the repository log cannot be read.
    pub fn open(repo: Arc<Repo>, settings: MountSettings) -> Result<MountView, ChainError> {
        let sources = RepoLog::open(repo.store().clone(), repo.env().clone(), repo.realm());
        MountView::with_log(repo, sources, settings)
    }

    /// The same, by way of `sources`, the repository's log.
    ///
    /// # Errors
    /// As [`MountView::open`].
    pub fn with_log(repo: Arc<Repo>, sources: RepoLog, settings: MountSettings) -> Result<MountView, ChainError> {
        sources.load()?;
        let open = Mutex::new(Open { asked: Some(repo.env().now()), ..Open::default() });
        Ok(MountView {
            repo,
            sources,
            settings,
            nodes: Nodes::new(),
            paths: Paths::new(),
            open,
            fresh: Fresh::default(),
            last_map: Arc::default(),
        })
    }

    /// The repository.
    pub fn repo(&self) -> &Arc<Repo> {
        &self.repo
    }

    fn record(&self, source: SourceId) -> Result<SourceRecord, ViewError> {
        let state = self.repo_state()?;
        state.by_id(source).filter(|record| !record.removed).cloned().ok_or(ViewError::NotFound)
    }

    fn point(&self, source: SourceId, point: PointId) -> Result<Arc<Point>, ViewError> {
        self.source_state(source)?.point(point).cloned().ok_or(ViewError::NotFound)
    }

    fn point_view(&self, source: SourceId, point: &Point) -> PointView {
        PointView::new(&self.repo, source, &point.commit.roots)
    }

    /// A file of a point as a node.
    fn found(&self, source: SourceId, point: PointId, inode: &Inode) -> Result<Found, ViewError> {
        let mut attr = inode.attr(self.node(source, point, inode.ordinal())?);
        if self.settings.own_all {
            (attr.uid, attr.gid) = self.settings.owner;
        }
        Ok(Found { attr, immutable: true })
    }

    /// The node of an entry of a point.
    fn node(&self, source: SourceId, point: PointId, entry: EntryOrdinal) -> Result<NodeId, ViewError> {
        let node = self.nodes.content((source, point, entry));
        node.ok_or_else(|| ViewError::Invalid("this point has more entries than a mount can number".to_owned()))
    }

    /// The file that a node of content stands for.
    fn content(&self, node: NodeId) -> Result<(SourceId, PointId, PointView, Inode), ViewError> {
        let (source, point, ordinal) = self.nodes.place(node).ok_or(ViewError::NotFound)?;
        let view = self.point_view(source, &*self.known_point(source, point)?);
        let inode = view.inode(ordinal).map_err(|error| self.located(error, source, point))?;
        Ok((source, point, view, inode))
    }

    /// A point of a node that the kernel holds: no question to the store while it is known.
    fn known_point(&self, source: SourceId, point: PointId) -> Result<Arc<Point>, ViewError> {
        let known = self.source_log(source).load().map_err(chain_fault)?;
        match known.point(point) {
            Some(point) => Ok(Arc::clone(point)),
            None => self.point(source, point),
        }
    }

    fn directory(&self, node: NodeId, changed: Instant) -> Found {
        let time = changed.file_time();
        self.generated_attr(node, FileKind::Directory, 0o755, 0, 2, time)
    }

    fn generated_attr(
        &self,
        node: NodeId,
        kind: FileKind,
        permissions: u16,
        size: u64,
        links: u32,
        time: FileTime,
    ) -> Found {
        let (uid, gid) = self.settings.owner;
        let attr = Attr {
            node,
            kind,
            permissions,
            uid,
            gid,
            size,
            blocks: size.div_ceil(512),
            links,
            device: (0, 0),
            mtime: time,
            atime: time,
            ctime: time,
        };
        Found { attr, immutable: false }
    }

    /// When a source last changed: its newest commit, or the repository's birth.
    fn changed(&self, state: &SourceState) -> Instant {
        state.newest().map_or(self.repo.marker().created, |point| point.committed)
    }

    fn link(&self, source: SourceId, point: &Point, depth: u8) -> Found {
        let node = self.nodes.generated(&Generated::Link(source, point.id, depth));
        let size = link_target(point.name(), depth).len() as u64;
        self.generated_attr(node, FileKind::Symlink, 0o777, size, 1, point.committed.file_time())
    }

    fn info_text(&self, record: &SourceRecord, state: &SourceState) -> Bytes {
        let version = state.read().number.0;
        if let Some((kept, text)) = self.open.lock().info.get(&record.id)
            && *kept == version
        {
            return text.clone();
        }
        let text = Bytes::from(info::render(record, state));
        self.open.lock().info.insert(record.id, (version, text.clone()));
        text
    }

    /// What a version of `info.json` tells of. An older one is gone: who asks for it looks the name up again, and must
    /// not find another's bytes under its node.
    fn info_of(&self, source: SourceId, version: u64) -> Result<(SourceRecord, Arc<SourceState>), ViewError> {
        let state = self.source_state(source)?;
        if state.read().number.0 == version { Ok((self.record(source)?, state)) } else { Err(ViewError::NotFound) }
    }

    fn info(&self, record: &SourceRecord, state: &SourceState) -> Found {
        let node = self.nodes.generated(&Generated::Info(record.id, state.read().number.0));
        let size = self.info_text(record, state).len() as u64;
        self.generated_attr(node, FileKind::Regular, 0o444, size, 1, self.changed(state).file_time())
    }

    fn generated_found(&self, node: NodeId) -> Result<Found, ViewError> {
        if node == NodeId::ROOT {
            return Ok(self.directory(node, self.repo.marker().created));
        }
        let thing = self.nodes.thing(node).ok_or(ViewError::NotFound)?;
        match thing {
            Generated::Source(source)
            | Generated::Points(source)
            | Generated::Labels(source)
            | Generated::Chains(source)
            | Generated::Times(source) => {
                self.record(source)?;
                Ok(self.directory(node, self.changed(&*self.source_state(source)?)))
            }
            Generated::Chain(source, _) => Ok(self.directory(node, self.changed(&*self.source_state(source)?))),
            Generated::Link(source, point, depth) => Ok(self.link(source, &*self.known_point(source, point)?, depth)),
            Generated::Info(source, version) => {
                let (record, state) = self.info_of(source, version)?;
                Ok(self.info(&record, &state))
            }
        }
    }

    fn source_dir(&self, source: SourceId, name: &str) -> Option<NodeId> {
        let thing = match name {
            "points" => Generated::Points(source),
            "labels" => Generated::Labels(source),
            "chains" => Generated::Chains(source),
            "at" => Generated::Times(source),
            _ => return None,
        };
        Some(self.nodes.generated(&thing))
    }

    fn lookup_generated(&self, thing: &Generated, name: &str) -> Result<Found, ViewError> {
        match thing {
            Generated::Source(source) => {
                let state = self.source_state(*source)?;
                if let Some(node) = self.source_dir(*source, name) {
                    return Ok(self.directory(node, self.changed(&state)));
                }
                match name {
                    "latest" => match state.newest() {
                        Some(newest) => self.answer(&Pick::Newest, *source, &state, newest, 0),
                        None => Err(absent(&state, *source, true)),
                    },
                    "info.json" => Ok(self.info(&self.record(*source)?, &state)),
                    _ => Err(ViewError::NotFound),
                }
            }
            Generated::Points(source) => {
                let state = self.source_state(*source)?;
                let possible = parse_point(name).is_ok();
                let point = state.by_name(name).ok_or_else(|| absent(&state, *source, possible))?;
                self.point_root(*source, point)
            }
            Generated::Labels(source) => {
                let state = self.source_state(*source)?;
                let point = state.by_label(name).ok_or_else(|| absent(&state, *source, check_label(name).is_ok()))?;
                self.answer(&Pick::Label(name.to_owned()), *source, &state, point, 1)
            }
            Generated::Chains(source) => {
                let state = self.source_state(*source)?;
                let chain = name.parse().map(ChainId).map_err(|_| ViewError::NotFound)?;
                if chain.0.to_string() != name {
                    return Err(ViewError::NotFound);
                }
                if state.chain(chain).is_none_or(|chain| chain.is_empty()) {
                    return Err(absent(&state, *source, true));
                }
                let node = self.nodes.generated(&Generated::Chain(*source, chain));
                Ok(self.directory(node, self.changed(&state)))
            }
            Generated::Chain(source, chain) => {
                let state = self.source_state(*source)?;
                let chain = state.chain(*chain).ok_or(ViewError::NotFound)?;
                let point = chain.points().find(|point| chain_name(point) == name);
                let point = point.ok_or_else(|| absent(&state, *source, true))?;
                Ok(self.link(*source, point, 2))
            }
            Generated::Times(source) => {
                let moment: Moment = name.parse().map_err(|_| ViewError::NotFound)?;
                let state = self.source_state(*source)?;
                let now = self.repo.env().now();
                let pick = Pick::At(moment);
                let point = pick.resolve(&state, now, &(self.settings.zone)());
                let point = point.map_err(|_| absent(&state, *source, true))?;
                self.answer(&pick, *source, &state, point, 1)
            }
            Generated::Link(..) | Generated::Info(..) => Err(ViewError::WrongKind(WrongKind::NotDirectory)),
        }
    }

    /// The link to the point that `pick` means, unless a lost entry may hold another.
    fn answer(
        &self,
        pick: &Pick,
        source: SourceId,
        state: &SourceState,
        point: &Point,
        depth: u8,
    ) -> Result<Found, ViewError> {
        match loss::of_answer(pick, state, source, point) {
            Some(doubt) => Err(doubt),
            None => Ok(self.link(source, point, depth)),
        }
    }

    fn point_root(&self, source: SourceId, point: &Point) -> Result<Found, ViewError> {
        let view = self.point_view(source, point);
        let root = view.root().map_err(|error| self.located(error, source, point.id))?;
        // Not for ever under this name: the point may be deleted.
        self.found(source, point.id, &root).map(|found| Found { immutable: false, ..found })
    }

    /// The items of a generated directory behind `after`: name, number and node.
    fn list_generated(
        &self,
        thing: &Generated,
        after: u64,
        take: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<(), ViewError> {
        let mut stopped = false;
        let mut give = |name: &str, next: u64, found: Found| {
            let more = take(DirEntry { name: name.as_bytes().to_vec(), next, found: Ok(found) });
            stopped |= !more;
            more
        };
        match thing {
            Generated::Source(source) => {
                let state = self.source_state(*source)?;
                let changed = self.changed(&state);
                let mut items: Vec<(&str, Found)> = Vec::new();
                for name in DIRECTORIES {
                    items.extend(self.source_dir(*source, name).map(|node| (name, self.directory(node, changed))));
                }
                items.push(("info.json", self.info(&self.record(*source)?, &state)));
                items.extend(state.newest().map(|point| ("latest", self.link(*source, point, 0))));
                for (next, (name, found)) in (1..).zip(items) {
                    if next > after && !give(name, next, found) {
                        break;
                    }
                }
            }
            Generated::Points(source) => {
                // Behind a point come those with larger numbers: stable while points come and go.
                let state = self.source_state(*source)?;
                for point in state.points().iter().filter(|point| point.id.0 > after) {
                    // A listing of ten thousand points must not read ten thousand packs: what the root of
                    // each is like is found when it is looked up, and until then nobody may remember this.
                    let node = self.nodes.content((*source, point.id, EntryOrdinal(0))).unwrap_or(NodeId::ROOT);
                    let found = self.directory(node, point.committed);
                    if !give(point.name(), point.id.0, found) {
                        break;
                    }
                }
            }
            Generated::Labels(source) => {
                let state = self.source_state(*source)?;
                // In the order in which this mount first saw them: one that comes later shifts none.
                let mut labels: Vec<_> = state
                    .labels()
                    .map(|(label, point)| (self.nodes.label(*source, label) + 1, label, point))
                    .filter(|(next, ..)| *next > after)
                    .collect();
                labels.sort_unstable_by_key(|(next, ..)| *next);
                for (next, label, point) in labels {
                    if !give(label, next, self.link(*source, point, 1)) {
                        break;
                    }
                }
            }
            Generated::Chains(source) => {
                let state = self.source_state(*source)?;
                let changed = self.changed(&state);
                // A chain that was opened and never committed to has nothing to show.
                for id in state.chains().filter(|chain| !chain.is_empty()).map(|chain| chain.id) {
                    let next = u64::from(id.0) + 1;
                    let node = self.nodes.generated(&Generated::Chain(*source, id));
                    if next > after && !give(&id.to_string(), next, self.directory(node, changed)) {
                        break;
                    }
                }
            }
            Generated::Chain(source, chain) => {
                let state = self.source_state(*source)?;
                let chain = state.chain(*chain).ok_or(ViewError::NotFound)?;
                for point in chain.points().filter(|point| u64::from(point.position) + 1 > after) {
                    if !give(&chain_name(point), u64::from(point.position) + 1, self.link(*source, point, 2)) {
                        break;
                    }
                }
            }
            // By lookup only, so that a recursive walk ends.
            Generated::Times(_) => {}
            Generated::Link(..) | Generated::Info(..) => return Err(ViewError::WrongKind(WrongKind::NotDirectory)),
        }
        match thing {
            // What is known has been listed; that it may not be all must not look like the end.
            Generated::Points(source)
            | Generated::Labels(source)
            | Generated::Chains(source)
            | Generated::Chain(source, _)
                if !stopped =>
            {
                let state = self.source_state(*source)?;
                loss::doubt(state.read(), LogId::Source(*source), |_| true).map_or(Ok(()), Err)
            }
            _ => Ok(()),
        }
    }
}

/// Why a source has no such thing: a name that it could have is in doubt while an entry of its log is lost.
fn absent(state: &SourceState, source: SourceId, possible: bool) -> ViewError {
    if possible { loss::absence(state.read(), LogId::Source(source)) } else { ViewError::NotFound }
}

impl Namespace for MountView {
    fn attr(&self, node: NodeId) -> Result<Found, ViewError> {
        if !node.is_content() {
            return self.generated_found(node);
        }
        if let Some(of) = self.shown(node)? {
            return self.shown_found(&of, of.shown);
        }
        let (source, point, _, inode) = self.content(node)?;
        self.found(source, point, &inode)
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Found, ViewError> {
        if dir == NodeId::ROOT {
            let name = std::str::from_utf8(name).map_err(|_| ViewError::NotFound)?;
            let state = self.repo_state()?;
            let record = state.by_name(name).cloned().ok_or_else(|| match check_source(name) {
                Ok(()) => loss::absence(state.tip(), LogId::Repo),
                Err(_) => ViewError::NotFound,
            })?;
            let node = self.nodes.generated(&Generated::Source(record.id));
            return self.generated_found(node);
        }
        if !dir.is_content() {
            let thing = self.nodes.thing(dir).ok_or(ViewError::NotFound)?;
            let name = std::str::from_utf8(name).map_err(|_| ViewError::NotFound)?;
            return self.lookup_generated(&thing, name);
        }
        if let Some(of) = self.shown(dir)? {
            let listed = of.disk.list(of.shown).map_err(|error| self.located(error, of.source, of.point))?;
            let found = listed.into_iter().find(|(listed, _)| listed.as_bytes() == name).ok_or(ViewError::NotFound)?;
            return self.shown_found(&of, found.1);
        }
        let (source, point, view, inode) = self.content(dir)?;
        if inode.ordinal() == EntryOrdinal(0)
            && let Some(shown) = Shown::in_root(name)
            && let Some(disk) = self.disk(source, point)?
        {
            return self.shown_found(&OfDisk { source, point, disk, shown }, shown);
        }
        let child = view.lookup(&inode, name);
        let child = child.map_err(|error| self.located_name(error, (source, point), &view, &inode, name))?;
        self.found(source, point, &child)
    }

    fn read_dir(&self, dir: NodeId, after: u64, take: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), ViewError> {
        if dir == NodeId::ROOT {
            for record in self.repo_state()?.sources().filter(|record| record.id.0 > after) {
                let node = self.nodes.generated(&Generated::Source(record.id));
                // The times of a source would cost its log: a listing of sources must not read all logs.
                let found = self.directory(node, self.repo.marker().created);
                if !take(DirEntry { name: record.name.as_bytes().to_vec(), next: record.id.0, found: Ok(found) }) {
                    return Ok(());
                }
            }
            return loss::doubt(self.repo_state()?.tip(), LogId::Repo, |_| true).map_or(Ok(()), Err);
        }
        if !dir.is_content() {
            let thing = self.nodes.thing(dir).ok_or(ViewError::NotFound)?;
            return self.list_generated(&thing, after, take);
        }
        if let Some(of) = self.shown(dir)? {
            let listed = of.disk.list(of.shown).map_err(|error| self.located(error, of.source, of.point))?;
            for (name, shown) in listed {
                let next = shown.ordinal().0;
                if next > after
                    && !take(DirEntry { name: name.into_bytes(), next, found: Ok(self.shown_found(&of, shown)?) })
                {
                    break;
                }
            }
            return Ok(());
        }
        let (source, point, view, inode) = self.content(dir)?;
        let located = |error| self.located_file(error, source, point, &view, &inode);
        for item in view.list(&inode, after).map_err(located)? {
            let item = item.map_err(located)?;
            let found = match item.inode {
                Ok(inode) => Ok(self.found(source, point, &inode)?),
                // Damage stays, and hides no other name. What may be had later must not be kept as if it never could.
                Err(error) if error.class() == Class::Corrupt => Err(self.node(source, point, item.ordinal)?),
                Err(error) => return Err(located(error)),
            };
            if !take(DirEntry { name: item.name, next: item.next, found }) {
                return Ok(());
            }
        }
        if inode.ordinal() == EntryOrdinal(0)
            && let Some(disk) = self.disk(source, point)?
        {
            let of = OfDisk { source, point, disk, shown: Shown::Partitions };
            for (name, shown) in Shown::ROOT {
                let next = shown.ordinal().0;
                if next > after
                    && !take(DirEntry { name: name.into(), next, found: Ok(self.shown_listed(&of, shown)?) })
                {
                    break;
                }
            }
        }
        Ok(())
    }

    fn parent(&self, dir: NodeId) -> Result<NodeId, ViewError> {
        if dir == NodeId::ROOT {
            return Ok(dir);
        }
        if !dir.is_content() {
            return match self.nodes.thing(dir).ok_or(ViewError::NotFound)? {
                Generated::Source(_) => Ok(NodeId::ROOT),
                Generated::Points(source)
                | Generated::Labels(source)
                | Generated::Chains(source)
                | Generated::Times(source) => Ok(self.nodes.generated(&Generated::Source(source))),
                Generated::Chain(source, _) => Ok(self.nodes.generated(&Generated::Chains(source))),
                Generated::Link(..) | Generated::Info(..) => Err(ViewError::WrongKind(WrongKind::NotDirectory)),
            };
        }
        if let Some(of) = self.shown(dir)? {
            let root = of.disk.root().map_err(|error| self.located(error, of.source, of.point))?;
            return Ok(self.found(of.source, of.point, &root)?.attr.node);
        }
        let (source, point, view, inode) = self.content(dir)?;
        let located = |error| self.located_file(error, source, point, &view, &inode);
        let parent = view.parent(&inode).map_err(located)?;
        if parent.ordinal() == inode.ordinal() {
            return Ok(self.nodes.generated(&Generated::Points(source)));
        }
        Ok(self.found(source, point, &parent)?.attr.node)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>, ViewError> {
        if !node.is_content() {
            return match self.nodes.thing(node) {
                Some(Generated::Link(source, point, depth)) => {
                    Ok(link_target(self.known_point(source, point)?.name(), depth).into_bytes())
                }
                Some(_) => Err(ViewError::WrongKind(WrongKind::NotSymlink)),
                None => Err(ViewError::NotFound),
            };
        }
        if self.shown(node)?.is_some() {
            return Err(ViewError::WrongKind(WrongKind::NotSymlink));
        }
        let (_, _, _, inode) = self.content(node)?;
        match &inode.entry().body {
            crate::format::entry::Body::Symlink(target) => Ok(target.clone()),
            _ => Err(ViewError::WrongKind(WrongKind::NotSymlink)),
        }
    }

    fn read(&self, node: NodeId, offset: u64, bytes: usize) -> Result<Bytes, ViewError> {
        if !node.is_content() {
            return match self.nodes.thing(node) {
                Some(_) => {
                    let text = self.read_generated(node)?;
                    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
                    let end = start.saturating_add(bytes).min(text.len());
                    Ok(text.slice(start..end))
                }
                None => Err(ViewError::NotFound),
            };
        }
        if let Some(OfDisk { source, point, disk, shown }) = self.shown(node)? {
            return disk.read(shown, offset, bytes).map_err(|error| self.located(error, source, point));
        }
        let (source, point, view, inode) = self.content(node)?;
        view.read(&inode, offset, bytes).map_err(|error| self.located_file(error, source, point, &view, &inode))
    }

    fn beside(&self, node: NodeId, take: &mut dyn FnMut(NodeId, Bytes) -> bool) -> Result<(), ViewError> {
        self.small_behind(node, take)
    }

    fn read_generated(&self, node: NodeId) -> Result<Bytes, ViewError> {
        match self.nodes.thing(node) {
            Some(Generated::Info(source, version)) => {
                let (record, state) = self.info_of(source, version)?;
                Ok(self.info_text(&record, &state))
            }
            Some(Generated::Link(..)) => Err(ViewError::WrongKind(WrongKind::NotRegular)),
            Some(_) => Err(ViewError::WrongKind(WrongKind::IsDirectory)),
            None => Err(ViewError::NotFound),
        }
    }

    fn seek(&self, node: NodeId, offset: u64, to: SeekTo) -> Result<u64, ViewError> {
        if !node.is_content() {
            let size = self.generated_found(node)?.attr.size;
            return match to {
                _ if offset >= size => Err(ViewError::NoSuchOffset),
                SeekTo::Data => Ok(offset),
                SeekTo::Hole => Ok(size),
            };
        }
        if let Some(OfDisk { source, point, disk, shown }) = self.shown(node)? {
            return disk.seek(shown, offset, to).map_err(|error| self.located(error, source, point));
        }
        let (source, point, view, inode) = self.content(node)?;
        view.seek(&inode, offset, to).map_err(|error| self.located_file(error, source, point, &view, &inode))
    }

    fn xattr_names(&self, node: NodeId) -> Result<Vec<Vec<u8>>, ViewError> {
        if !node.is_content() || self.shown(node)?.is_some() {
            return Ok(Vec::new());
        }
        let (_, _, _, inode) = self.content(node)?;
        Ok(inode.entry().xattrs.iter().map(|xattr| xattr.name.clone()).collect())
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        if !node.is_content() || self.shown(node)?.is_some() {
            return Ok(None);
        }
        let (_, _, _, inode) = self.content(node)?;
        let captured = inode.entry().xattrs.iter().find(|xattr| xattr.name == name).map(|xattr| xattr.value.clone());
        let birth = || inode.entry().meta.btime.map(|time| format!("{}.{:09}", time.seconds, time.nanos).into_bytes());
        Ok(captured.or_else(|| if name == BIRTH_XATTR { birth() } else { None }))
    }
}

/// The birth time, until the kernel interface reports it: seconds and nanoseconds since 1970. Answered
/// when asked for by name and never listed, so that copies do not carry it along; a captured attribute of this name
/// goes before it.
pub const BIRTH_XATTR: &[u8] = b"user.amberfs.btime";

#[cfg(test)]
mod tests;
