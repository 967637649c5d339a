use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::base::{Env, Instant};
use crate::capture::{self, capture_tree};
use crate::chain::{RepoLog, SourceLog, origin};
use crate::format::LogNumber;
use crate::format::frame::FrameKind;
use crate::format::log::{SourceKind, SourceRecord};
use crate::format::object::{LogId, Object, ObjectName};
use crate::repo::locate_footer;
use crate::store::Store;

mod contradictions;

/// A directory, captured into a repository in a directory of its own.
struct World {
    dir: tempfile::TempDir,
    env: Env,
    repo: Arc<Repo>,
    source: SourceRecord,
    log: SourceLog,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("source")).unwrap();
        let store = Store::create_local(&dir.path().join("repository")).unwrap();
        let now = Env::system().now();
        let env = Env::seeded(1, Instant::from_nanos(now.nanos() + 10_000_000_000));
        let repo = Repo::init(store.clone(), env.clone()).unwrap();
        let logs = RepoLog::open(store.clone(), env.clone(), repo.realm());
        let source = logs.add_source("home", SourceKind::Tree, origin::here(b"/home")).unwrap();
        let log = SourceLog::open(store, env.clone(), repo.realm(), source.id);
        World { dir, env, repo, source, log }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("source").join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), content).unwrap();
    }

    fn capture(&self, full: bool) -> Arc<Point> {
        self.env.advance(Duration::from_secs(60));
        let options = capture::Options { full, workers: Some(2), ..capture::Options::default() };
        let root = self.dir.path().join("source");
        capture_tree(&self.repo, &self.log, &self.source, &root, &options, &capture::Progress::new()).unwrap().point
    }

    fn verify(&self, read_data: bool) -> Report {
        let options = Options { read_data, workers: Some(2), ..Options::default() };
        verify(&self.repo, &options, &Progress::new()).unwrap()
    }

    fn file(&self, object: &ObjectName) -> PathBuf {
        self.dir.path().join("repository").join(object.as_str())
    }

    fn change(&self, object: &ObjectName, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.file(object);
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }

    fn pack(&self, point: &Point, ordinal: u32) -> PackId {
        PackId { chain: point.chain(), session: point.commit.session, ordinal: PackOrdinal(ordinal) }
    }

    fn name(&self, pack: PackId) -> ObjectName {
        Object::Pack(self.source.id, pack).name()
    }

    /// A repository with two chains and a little of everything.
    fn filled() -> (World, Vec<Arc<Point>>) {
        let world = World::new();
        world.write("tiny", b"inline");
        for number in 0..40 {
            world.write(&format!("docs/{number:02}"), noise(3000, number).as_slice());
        }
        world.write("big", &noise(3 << 20, 99));
        std::fs::hard_link(world.path("docs/00"), world.path("docs/zero")).unwrap();
        symlink("tiny", world.path("link")).unwrap();
        let mut points = vec![world.capture(false)];
        world.write("docs/00-new", &noise(5000, 77));
        std::fs::remove_file(world.path("docs/03")).unwrap();
        std::fs::rename(world.path("docs"), world.path("papers")).unwrap();
        points.push(world.capture(false));
        points.push(world.capture(true));
        world.write("papers/deep/er/file", &noise(4000, 78));
        std::fs::remove_file(world.path("papers/zero")).unwrap();
        points.push(world.capture(false));
        (world, points)
    }
}

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0u8; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
    data
}

fn paths(report: &Report) -> Vec<String> {
    let touches = report.findings.iter().flat_map(|finding| &finding.touches);
    let mut paths: Vec<String> = touches
        .flat_map(|touch| touch.paths.iter().map(|path| format!("{:?} of {:?}", path, touch.points.len())))
        .collect();
    paths.sort();
    paths
}

#[test]
fn a_sound_repository_is_sound() {
    let (world, points) = World::filled();
    for read_data in [false, true] {
        let report = world.verify(read_data);
        assert_eq!(report.findings, Vec::new());
        assert_eq!((report.damaged(), report.points(), report.sound_points()), (0, 4, 4));
        assert_eq!((report.orphans.objects, report.unknown.objects), (0, 0));
        assert_eq!(report.advice, Vec::<String>::new());
        assert_eq!(report.sources[0].touched, Vec::<String>::new());
    }
    let packs: u32 = points.iter().map(|point| point.commit.packs).sum();
    // Marker, one entry of the repository's log; two opened chains and four points.
    assert_eq!(world.verify(false).objects, u64::from(packs) + 2 + 6);
}

#[test]
fn a_bit_of_content_is_found_by_reading_it_and_touches_the_points_that_have_the_file() {
    let (world, points) = World::filled();
    let pack = world.pack(&points[0], 0);
    let (footer, _, _) = locate_footer(&world.repo.reader(world.source.id), pack).unwrap();
    let big = footer.frames.iter().find(|f| f.kind == FrameKind::Data && f.raw_bytes > 200_000).unwrap().clone();
    world.change(&world.name(pack), |bytes| bytes[usize::try_from(big.offset).unwrap() + 1000] ^= 4);
    assert_eq!(world.verify(false).damaged(), 0, "without contents, nobody looks");
    let report = world.verify(true);
    assert_eq!(report.damaged(), 1);
    let finding = &report.findings[0];
    assert_eq!((finding.object.clone(), finding.harm), (world.name(pack), Harm::Damaged));
    assert_eq!(finding.faults[0].offset, Some(big.offset));
    assert_eq!(finding.touches.len(), 1);
    assert_eq!(finding.touches[0].paths, [Touched::Path(b"big".to_vec())]);
    assert_eq!(finding.touches[0].points, [points[0].name(), points[1].name()]);
    assert_eq!(report.sources[0].touched, [points[0].name(), points[1].name()]);
    assert!(report.advice.iter().any(|advice| advice.contains("2 of 4 points")), "{:?}", report.advice);
}

#[test]
fn a_grouped_frame_touches_all_of_its_files_under_the_paths_of_each_point() {
    let (world, points) = World::filled();
    let pack = world.pack(&points[0], 0);
    let (footer, _, _) = locate_footer(&world.repo.reader(world.source.id), pack).unwrap();
    let group = footer.frames.iter().find(|f| f.chunks.len() > 5).unwrap().clone();
    world.change(&world.name(pack), |bytes| bytes[usize::try_from(group.offset).unwrap() + 40] ^= 1);
    let report = world.verify(true);
    assert_eq!(report.damaged(), 1);
    let told = paths(&report).join("\n");
    let [first, second] = report.findings[0].touches.as_slice() else { panic!("{told}") };
    let in_first: Vec<_> =
        first.paths.iter().filter(|p| matches!(p, Touched::Path(p) if p.starts_with(b"docs/"))).collect();
    let in_second: Vec<_> =
        second.paths.iter().filter(|p| matches!(p, Touched::Path(p) if p.starts_with(b"papers/"))).collect();
    assert_eq!((in_first.len(), in_second.len()), (first.paths.len(), second.paths.len()), "{told}");
    assert!(first.paths.contains(&Touched::Path(b"docs/zero".to_vec())), "both names of a link: {told}");
    assert!(first.paths.contains(&Touched::Path(b"docs/00".to_vec())), "{told}");
    assert_eq!(first.paths.len(), second.paths.len() + 1, "docs/03 is gone");
}

#[test]
fn a_pack_that_is_gone_takes_its_points_along() {
    let (world, points) = World::filled();
    let pack = world.name(world.pack(&points[2], 0));
    std::fs::remove_file(world.file(&pack)).unwrap();
    let report = world.verify(false);
    let missing: Vec<_> =
        report.findings.iter().filter(|f| f.harm == Harm::Missing).map(|f| f.object.clone()).collect();
    assert!(missing.contains(&pack));
    assert_eq!(report.sources[0].touched, [points[2].name(), points[3].name()], "the older chain shares nothing");
    assert!(report.advice.iter().any(|advice| advice.contains("capture --full home")), "{:?}", report.advice);
}

#[test]
fn points_in_the_trash_are_checked_as_well_and_named_as_deleted() {
    let world = World::new();
    world.write("file", &noise(200_000, 1));
    let first = world.capture(false);
    world.write("file", &noise(200_000, 2));
    let second = world.capture(false);
    let goal = crate::chain::state::SourceGoal::Delete(vec![second.id], crate::chain::state::Dependents::Refuse);
    world.log.append(goal).unwrap();
    let sound = world.verify(true);
    assert_eq!((sound.damaged(), sound.points(), sound.notes.as_slice()), (0, 2, &[][..]));
    std::fs::remove_file(world.file(&world.name(world.pack(&second, 0)))).unwrap();
    let report = world.verify(true);
    assert_eq!(report.sources[0].touched, [second.name()]);
    let note = format!("of the touched points of home, these are deleted, in the trash: {}", second.name());
    assert_eq!(report.notes, [note]);
    std::fs::remove_file(world.file(&world.name(world.pack(&first, 0)))).unwrap();
    assert_eq!(world.verify(true).notes.len(), 1, "the other one is not deleted");
}

#[test]
fn a_lost_footer_is_told_and_touches_nothing() {
    let (world, points) = World::filled();
    let pack = world.name(world.pack(&points[0], 0));
    world.change(&pack, |bytes| bytes.truncate(bytes.len() - 1));
    for read_data in [false, true] {
        let report = world.verify(read_data);
        assert_eq!(report.damaged(), 1, "{:?}", report.findings);
        assert_eq!(report.findings[0].touches, Vec::new());
        assert_eq!(report.sound_points(), 4);
    }
}

#[test]
fn a_lost_leaf_is_told_as_a_range_of_names() {
    let (world, points) = World::filled();
    let root = points[3].commit.roots.entries;
    assert_eq!(root.level, 0, "a single leaf");
    let pack = world.name(root.frame.pack);
    world.change(&pack, |bytes| bytes[usize::try_from(root.frame.offset).unwrap() + 50] ^= 1);
    let report = world.verify(false);
    assert_eq!(report.damaged(), 1);
    assert_eq!(report.findings[0].touches[0].paths, [Touched::Everything]);
    assert_eq!(report.sources[0].touched, [points[3].name()]);
}

#[test]
fn the_logs_are_read_to_their_first_entry() {
    let (world, points) = World::filled();
    let entry = Object::Entry(LogId::Source(world.source.id), LogNumber(points[1].id.0)).name();
    world.change(&entry, |bytes| bytes[20] ^= 1);
    let report = world.verify(false);
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    assert_eq!((&report.findings[0].object, report.findings[0].harm), (&entry, Harm::Damaged));
    assert!(report.findings[0].touches[0].also[0].starts_with("a point"), "{:?}", report.findings[0]);
    assert_eq!(report.points(), 3);
}

#[test]
fn what_stands_in_place_of_the_last_entry_is_found_though_no_listing_has_it() {
    let (world, points) = World::filled();
    let last = LogNumber(points[3].id.0);
    for (log, number) in [(LogId::Source(world.source.id), last), (LogId::Repo, LogNumber(world.source.id.0))] {
        let entry = Object::Entry(log, number).name();
        let kept = std::fs::read(world.file(&entry)).unwrap();
        std::fs::remove_file(world.file(&entry)).unwrap();
        std::fs::create_dir(world.file(&entry)).unwrap();
        let report = world.verify(false);
        let found: Vec<_> = report.findings.iter().map(|finding| (finding.object.clone(), finding.harm)).collect();
        assert_eq!(found, [(entry.clone(), Harm::Damaged)]);
        assert!(!report.findings[0].touches[0].also.is_empty());
        std::fs::remove_dir(world.file(&entry)).unwrap();
        std::fs::write(world.file(&entry), kept).unwrap();
    }
    assert_eq!(world.verify(false).damaged(), 0);
}

#[test]
fn a_source_whose_entry_was_the_last_and_is_gone_is_known_by_its_objects() {
    let (world, _) = World::filled();
    let entry = Object::Entry(LogId::Repo, LogNumber(world.source.id.0)).name();
    std::fs::remove_file(world.file(&entry)).unwrap();
    let report = world.verify(false);
    let found: Vec<_> = report.findings.iter().map(|finding| (finding.object.clone(), finding.harm)).collect();
    assert_eq!(found, [(entry, Harm::Missing)]);
    assert!(report.findings[0].touches[0].also[0].contains("its name is lost"));
    assert_eq!(report.unknown.objects, 0);
}

#[test]
fn what_belongs_to_no_point_is_no_damage() {
    let (world, points) = World::filled();
    let pack = world.pack(&points[0], 0);
    let orphan = PackId { ordinal: PackOrdinal(77), ..pack };
    std::fs::copy(world.file(&world.name(pack)), world.file(&world.name(orphan))).unwrap();
    std::fs::write(world.dir.path().join("repository/notes.txt"), b"mine").unwrap();
    let report = world.verify(true);
    assert_eq!(report.damaged(), 0);
    assert_eq!(report.orphans.names, [world.name(orphan)]);
    assert_eq!(report.unknown.names, [ObjectName::listed("notes.txt")]);
}

#[test]
fn only_the_source_that_was_asked_for() {
    let (world, points) = World::filled();
    std::fs::remove_file(world.file(&world.name(world.pack(&points[0], 0)))).unwrap();
    let logs = RepoLog::open(world.repo.store().clone(), world.env.clone(), world.repo.realm());
    logs.add_source("other", SourceKind::Tree, origin::here(b"/other")).unwrap();
    let of = |name: &str| Options { sources: Some(vec![name.to_owned()]), ..Options::default() };
    assert_eq!(verify(&world.repo, &of("other"), &Progress::new()).unwrap().damaged(), 0);
    assert!(verify(&world.repo, &of("home"), &Progress::new()).unwrap().damaged() > 0);
    let error = verify(&world.repo, &of("othr"), &Progress::new()).unwrap_err();
    assert!(error.to_string().contains("did you mean \"other\""), "{error}");
}

#[test]
fn it_stops_when_asked_to() {
    let (world, _) = World::filled();
    let progress = Progress::new();
    progress.cancel();
    let error = verify(&world.repo, &Options::default(), &progress).unwrap_err();
    assert!(matches!(error, VerifyError::Cancelled));
}

#[test]
fn a_frame_that_was_replaced_together_with_its_pack_is_still_another() {
    let (world, points) = World::filled();
    // The same bytes, shifted: header, footer and trailer agree with one another, and with no reference.
    let pack = world.pack(&points[3], 0);
    let (footer, offset, _) = locate_footer(&world.repo.reader(world.source.id), pack).unwrap();
    let header = crate::format::pack::header(world.repo.id(), world.source.id, pack);
    world.change(&world.name(pack), |bytes| {
        bytes.truncate(usize::try_from(offset).unwrap());
        let first = bytes.split_off(header.len());
        let (head, _) = first.split_at(crate::format::frame::HEADER_BYTES + footer.frames[0].stored_bytes as usize);
        let mut rebuilt = header.clone();
        rebuilt.extend_from_slice(head);
        rebuilt.extend_from_slice(&first);
        let mut frames = vec![footer.frames[0].clone()];
        frames.extend(footer.frames.iter().cloned());
        let listed = crate::format::pack::Footer { frames };
        let end = rebuilt.len() as u64;
        rebuilt.extend_from_slice(&listed.encode(&header, end));
        *bytes = rebuilt;
    });
    let report = world.verify(true);
    assert_eq!(report.damaged(), 1, "{:?}", report.findings);
    assert_eq!(report.findings[0].object, world.name(pack));
    assert_eq!(report.sources[0].touched, [points[3].name()]);
}
