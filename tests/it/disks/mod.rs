//! Disks and their captures, held against a naive memory of their bytes.
//!
//! ```text
//!  model   random histories: writes, zeros, holes, resizes, captures, rollbacks, deletions, branches
//!  crash   every call to the store fails
//!  damage  every frame of a repository damaged
//!  lies    commits that contradict themselves
//! ```

mod crash;
mod damage;
mod lies;
mod model;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use amberfs::base::Env;
use amberfs::capture::{CaptureError, Options, Outcome, Progress, capture_disk};
use amberfs::chain::{Point, RepoLog, SourceLog, origin};
use amberfs::format::log::{SourceKind, SourceRecord};
use amberfs::repo::Repo;
use amberfs::store::Store;
use amberfs::view::disk::DiskView;
use amberfs::view::namespace::{Namespace, NodeId, SeekTo, ViewError};
use amberfs::view::{MountView, PointView};

use crate::skip;
use crate::world::{self, node, zero_settings};

/// Bytes of the smallest cell.
pub(crate) const CELL: u64 = 16 << 10;

/// An image, and a repository with the source `vm` for it.
struct DiskWorld {
    dir: tempfile::TempDir,
    env: Env,
    repo: Arc<Repo>,
    source: SourceRecord,
    log: SourceLog,
}

impl DiskWorld {
    fn new(store: Store, env: Env) -> DiskWorld {
        let repo = world::init(store, env.clone()).unwrap();
        let sources = RepoLog::open(repo.store().clone(), env.clone(), repo.realm());
        let source = sources.add_source("vm", SourceKind::Disk, origin::here(b"/dev/vm")).unwrap();
        let log = SourceLog::open(repo.store().clone(), env.clone(), repo.realm(), source.id);
        let world = DiskWorld { dir: tempfile::tempdir().unwrap(), env, repo, source, log };
        File::create_new(world.path()).unwrap();
        world
    }

    /// The image.
    fn path(&self) -> PathBuf {
        self.dir.path().join("disk.img")
    }

    fn file(&self) -> File {
        OpenOptions::new().read(true).write(true).open(self.path()).unwrap()
    }

    fn capture(&self, options: &Options) -> Result<Outcome, CaptureError> {
        self.env.advance(Duration::from_secs(60));
        capture_disk(&self.repo, &self.log, &self.source, &self.path(), options, &Progress::new())
    }

    /// What a mount of the repository shows, through caches that nothing has warmed.
    fn mount(&self) -> MountView {
        MountView::open(self.reopened(), zero_settings()).unwrap()
    }

    fn reopened(&self) -> Arc<Repo> {
        world::open(self.repo.store().clone(), self.env.clone()).unwrap()
    }

    /// The disk that a point holds.
    fn disk(&self, point: &Point) -> DiskView {
        let view = PointView::new(&self.reopened(), self.source.id, &point.commit.roots);
        DiskView::new(view, None, point.commit.disk.as_ref().unwrap()).unwrap()
    }
}

/// The node `name` in the point `point` of the disk.
fn shown(view: &MountView, point: &str, name: &str) -> NodeId {
    node(view, &format!("vm/points/{point}/{name}"))
}

/// All bytes of a file of the mount, `piece` bytes at a time.
pub(crate) fn content(view: &dyn Namespace, file: NodeId, piece: usize) -> Vec<u8> {
    let size = view.attr(file).unwrap().attr.size;
    let mut found = Vec::new();
    while (found.len() as u64) < size {
        let bytes = view.read(file, found.len() as u64, piece).unwrap();
        assert!(!bytes.is_empty(), "{} of {size} bytes", found.len());
        found.extend_from_slice(&bytes);
    }
    assert!(view.read(file, size, piece).unwrap().is_empty());
    found
}

/// Where a file of the mount has data, as seeking tells.
fn data(view: &dyn Namespace, file: NodeId) -> Vec<(u64, u64)> {
    let size = view.attr(file).unwrap().attr.size;
    let (mut found, mut at) = (Vec::new(), 0);
    while at < size {
        match view.seek(file, at, SeekTo::Data) {
            Ok(start) => {
                at = view.seek(file, start, SeekTo::Hole).unwrap();
                assert!(start < at && at <= size, "data from {start} to {at} of {size}");
                found.push((start, at));
            }
            Err(ViewError::NoSuchOffset) => break,
            Err(error) => panic!("{error}"),
        }
    }
    found
}

/// What a naive reader would call the cells of a disk: none where all is zero.
fn cells(bytes: &[u8], cell: u64) -> Vec<Option<&[u8]>> {
    let cells = bytes.chunks(usize::try_from(cell).unwrap());
    cells.map(|cell| cell.iter().any(|byte| *byte != 0).then_some(cell)).collect()
}

/// Whether `qemu-img` finds the image sound and equal to `raw`; says loudly when there is none.
#[track_caller]
fn judged_by_qemu(qcow2: &Path, raw: &Path) {
    let check = ["check", "-q", "-f", "qcow2"].map(std::ffi::OsStr::new);
    let compare = ["compare", "-q", "-f", "raw", "-F", "qcow2"].map(std::ffi::OsStr::new);
    for (arguments, files) in [(&check[..], vec![qcow2]), (&compare[..], vec![raw, qcow2])] {
        match Command::new("qemu-img").args(arguments).args(files).output() {
            Ok(output) => assert!(output.status.success(), "{arguments:?}: {output:?}"),
            Err(_) => return skip::skipped("no qemu-img: install qemu-utils"),
        }
    }
}
