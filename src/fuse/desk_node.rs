//! The node ids of `.amberfs/`.
//!
//! ```text
//! 111 | what 5 bits | job number 24 bits | version 32 bits
//! ```
//! A file whose content is replaced has the low bits of its content's version in its id, because the
//! kernel keeps sizes and pages per node. One that only grows has instead the low bits of how many bytes were gone from its front
//! when it was looked up: under one id it never loses any, so that a reader who follows it by its descriptor reads on.
//! Directories have version 0.

use crate::job::control::{DeskFile, JobFile};
use crate::view::namespace::NodeId;

/// A thing in `.amberfs/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum DeskNode {
    /// `.amberfs`.
    Directory,
    /// `.amberfs/control`.
    Control,
    /// A file directly in `.amberfs/`.
    File(DeskFile),
    /// `.amberfs/jobs`.
    Jobs,
    /// `.amberfs/jobs/<id>`.
    Job(JobNumber),
    /// A file of a job.
    JobFile(JobNumber, JobFile),
}

/// A job's number in this mount: stands for its name in node ids and listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct JobNumber(pub(crate) u32);

impl JobNumber {
    /// More jobs than this cannot be told apart by node ids.
    pub(crate) const MAX: u32 = (1 << 24) - 1;
}

/// The files directly in `.amberfs/` besides `control`, in the order of a listing.
pub(crate) const DESK_FILES: [(&str, DeskFile); 5] = [
    ("help", DeskFile::Help),
    ("status.json", DeskFile::Status),
    ("events", DeskFile::Events),
    ("metrics", DeskFile::Metrics),
    ("errors", DeskFile::Errors),
];

/// The files of a job, in the order of a listing.
pub(crate) const JOB_FILES: [(&str, JobFile); 5] = [
    ("state", JobFile::State),
    ("progress.json", JobFile::Progress),
    ("log", JobFile::Log),
    ("result", JobFile::Result),
    ("error", JobFile::Error),
];

const DIRECTORY: u64 = 0;
const CONTROL: u64 = 1;
const JOBS: u64 = 2;
const JOB: u64 = 3;
const FILES: u64 = 8;
const JOB_FILES_FROM: u64 = 16;

impl DeskNode {
    /// Whether its content only grows under one id.
    pub(crate) fn grows(self) -> bool {
        match self {
            DeskNode::File(DeskFile::Events | DeskFile::Errors) | DeskNode::JobFile(_, JobFile::Log) => true,
            DeskNode::File(DeskFile::Help | DeskFile::Status | DeskFile::Metrics)
            | DeskNode::JobFile(_, JobFile::State | JobFile::Progress | JobFile::Result | JobFile::Error)
            | DeskNode::Directory
            | DeskNode::Control
            | DeskNode::Jobs
            | DeskNode::Job(_) => false,
        }
    }

    /// Its id while its content has `version`, or begins behind so many bytes.
    pub(crate) fn id(self, version: u64) -> NodeId {
        let position = |of: Option<usize>| of.unwrap_or_default() as u64;
        let (what, job) = match self {
            DeskNode::Directory => (DIRECTORY, 0),
            DeskNode::Control => (CONTROL, 0),
            DeskNode::Jobs => (JOBS, 0),
            DeskNode::Job(job) => (JOB, job.0),
            DeskNode::File(file) => (FILES + position(DESK_FILES.iter().position(|(_, f)| *f == file)), 0),
            DeskNode::JobFile(job, file) => {
                (JOB_FILES_FROM + position(JOB_FILES.iter().position(|(_, f)| *f == file)), job.0)
            }
        };
        NodeId(NodeId::DESK | what << 56 | u64::from(job & JobNumber::MAX) << 32 | version & 0xFFFF_FFFF)
    }

    /// Where the file begins that a growing one with `version` in its id stands for, counted like `gone`, the bytes
    /// that are gone by now.
    pub(crate) fn start(version: u64, gone: u64) -> u64 {
        let since = gone.wrapping_sub(version) & 0xFFFF_FFFF;
        gone.saturating_sub(since)
    }

    /// What an id stands for, with the version in it; none for an id that this module never made.
    pub(crate) fn of(id: NodeId) -> Option<(DeskNode, u64)> {
        if !id.is_desk() {
            return None;
        }
        let what = (id.0 >> 56) & 0x1F;
        let job = JobNumber(u32::try_from((id.0 >> 32) & u64::from(JobNumber::MAX)).ok()?);
        let at = |from: u64| usize::try_from(what - from).ok();
        let node = match what {
            DIRECTORY => DeskNode::Directory,
            CONTROL => DeskNode::Control,
            JOBS => DeskNode::Jobs,
            JOB => DeskNode::Job(job),
            FILES..JOB_FILES_FROM => DeskNode::File(DESK_FILES.get(at(FILES)?)?.1),
            JOB_FILES_FROM.. => DeskNode::JobFile(job, JOB_FILES.get(at(JOB_FILES_FROM)?)?.1),
            _ => return None,
        };
        Some((node, id.0 & 0xFFFF_FFFF))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_comes_back_from_its_id() {
        let job = JobNumber(JobNumber::MAX);
        let mut nodes = vec![DeskNode::Directory, DeskNode::Control, DeskNode::Jobs, DeskNode::Job(job)];
        nodes.extend(DESK_FILES.iter().map(|(_, file)| DeskNode::File(*file)));
        nodes.extend(JOB_FILES.iter().map(|(_, file)| DeskNode::JobFile(job, *file)));
        let mut ids = std::collections::HashSet::new();
        for node in nodes {
            let id = node.id(0x1_2345_6789);
            assert!(id.is_desk() && !id.is_content());
            assert!(ids.insert(id), "{node:?} shares its id");
            assert_eq!(DeskNode::of(id), Some((node, 0x2345_6789)));
        }
    }

    #[test]
    fn foreign_ids_are_nothing() {
        for id in [1, 0, NodeId::GENERATED, NodeId::DESK | 0x1F << 56, NodeId::DESK | 5 << 56] {
            assert_eq!(DeskNode::of(NodeId(id)), None);
        }
    }
}
