//! What is measured: each in a process of its own, which knows nothing yet.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use amberfs::capture::{Options, Progress, capture_tree};
use amberfs::verify;
use amberfs::view::namespace::{FileKind, Namespace, NodeId};
use amberfs::view::{MountSettings, MountView};

use crate::synthetic::{self, EACH, directory_name, file_name};

/// Seconds that `what` takes in the repository at `place`.
pub(crate) fn measured(what: &str, place: &Path, count: u64) -> f64 {
    match what {
        "make entries" => timed(|| synthetic::fill(place, count)),
        "make points" => timed(|| synthetic::repeat(place, count)),
        "mount" => timed(|| drop(points(&mount(place)))),
        "ls" => timed(|| {
            let view = mount(place);
            let top = middle(&view);
            let directory = view.lookup(top, directory_name(some(&view, top)).as_bytes()).expect("look up").attr.node;
            let mut names = 0;
            each(&view, directory, |_, _| names += 1);
            assert!(names > 0);
        }),
        "byte" => timed(|| {
            let view = mount(place);
            let top = middle(&view);
            let directory = view.lookup(top, directory_name(some(&view, top)).as_bytes()).expect("look up").attr.node;
            let file = view.lookup(directory, file_name(EACH / 2).as_bytes()).expect("look up").attr.node;
            assert_eq!(view.read(file, 0, 1).expect("read").len(), 1);
        }),
        "find" => timed(|| find(&mount(place), 1)),
        "find by readers" => {
            let view = mount(place);
            timed(|| find(&view, count))
        }
        "files by readers" => {
            let view = mount(place);
            timed(|| files(&view, count))
        }
        "verify" => {
            let (repo, ..) = synthetic::opened(place);
            timed(|| {
                let report =
                    verify::verify(&repo, &verify::Options::default(), &verify::Progress::new()).expect("verify");
                assert_eq!(report.damaged(), 0, "{report:?}");
            })
        }
        "full capture" => {
            let tree = place.with_extension("files");
            for number in 0..count {
                let directory = tree.join(directory_name(number / EACH));
                std::fs::create_dir_all(&directory).expect("make a directory");
                std::fs::write(directory.join(file_name(number % EACH)), format!("{number:>100}")).expect("write");
            }
            std::thread::sleep(amberfs::capture::RACY);
            capture(place, &tree)
        }
        "unchanged capture" => capture(place, &place.with_extension("files")),
        "changed capture" => {
            let tree = place.with_extension("files");
            let file = tree.join(directory_name(0)).join(file_name(7));
            let before = std::fs::read(&file).expect("read");
            std::fs::write(file, [&before[..], b"more"].concat()).expect("write");
            capture(place, &tree)
        }
        other => panic!("nothing is called {other}"),
    }
}

fn timed(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64()
}

fn mount(place: &Path) -> MountView {
    let (repo, ..) = synthetic::opened(place);
    let (zone, refresh) = (|| jiff::tz::TimeZone::UTC, Duration::from_secs(3600));
    let settings = MountSettings { owner: (0, 0), own_all: false, refresh, zone, sum_up: false };
    MountView::open(repo, settings).expect("open a view")
}

fn each(view: &MountView, directory: NodeId, mut with: impl FnMut(NodeId, FileKind)) {
    view.read_dir(directory, 0, &mut |item| {
        let attr = item.found.expect("an entry").attr;
        with(attr.node, attr.kind);
        true
    })
    .expect("list a directory");
}

fn points(view: &MountView) -> Vec<NodeId> {
    let points = ["bench", "points"]
        .iter()
        .fold(NodeId::ROOT, |dir, name| view.lookup(dir, name.as_bytes()).expect("look up").attr.node);
    let mut found = Vec::new();
    each(view, points, |node, _| found.push(node));
    found
}

/// The point in the middle of all.
fn middle(view: &MountView) -> NodeId {
    let points = points(view);
    points[points.len() / 2]
}

/// A directory in the middle of all.
fn some(view: &MountView, top: NodeId) -> u64 {
    let mut directories = 0;
    each(view, top, |_, _| directories += 1);
    directories / 2
}

/// Lists all directories of the first point, by so many threads.
fn find(view: &MountView, readers: u64) {
    over_directories(view, readers, |_| ());
}

/// Reads all files of the first point, by so many threads.
fn files(view: &MountView, readers: u64) {
    over_directories(view, readers, |file| assert!(!view.read(file, 0, 4096).expect("read").is_empty()));
}

fn over_directories(view: &MountView, readers: u64, with: impl Fn(NodeId) + Sync) {
    let mut directories = Vec::new();
    each(view, points(view)[0], |node, _| directories.push(node));
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..readers {
            scope.spawn(|| {
                while let Some(directory) = directories.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut found = Vec::new();
                    each(view, *directory, |node, _| found.push(node));
                    found.into_iter().for_each(&with);
                }
            });
        }
    });
}

fn capture(place: &Path, tree: &Path) -> f64 {
    let (repo, source, log) = synthetic::opened(place);
    timed(|| drop(capture_tree(&repo, &log, &source, tree, &Options::default(), &Progress::new()).expect("capture")))
}
