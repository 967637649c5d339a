//! Random histories of a directory and its captures, against a naive memory of what was there.
//!
//! Every point of a history (`history.rs`) is read back as a mount would show it, without a kernel, and compared;
//! `tests/mount/histories.rs` does so through a kernel mount. A failing history prints its seed;
//! `AMBERFS_HISTORIES` sets how many are tried.

use amberfs::store::Store;
use amberfs::view::namespace::{FileKind, Namespace};

use crate::history::{History, each, play};
use crate::world::{Manifest, Seen, names, node, same, shown};

/// What is rare in the histories, of which each must come up: attributes, pipes, files of 256 MiB and more.
type Rare = [bool; 3];

fn history(seed: u64) -> Rare {
    let History { world, mut dice, remembered } = play(seed, Store::memory());
    let view = world.mount();
    let points = node(&view, "home/points");
    let listed: Vec<String> =
        names(&view, points).into_iter().map(|(name, _)| String::from_utf8(name).unwrap()).collect();
    assert_eq!(listed, remembered.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
    for (name, expected) in &remembered {
        let root = node(&view, &format!("home/points/{name}"));
        let piece = [1 << 20, 70_001, 4096][dice.roll(3) as usize];
        same(expected, &shown(&view, root, piece), name);
        holes_read_as_data_does(&view, root, expected);
    }
    let newest = &remembered.last().unwrap().0;
    let latest = view.read_link(node(&view, "home/latest")).unwrap();
    assert_eq!(latest, format!("points/{newest}").into_bytes());
    let any = |is: fn(&Seen) -> bool| remembered.iter().any(|(_, manifest)| manifest.values().any(is));
    [any(|seen| !seen.xattrs.is_empty()), any(|seen| seen.kind == FileKind::Fifo), any(|seen| seen.size >= 256 << 20)]
}

/// Seeking from data to hole to data covers the file, and what lies in holes is zeros.
fn holes_read_as_data_does(view: &dyn Namespace, root: amberfs::view::namespace::NodeId, expected: &Manifest) {
    use amberfs::view::namespace::SeekTo;
    for (path, seen) in expected.iter().filter(|(_, seen)| seen.kind == FileKind::Regular) {
        let file = path.split(|b| *b == b'/').fold(root, |dir, name| view.lookup(dir, name).unwrap().attr.node);
        // Of a large file only the hash is known.
        if seen.content.len() as u64 != seen.size {
            continue;
        }
        let mut at = 0;
        while at < seen.size {
            let data = view.seek(file, at, SeekTo::Data).unwrap_or(seen.size);
            let hole = &seen.content[at as usize..data as usize];
            assert!(hole.iter().all(|byte| *byte == 0), "{}: data in a hole at {at}", path.escape_ascii());
            if data == seen.size {
                break;
            }
            at = view.seek(file, data, SeekTo::Hole).unwrap();
            assert!(at > data);
        }
    }
}

#[test]
fn every_point_of_any_history_is_as_the_source_was() {
    let mut met = Rare::default();
    let histories = each(1, |seed| met.iter_mut().zip(history(seed)).for_each(|(met, rare)| *met |= rare));
    assert!(histories < 40 || met == [true; 3], "too seldom to be tried: {met:?}");
}
