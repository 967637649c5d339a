//! Points that are well-formed to the last byte and contradict themselves: what a writer that errs or lies
//! could commit. Each rule is broken once.

use super::*;
use crate::format::entry::{Body, Content, Entry, Extent, Meta};
use crate::format::frame;
use crate::format::leaf::{Entries, Maps, Usage};
use crate::format::log::{Commit, NodeRef, Roots};
use crate::format::map::MapPage;
use crate::format::node::{Branch, Child, Node};
use crate::format::{ChunkRef, FileId, Key};
use crate::repo::Session;
use crate::repo::tree::{Delta, Tree, TreeWriter};
use crate::view::PointView;

/// Changes to a point's trees.
#[derive(Default)]
struct Forgery {
    entries: Vec<(Key, Option<Entry>)>,
    maps: Vec<(Key, Option<MapPage>)>,
    usage: Vec<(Key, Delta)>,
    next_file: Option<FileId>,
}

fn world() -> (World, Vec<Arc<Point>>) {
    let world = World::new();
    world.write("a/b/file", &noise(500, 1));
    world.write("a/other", &noise(600, 2));
    world.write("c/large", &noise(70_000, 3));
    std::fs::hard_link(world.path("a/other"), world.path("c/link")).unwrap();
    // More extents than an entry holds.
    let sparse = std::fs::File::create(world.path("sparse")).unwrap();
    for spot in 0..12 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, &noise(100, 10 + spot), spot * 100 * 4096).unwrap();
    }
    sparse.set_len(6 << 20).unwrap();
    let points = vec![world.capture(false), world.capture(true)];
    (world, points)
}

impl World {
    fn view(&self, point: &Point) -> PointView {
        PointView::new(&self.repo, self.source.id, &point.commit.roots)
    }

    /// The entry under a path, and its key; links are not followed.
    fn entry(&self, point: &Point, path: &str) -> (Key, Entry) {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let view = self.view(point);
        let above = view.walk(above.split('/').filter(|name| !name.is_empty()).map(str::as_bytes)).unwrap();
        let Body::Directory { id, .. } = above.entry().body else { panic!("{path} is in no directory") };
        let key = Key::entry(id, name.as_bytes());
        let item = view.entries().get(&key).unwrap().unwrap();
        (key, item.value().clone())
    }

    fn directory(&self, point: &Point, path: &str) -> FileId {
        match self.entry(point, path).1.body {
            Body::Directory { id, .. } => id,
            _ => panic!("{path} is no directory"),
        }
    }

    fn commit(&self, point: &Point, write: impl FnOnce(&Session) -> (Roots, Option<FileId>)) -> Arc<Point> {
        self.env.advance(Duration::from_secs(60));
        let id = self.log.begin().unwrap();
        let session = Session::begin(&self.repo, self.source.id, point.chain(), id).unwrap();
        let (roots, next_file) = write(&session);
        let packs = session.finish().unwrap().packs;
        let started = self.env.now();
        let commit = Commit {
            session: id,
            parent: Some(point.id),
            name: crate::chain::name::of_instant(started),
            started,
            captured: started,
            roots,
            packs,
            next_file: next_file.unwrap_or(point.commit.next_file),
            ..(*point.commit).clone()
        };
        self.log.commit(commit).unwrap()
    }

    /// A point that is `point` with these changes.
    fn forge(&self, point: &Point, forgery: Forgery) -> Arc<Point> {
        let old = point.commit.roots;
        self.commit(point, |session| {
            let mut entries = TreeWriter::<Entries>::new(session, Some(old.entries));
            let mut edits = forgery.entries;
            edits.sort_by(|a, b| a.0.cmp(&b.0));
            entries.apply(edits).unwrap();
            let mut maps = TreeWriter::<Maps>::new(session, old.maps);
            maps.apply(forgery.maps).unwrap();
            let mut usage = TreeWriter::<Usage>::new(session, old.usage);
            usage.apply(forgery.usage).unwrap();
            let roots = Roots {
                entries: entries.finish().unwrap().unwrap(),
                maps: maps.finish().unwrap(),
                usage: usage.finish().unwrap(),
            };
            (roots, forgery.next_file)
        })
    }

    /// That a verification finds this in this point, and nothing in those that were captured.
    #[track_caller]
    fn assert_found(&self, point: &Point, what: &str) {
        let report = self.verify(false);
        let faults: Vec<String> = report.findings.iter().flat_map(|f| &f.faults).map(|f| f.what.clone()).collect();
        assert!(faults.iter().any(|fault| fault.contains(what)), "{what}: {faults:?}");
        assert!(report.findings.iter().all(|finding| finding.harm == Harm::Contradiction), "{faults:?}");
        let state = self.log.refresh().unwrap();
        let captured: Vec<&str> = state.points().iter().take(2).map(|point| point.name()).collect();
        assert!(!captured.contains(&point.name()));
        assert!(report.sources[0].touched.iter().all(|name| !captured.contains(&name.as_str())), "{what}");
    }
}

fn usage(chunk: &ChunkRef) -> Key {
    Key::usage(chunk.frame.pack, chunk.frame.ordinal)
}

fn only_extent(entry: &Entry) -> Extent {
    match &entry.body {
        Body::File(Content::Extents(extents)) => extents[0],
        body => panic!("no extents: {body:?}"),
    }
}

#[test]
fn nothing_forged_is_nothing_found() {
    let (world, points) = world();
    let same = world.forge(&points[1], Forgery::default());
    assert_eq!(same.commit.roots, points[1].commit.roots);
    assert_eq!(world.verify(true).damaged(), 0);
}

#[test]
fn a_usage_tree_that_counts_wrongly() {
    let (world, points) = world();
    let (_, file) = world.entry(&points[1], "c/large");
    let forgery = Forgery { usage: vec![(usage(&only_extent(&file).chunk), Delta(1))], ..Forgery::default() };
    let forged = world.forge(&points[1], forgery);
    world.assert_found(&forged, "its usage tree counts");
}

#[test]
fn a_usage_tree_that_counts_another_frame() {
    let (world, points) = world();
    let of = |path| usage(&only_extent(&world.entry(&points[1], path).1).chunk);
    let mut both = vec![(of("c/large"), Delta(-1)), (of("a/b/file"), Delta(1))];
    both.sort_by(|a, b| a.0.cmp(&b.0));
    let forged = world.forge(&points[1], Forgery { usage: both, ..Forgery::default() });
    world.assert_found(&forged, "or they are to other frames");
}

#[test]
fn links_and_records_without_each_other() {
    let (world, points) = world();
    let (first, link) = world.entry(&points[1], "a/other");
    let (second, _) = world.entry(&points[1], "c/link");
    let Body::Link(id) = link.body else { panic!("no link") };
    let record = world.view(&points[1]).entries().get(&Key::inode(id)).unwrap().unwrap().value().clone();
    let lost = vec![(usage(&only_extent(&record).chunk), Delta(-1))];
    let no_record = Forgery { entries: vec![(Key::inode(id), None)], usage: lost, ..Forgery::default() };
    world.assert_found(&world.forge(&points[1], no_record), &format!("inode {id} has 2 names and 0 records"));
    let no_names = Forgery { entries: vec![(first, None), (second, None)], ..Forgery::default() };
    world.assert_found(&world.forge(&points[1], no_names), &format!("inode {id} has 0 names and 1 records"));
}

#[test]
fn directories_that_are_not_where_they_say() {
    let (world, points) = world();
    let point = &points[1];
    let (key, entry) = world.entry(point, "a/b");
    let (a, b, c) = (world.directory(point, "a"), world.directory(point, "a/b"), world.directory(point, "c"));
    let forge = |entries| world.forge(point, Forgery { entries, ..Forgery::default() });

    let unnamed = forge(vec![(key.clone(), None)]);
    world.assert_found(&unnamed, &format!("directory {b} with 1 entries has 0 names"));
    let twice = forge(vec![(Key::entry(c, b"again"), Some(entry.clone()))]);
    world.assert_found(&twice, &format!("directory {b} with 1 entries has 2 names"));
    let moved = forge(vec![(key.clone(), None), (Key::entry(c, b"b"), Some(entry.clone()))]);
    world.assert_found(&moved, &format!("not all directories in directory {c} know it as their parent"));

    // Each is in the other.
    let (a_key, a_entry) = world.entry(point, "a");
    let inside = Key::entry(b, b"a");
    let directory =
        |id, parent: &Key, like: &Entry| Entry { body: Body::Directory { id, parent: parent.clone() }, ..like.clone() };
    let circle = forge(vec![
        (a_key, None),
        (inside.clone(), Some(directory(a, &key, &a_entry))),
        (key.clone(), Some(directory(b, &inside, &entry))),
    ]);
    world.assert_found(&circle, &format!("directory {a} cannot be reached from the root"));
    world.assert_found(&circle, &format!("directory {b} cannot be reached from the root"));

    let rootless = forge(vec![(Key::root(), None)]);
    world.assert_found(&rootless, "directory 1 with 3 entries has 0 names");
}

#[test]
fn what_is_broken_is_told_of_every_point_that_has_it() {
    let (world, points) = world();
    let (key, entry) = world.entry(&points[1], "a/b");
    let broken = world.forge(&points[1], Forgery { entries: vec![(key.clone(), None)], ..Forgery::default() });
    let still = world.forge(&broken, Forgery::default());
    let healed = world.forge(&still, Forgery { entries: vec![(key, Some(entry))], ..Forgery::default() });
    assert_eq!(healed.commit.roots.entries.items, points[1].commit.roots.entries.items);
    let report = world.verify(false);
    assert_eq!(report.sources[0].touched, [broken.name(), still.name()]);
    assert_eq!(report.damaged(), 2);
}

#[test]
fn maps_without_pages_and_pages_without_files() {
    let (world, points) = world();
    let point = &points[1];
    let (key, entry) = world.entry(point, "sparse");
    let Body::File(Content::Mapped { id, data_bytes }) = entry.body else { panic!("not mapped: {entry:?}") };
    let with = |body| Some(Entry { body, ..entry.clone() });
    let short = with(Body::File(Content::Mapped { id, data_bytes: data_bytes + 1 }));
    let forged = world.forge(point, Forgery { entries: vec![(key.clone(), short)], ..Forgery::default() });
    world.assert_found(&forged, &format!("map {id} belongs to 1 files and has 1 pages"));
    let hole = with(Body::File(Content::Hole));
    let forged = world.forge(point, Forgery { entries: vec![(key, hole)], ..Forgery::default() });
    world.assert_found(&forged, &format!("map {id} belongs to 0 files"));
}

#[test]
fn pages_that_overlap() {
    let (world, points) = world();
    let point = &points[1];
    let tree = Tree::<Maps>::new(world.repo.reader(world.source.id), point.commit.roots.maps);
    let item = tree.at(0).unwrap().unwrap();
    let (file, _) = item.key().split_page().unwrap();
    let last = *item.value().extents.last().unwrap();
    let page = MapPage { extents: vec![last] };
    let forgery = Forgery {
        maps: vec![(Key::page(file, last.offset), Some(page))],
        usage: vec![(usage(&last.chunk), Delta(1))],
        ..Forgery::default()
    };
    let forged = world.forge(point, forgery);
    world.assert_found(&forged, "behind where the next begins");
}

#[test]
fn identities_beyond_those_of_the_commit() {
    let (world, points) = world();
    let forged = world.forge(&points[1], Forgery { next_file: Some(FileId(2)), ..Forgery::default() });
    world.assert_found(&forged, "says that 2 is the first unused");
}

#[test]
fn references_that_leave_the_chain_or_the_chunk() {
    let (world, points) = world();
    let (_, foreign) = world.entry(&points[0], "c/large");
    let (key, own) = world.entry(&points[1], "c/large");
    let (foreign, extent) = (only_extent(&foreign), only_extent(&own));
    let with = |extent: Extent| {
        let size = extent.offset + u64::from(extent.chunk.bytes);
        let body = Body::File(Content::Extents(vec![extent]));
        vec![(key.clone(), Some(Entry { meta: Meta { size, ..own.meta }, body, ..own.clone() }))]
    };
    let mut counts = vec![(usage(&foreign.chunk), Delta(1)), (usage(&extent.chunk), Delta(-1))];
    counts.sort_by(|a, b| a.0.cmp(&b.0));
    let forged = world.forge(&points[1], Forgery { entries: with(foreign), usage: counts, ..Forgery::default() });
    world.assert_found(&forged, "neither it nor an older point of its chain has written");

    let within = Extent { chunk: ChunkRef { start: 10, bytes: extent.chunk.bytes - 10, ..extent.chunk }, ..extent };
    let forged = world.forge(&points[1], Forgery { entries: with(within), ..Forgery::default() });
    world.assert_found(&forged, "which are no chunk");
}

#[test]
fn a_node_that_stands_twice_ends_the_walk_and_not_the_memory() {
    let (world, points) = world();
    let old = points[1].commit.roots;
    let forged = world.commit(&points[1], |session| {
        let mut node = old.entries;
        // Eight levels of 128 times the same: 2^56 leaves for whoever believes it.
        for level in 1..=8 {
            let child = |number: u8| Child { first: Key(vec![0, number]), branch: Branch::whole(node) };
            let inner = Node::<Entries>::Inner((0..128).map(child).collect());
            let bytes = inner.encode(level);
            let items = node.items * 128;
            let frame = session.append(frame::encode(FrameKind::Entries, &bytes, 0), &[]).unwrap();
            node = NodeRef { frame, level, items };
        }
        (Roots { entries: node, ..old }, None)
    });
    world.assert_found(&forged, "are not within");
    assert_eq!(world.verify(false).sources[0].touched, [forged.name()]);
}
