//! Trees and the caches before them: names looked up and listed, cold and warm, as a mount without a kernel does.

use amberfs::repo::CacheSizes;
use amberfs::view::namespace::{Namespace, NodeId};

use crate::fixture::{both, words};
use crate::measure;

const DIRECTORIES: usize = 100;
const EACH: usize = 200;

pub(crate) fn run() {
    both(|world, kind| {
        for n in 0..DIRECTORIES * EACH {
            world.write(&format!("d{:03}/a-name-as-files-have-{:03}.c", n / EACH, n % EACH), &words(n, 500 + n % 999));
        }
        world.capture();
        let top = |view: &amberfs::view::MountView| -> NodeId {
            ["home", "points"]
                .iter()
                .fold(NodeId::ROOT, |dir, name| view.lookup(dir, name.as_bytes()).expect("look up").attr.node)
        };
        let point = |view: &amberfs::view::MountView| {
            let mut newest = None;
            view.read_dir(top(view), 0, &mut |item| {
                newest = item.found.ok().map(|found| found.attr.node);
                true
            })
            .expect("list the points");
            newest.expect("a point")
        };
        let walk = |view: &amberfs::view::MountView| {
            let (mut directories, mut names) = (vec![point(view)], 0);
            while let Some(directory) = directories.pop() {
                view.read_dir(directory, 0, &mut |item| {
                    let attr = item.found.expect("an entry").attr;
                    names += 1;
                    if attr.kind == amberfs::view::namespace::FileKind::Directory {
                        directories.push(attr.node);
                    }
                    true
                })
                .expect("list a directory");
            }
            assert_eq!(names, DIRECTORIES * (EACH + 1));
        };
        let all = DIRECTORIES * (EACH + 1);
        measure(&format!("list every directory, caches empty, {kind}, each name"), all, || {
            walk(&world.mount(CacheSizes::default()));
        });
        let view = world.mount(CacheSizes::default());
        measure(&format!("list every directory, nodes decoded, {kind}, each name"), all, || walk(&view));
        let directory = view.lookup(point(&view), b"d050").expect("look up").attr.node;
        measure(&format!("look up a name, nodes decoded, {kind}"), EACH, || {
            for n in 0..EACH {
                let name = format!("a-name-as-files-have-{n:03}.c");
                std::hint::black_box(view.lookup(directory, name.as_bytes()).expect("look up"));
            }
        });
    });
}
