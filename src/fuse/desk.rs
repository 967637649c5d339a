//! The directory `.amberfs/`: the control file, the state of the mount and its jobs, as nodes.
//!
//! It stands beside the namespace, not in it, and the root's listing joins the two. Every file's size is true when it is
//! looked up, because tools that trust `st_size` (rsync) copy exactly so much. A content that was looked up is
//! kept for a while, so that opening it finds the very version whose size the kernel was told; if it
//! is gone by then, ESTALE makes the kernel look up the path again.

use std::collections::HashMap;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::desk_node::{DESK_FILES, DeskNode, JOB_FILES, JobNumber};
use super::errno::Errno;
use crate::base::{FileTime, Instant, limits};
use crate::job::control::{Caller, Content, Control, JobFile, JobId};
use crate::view::namespace::{Attr, DirEntry, FileKind, Found, NodeId};

/// The name of the directory in the root of a mount.
pub(crate) const DESK_NAME: &[u8] = b".amberfs";

/// See the head of this file.
pub(crate) struct Desk {
    control: Arc<dyn Control>,
    owner: (u32, u32),
    since: FileTime,
    jobs: Mutex<JobNumbers>,
    /// Contents that were looked up lately, by node id.
    recent: Mutex<LruCache<NodeId, Content>>,
    /// Held from a batch to the reading of its reply, so that each writer gets its own.
    submitting: Mutex<()>,
}

#[derive(Default)]
struct JobNumbers {
    names: Vec<JobId>,
    numbers: HashMap<JobId, JobNumber>,
}

impl JobNumbers {
    fn number(&mut self, job: &JobId) -> Option<JobNumber> {
        if let Some(number) = self.numbers.get(job) {
            return Some(*number);
        }
        let number = JobNumber(u32::try_from(self.names.len()).ok().filter(|number| *number <= JobNumber::MAX)?);
        self.names.push(job.clone());
        self.numbers.insert(job.clone(), number);
        Some(number)
    }

    fn name(&self, number: JobNumber) -> Option<JobId> {
        self.names.get(usize::try_from(number.0).ok()?).cloned()
    }
}

impl Desk {
    /// The directory of a mount that `owner` (user and group) made at `since`.
    pub(crate) fn new(control: Arc<dyn Control>, owner: (u32, u32), since: Instant) -> Desk {
        Desk {
            control,
            owner,
            since: since.file_time(),
            jobs: Mutex::default(),
            recent: Mutex::new(LruCache::new(limits::DESK_RECENT_CONTENTS)),
            submitting: Mutex::new(()),
        }
    }

    /// What stands behind the files.
    pub(crate) fn control(&self) -> &dyn Control {
        &*self.control
    }

    /// The directory itself, as the root shows it.
    pub(crate) fn directory(&self) -> Found {
        self.found(DeskNode::Directory, None, None)
    }

    /// The node `name` in the directory `dir`.
    pub(crate) fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Found, Errno> {
        let (dir, _) = DeskNode::of(dir).ok_or(Errno::ESTALE)?;
        let node = match dir {
            DeskNode::Directory => match name {
                b"control" => Some(DeskNode::Control),
                b"jobs" => Some(DeskNode::Jobs),
                _ => DESK_FILES.iter().find(|(n, _)| n.as_bytes() == name).map(|(_, file)| DeskNode::File(*file)),
            },
            DeskNode::Jobs => std::str::from_utf8(name)
                .ok()
                .map(|name| JobId(name.to_owned()))
                .filter(|job| self.control.job_file(job, JobFile::State).is_some())
                .and_then(|job| self.jobs.lock().number(&job))
                .map(DeskNode::Job),
            DeskNode::Job(job) => {
                JOB_FILES.iter().find(|(n, _)| n.as_bytes() == name).map(|(_, file)| DeskNode::JobFile(job, *file))
            }
            DeskNode::Control | DeskNode::File(_) | DeskNode::JobFile(..) => return Err(Errno::ENOTDIR),
        };
        let node = node.ok_or(Errno::ENOENT)?;
        let content = self.current(node)?;
        let found = self.found(node, content.as_ref(), None);
        if let Some(content) = content.filter(|_| !node.grows()) {
            self.recent.lock().put(found.attr.node, content);
        }
        Ok(found)
    }

    /// The attributes of the node `id`.
    pub(crate) fn attr(&self, id: NodeId) -> Result<Found, Errno> {
        let (node, version) = DeskNode::of(id).ok_or(Errno::ESTALE)?;
        if let DeskNode::Job(job) = node {
            let job = self.jobs.lock().name(job).ok_or(Errno::ESTALE)?;
            self.control.job_file(&job, JobFile::State).ok_or(Errno::ESTALE)?;
        }
        let content = self.content(id)?;
        Ok(self.found(node, content.as_ref(), Some(version)))
    }

    /// The content that the node `id` stands for; none for directories and `control`.
    pub(crate) fn content(&self, id: NodeId) -> Result<Option<Content>, Errno> {
        let (node, version) = DeskNode::of(id).ok_or(Errno::ESTALE)?;
        if let Some(content) = self.recent.lock().get(&id) {
            return Ok(Some(content.clone()));
        }
        match self.current(node)? {
            Some(content) if !node.grows() && content.version & 0xFFFF_FFFF != version => Err(Errno::ESTALE),
            content => Ok(content),
        }
    }

    /// The content of the growing file that the node `id` stands for, and how many of its bytes are gone before it.
    pub(crate) fn growing(&self, id: NodeId) -> Result<(Content, u64), Errno> {
        let (_, version) = DeskNode::of(id).ok_or(Errno::ESTALE)?;
        let content = self.content(id)?.ok_or(Errno::EISDIR)?;
        let gone = content.gone - DeskNode::start(version, content.gone);
        Ok((content, gone))
    }

    /// Hands the items of the directory `dir` behind `after` to `take`, until it returns false.
    pub(crate) fn read_dir(
        &self,
        dir: NodeId,
        after: u64,
        take: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<(), Errno> {
        let (dir, _) = DeskNode::of(dir).ok_or(Errno::ESTALE)?;
        let nodes: Vec<(u64, Vec<u8>, DeskNode)> = match dir {
            DeskNode::Directory => {
                let files = DESK_FILES.iter().map(|(name, file)| (*name, DeskNode::File(*file)));
                let all = [("control", DeskNode::Control), ("jobs", DeskNode::Jobs)].into_iter().chain(files);
                all.zip(1..).map(|((name, node), at)| (at, name.as_bytes().to_vec(), node)).collect()
            }
            DeskNode::Job(job) => JOB_FILES
                .iter()
                .zip(1..)
                .map(|((name, file), at)| (at, name.as_bytes().to_vec(), DeskNode::JobFile(job, *file)))
                .collect(),
            DeskNode::Jobs => {
                let mut numbers = self.jobs.lock();
                let all = self.control.jobs();
                let mut nodes: Vec<_> = all
                    .into_iter()
                    .filter_map(|job| numbers.number(&job).map(|number| (number, job)))
                    .map(|(number, job)| (u64::from(number.0) + 1, job.0.into_bytes(), DeskNode::Job(number)))
                    .collect();
                nodes.sort_by_key(|(at, ..)| *at);
                nodes
            }
            DeskNode::Control | DeskNode::File(_) | DeskNode::JobFile(..) => return Err(Errno::ENOTDIR),
        };
        for (at, name, node) in nodes.into_iter().filter(|(at, ..)| *at > after) {
            // A job may be forgotten while its directory is listed.
            let Ok(content) = self.current(node) else { continue };
            if !take(DirEntry { name, next: at, found: Ok(self.found(node, content.as_ref(), None)) }) {
                break;
            }
        }
        Ok(())
    }

    /// The directory that holds `dir`.
    pub(crate) fn parent(&self, dir: NodeId) -> NodeId {
        match DeskNode::of(dir) {
            Some((DeskNode::Jobs, _)) => DeskNode::Directory.id(0),
            Some((DeskNode::Job(_), _)) => DeskNode::Jobs.id(0),
            _ => NodeId::ROOT,
        }
    }

    /// Hands a batch in. The errno if it was refused, and the reply in words either way.
    pub(crate) fn submit(&self, caller: Caller, batch: &[u8]) -> (Result<(), Errno>, Vec<u8>) {
        let _one_at_a_time = self.submitting.lock();
        let outcome = self.control.submit(caller, batch).map_err(|refusal| Errno(refusal.reason.errno()));
        (outcome, self.control.reply(caller))
    }

    fn current(&self, node: DeskNode) -> Result<Option<Content>, Errno> {
        match node {
            DeskNode::Directory | DeskNode::Control | DeskNode::Jobs | DeskNode::Job(_) => Ok(None),
            DeskNode::File(file) => Ok(Some(self.control.file(file))),
            DeskNode::JobFile(job, file) => {
                let job = self.jobs.lock().name(job).ok_or(Errno::ESTALE)?;
                self.control.job_file(&job, file).map(Some).ok_or(Errno::ESTALE)
            }
        }
    }

    /// What `stat` says; `version` is that of the id that was asked about, if one was.
    fn found(&self, node: DeskNode, content: Option<&Content>, version: Option<u64>) -> Found {
        let (kind, permissions, links) = match node {
            DeskNode::Directory | DeskNode::Jobs | DeskNode::Job(_) => (FileKind::Directory, 0o700, 2),
            DeskNode::Control => (FileKind::Regular, 0o600, 1),
            DeskNode::File(_) | DeskNode::JobFile(..) => (FileKind::Regular, 0o400, 1),
        };
        let (version, gone) = match content {
            Some(content) if node.grows() => {
                let start = version.map_or(content.gone, |version| DeskNode::start(version, content.gone));
                (start, content.gone - start)
            }
            content => (content.map_or(0, |content| content.version), 0),
        };
        let size = content.map_or(0, |content| gone + content.bytes.len() as u64);
        let time = content.map_or(self.since, |content| content.changed.file_time());
        let attr = Attr {
            node: node.id(version),
            kind,
            permissions,
            uid: self.owner.0,
            gid: self.owner.1,
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
}
