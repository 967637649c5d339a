//! What is damaged: small repositories, each with a little of everything of its subject.
//!
//! They are apart, because every bit of a repository is flipped, and everything in it read each time: three take a small part of
//! the time of one that is as large as they together (a fifth and less). Nothing in them is larger than it must be.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use amberfs::base::Env;
use amberfs::capture::{Options, Progress, capture_tree};
use amberfs::chain::state::SourceGoal;
use amberfs::chain::{RepoLog, SourceLog, origin};
use amberfs::format::entry::{Body, Content};
use amberfs::format::log::SourceKind;
use amberfs::format::object::{LogId, Object};
use amberfs::format::{LogNumber, Nonce, SessionId};
use amberfs::store::Store;
use amberfs::view::PointView;

use super::repository::{Repository, Truth};
use crate::world::{self, World, later, real};

/// What a repository has a little of everything of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// Trees of several leaves, that points share: names, moves, hard links.
    Names,
    /// All ways in which content is stored, in points that share it.
    Contents,
    /// Two sources' logs, one with a checkpoint and entries behind it.
    Logs,
}

/// Bytes that do not compress.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0u8; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
    data
}

/// From one stretch of a sparse file to the next: with a hole between them, and few zeros to compare each time that it is read.
const SPOT_GAP: u64 = 3 * 4096;

/// A repository while it is written.
struct Building {
    world: World,
    truths: Vec<Truth>,
}

impl Building {
    fn begin() -> Building {
        Building { world: World::new(Store::memory(), Env::seeded(7, later())), truths: Vec::new() }
    }

    fn capture(&mut self, full: bool) {
        let world = &self.world;
        let outcome = world.capture(&Options { full, workers: Some(2), ..Options::default() });
        assert_eq!(outcome.problems, Vec::new());
        self.truths.push(Truth::of(&world.source, &outcome.point, real(&world.root())));
    }

    fn link(&self, from: &str, to: &str) {
        let root = self.world.root();
        std::fs::hard_link(root.join(from), root.join(to)).unwrap();
    }

    fn end(self) -> Repository {
        // The deletion of a log's newest entry goes unnoticed: that is to be none that points need.
        self.world.log.append(abort(99)).unwrap();
        self.sources().add_source("spare", SourceKind::Tree, origin::here(b"/spare")).unwrap();
        Repository::of(self.world, self.truths)
    }

    fn sources(&self) -> RepoLog {
        RepoLog::open(self.world.repo.store().clone(), self.world.env.clone(), self.world.repo.realm())
    }
}

/// An entry of a log that makes no point.
fn abort(number: u8) -> SourceGoal {
    SourceGoal::Abort(SessionId { base: LogNumber(1), random: Nonce([number; 16]) })
}

fn names() -> Repository {
    let mut building = Building::begin();
    // Names that are long enough for several leaves.
    for number in 0..70 {
        let name = format!("leaves/{}/{number:03}-{}", number / 30, "long-name-".repeat(20));
        building.world.write(&name, number.to_string());
    }
    building.world.write("file", noise(150, 100));
    std::fs::create_dir_all(building.world.root().join("leaves/empty")).unwrap();
    std::os::unix::fs::symlink("file", building.world.root().join("symlink")).unwrap();
    building.link("file", "linked-file");
    building.link("file", "leaves/0/third-name");
    building.capture(false);
    let root = building.world.root();
    std::fs::rename(root.join("leaves/1"), root.join("leaves/moved")).unwrap();
    std::fs::remove_file(root.join("symlink")).unwrap();
    building.capture(false);
    building.world.write("leaves/0/new", b"new");
    building.capture(false);
    building.end()
}

fn contents() -> Repository {
    let mut building = Building::begin();
    let world = &building.world;
    world.write("plain/inline", b"short enough to stand in its entry");
    world.write("plain/empty", b"");
    for number in 0..6 {
        world.write(&format!("plain/grouped-{number}"), noise(160, number));
    }
    // Too large to share a frame; small once it is compressed.
    world.write("alone", noise(300, 200).repeat(240));
    // A map: more extents than an entry holds.
    std::fs::create_dir_all(world.root().join("sparse")).unwrap();
    for (name, seed) in [("sparse/disk", 300), ("sparse/other", 400)] {
        let file = std::fs::File::create(world.root().join(name)).unwrap();
        for spot in 0..12 {
            file.write_all_at(&noise(40, seed + spot), spot * SPOT_GAP).unwrap();
        }
        file.set_len(12 * SPOT_GAP + 5000).unwrap();
    }
    building.link("plain/grouped-0", "plain/second-name");
    building.link("plain/grouped-0", "sparse/third-name");
    building.link("sparse/disk", "linked-disk");
    building.capture(false);
    building.world.write("plain/grouped-1", noise(170, 1001));
    building.world.write("plain/new", noise(200, 1002));
    std::fs::remove_file(building.world.root().join("plain/grouped-2")).unwrap();
    building.capture(false);
    let disk = std::fs::File::options().write(true).open(building.world.root().join("sparse/disk")).unwrap();
    disk.write_all_at(&noise(40, 1003), 3 * SPOT_GAP).unwrap();
    building.capture(false);
    building.capture(true);
    building.end()
}

fn logs() -> Repository {
    let mut building = Building::begin();
    building.world.write("file", noise(180, 1));
    building.world.write("directory/note", b"a note");
    building.capture(false);
    building.world.write("file", noise(190, 2));
    building.capture(false);
    // Entries enough for a checkpoint, and some behind it.
    for number in 0..62 {
        building.world.log.append(abort(number)).unwrap();
    }
    building.world.write("last", noise(180, 3));
    building.capture(false);

    let other = building.sources().add_source("other", SourceKind::Tree, origin::here(b"/other")).unwrap();
    let world = &building.world;
    let log = SourceLog::open(world.repo.store().clone(), world.env.clone(), world.repo.realm(), other.id);
    let tree = tempfile::tempdir().unwrap();
    std::fs::write(tree.path().join("file"), noise(210, 4)).unwrap();
    std::fs::write(tree.path().join("note"), b"a note").unwrap();
    world.env.advance(Duration::from_secs(60));
    let options = Options { workers: Some(1), ..Options::default() };
    let outcome = capture_tree(&world.repo, &log, &other, tree.path(), &options, &Progress::new()).unwrap();
    building.truths.push(Truth::of(&other, &outcome.point, real(tree.path())));
    log.append(abort(99)).unwrap();
    building.end()
}

impl Subject {
    pub(super) const ALL: [Subject; 3] = [Subject::Names, Subject::Contents, Subject::Logs];

    pub(super) fn build(self) -> Repository {
        match self {
            Subject::Names => names(),
            Subject::Contents => contents(),
            Subject::Logs => logs(),
        }
    }

    /// That the repository holds what the campaign claims to damage.
    pub(super) fn assert_varied(self, repository: &Repository) {
        let first = &repository.truths[0];
        let view = PointView::new(repository.repo(), first.source, &first.roots);
        let body = |path: &str| {
            let inode = view.walk(path.split('/').map(str::as_bytes)).unwrap();
            inode.entry().body.clone()
        };
        let packs_of = |source| {
            let parsed = repository.objects.keys().filter_map(Object::parse);
            parsed.filter(|object| matches!(object, Object::Pack(of, _) if *of == source)).count()
        };
        match self {
            Subject::Names => {
                for truth in &repository.truths {
                    assert!(truth.roots.entries.level >= 1, "several leaves");
                }
                assert!(packs_of(first.source) >= 3);
            }
            Subject::Contents => {
                assert!(matches!(body("sparse/disk"), Body::File(Content::Mapped { .. })));
                // Content of an encrypted repository never stands in its entry.
                let is_inline = matches!(body("plain/inline"), Body::File(Content::Inline(_)));
                assert_eq!(is_inline, !world::is_encrypted());
                assert!(matches!(body("plain/grouped-0"), Body::File(Content::Extents(_))));
                assert!(packs_of(first.source) >= 4);
            }
            Subject::Logs => {
                assert!(repository.checkpoint(LogId::Source(first.source)).is_some(), "a checkpoint");
                assert!(repository.truths.iter().any(|truth| truth.source != first.source), "two sources");
            }
        }
        assert!(repository.objects.values().map(Vec::len).sum::<usize>() < 1 << 16, "small");
    }
}
