//! The pipeline of a capture into a store in memory: everything but the disks. All its threads are counted.

use crate::fixture::{World, both, noise, words};
use crate::measure;

const FILES: usize = 4000;
const LARGE: usize = 64 << 20;

/// What is captured: in words, how many units it is, and how it is written.
type Source = (&'static str, usize, fn(&World));

fn small(world: &World) {
    for n in 0..FILES {
        world.write(&format!("d{}/f{n}", n / 100), &words(n, 1000 + n * 4));
    }
}

pub(crate) fn run() {
    for (encrypted, kind) in [(false, "plain"), (true, "encrypted")] {
        let sources: [Source; 3] = [
            ("small files of text, each", FILES, small),
            ("a large file of text, each MiB", LARGE >> 20, |world| world.write("text", &words(1, LARGE))),
            ("a large file of noise, each MiB", LARGE >> 20, |world| world.write("noise", &noise(1, LARGE))),
        ];
        for (what, units, fill) in sources {
            let filled = World::new(encrypted);
            fill(&filled);
            measure(&format!("capture {what}, {kind}"), units, || World::new(encrypted).capture_of(&filled.root()));
        }
    }
    both(|world, kind| {
        for n in 0..FILES {
            world.write(&format!("d{}/f{n}", n / 100), &words(n, 1000));
        }
        world.capture();
        measure(&format!("capture files that have not changed, {kind}, each"), FILES, || world.capture());
    });
}
