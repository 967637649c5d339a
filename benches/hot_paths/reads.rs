//! Contents read as a kernel asks for them, without the kernel: from the store, and from the cache of frames.

use amberfs::repo::CacheSizes;
use amberfs::view::MountView;
use amberfs::view::namespace::{Namespace, NodeId};

use crate::fixture::{both, noise, words};
use crate::measure;

const LARGE: usize = 64 << 20;
const PIECE: usize = 1 << 20;
const SMALL: usize = 2000;

fn file(view: &MountView, path: &str) -> NodeId {
    let points = view.lookup(NodeId::ROOT, b"home").and_then(|home| view.lookup(home.attr.node, b"points"));
    let mut newest = None;
    view.read_dir(points.expect("the points").attr.node, 0, &mut |item| {
        newest = item.found.ok().map(|found| found.attr.node);
        true
    })
    .expect("list the points");
    path.split('/')
        .fold(newest.expect("a point"), |dir, name| view.lookup(dir, name.as_bytes()).expect("look up").attr.node)
}

fn read_through(view: &MountView, node: NodeId) {
    for at in (0..LARGE).step_by(PIECE) {
        std::hint::black_box(view.read(node, at as u64, PIECE).expect("read"));
    }
}

pub(crate) fn run() {
    both(|world, kind| {
        world.write("text", &words(1, LARGE));
        world.write("noise", &noise(1, LARGE));
        for n in 0..SMALL {
            world.write(&format!("small/f{n:04}"), &words(n, 1000 + n * 8));
        }
        world.capture();
        // Larger caches than files would have the second run read from memory.
        let sizes = CacheSizes { frames: 16 << 20, ..CacheSizes::default() };
        let view = world.mount(sizes);
        for name in ["text", "noise"] {
            let node = file(&view, name);
            measure(&format!("read a large file of {name} in order, {kind}, each MiB"), LARGE >> 20, || {
                read_through(&view, node);
            });
        }
        let node = file(&view, "noise");
        let mut at = 0u64;
        measure(&format!("read 4 KiB at random out of noise, {kind}"), 256, || {
            for _ in 0..256 {
                at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                std::hint::black_box(view.read(node, (at >> 20) % (LARGE as u64 - 4096), 4096).expect("read"));
            }
        });
        measure(&format!("read 4 KiB of a frame that is in memory, {kind}"), 256, || {
            for part in 0..256 {
                std::hint::black_box(view.read(node, part % 16 * 4096, 4096).expect("read"));
            }
        });
        let small: Vec<NodeId> = (0..SMALL).map(|n| file(&view, &format!("small/f{n:04}"))).collect();
        measure(&format!("read small files in order, {kind}, each"), SMALL, || {
            for node in &small {
                std::hint::black_box(view.read(*node, 0, 128 << 10).expect("read"));
            }
        });
    });
}
