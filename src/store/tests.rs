//! What every store must do, and what a local one must do besides.

mod faults;
mod leases;
mod machine;
mod remote;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Barrier;

use super::*;
use crate::base::{Class, Classed, Env, Instant, limits};
use crate::format::object::ObjectName;

fn name(text: &str) -> ObjectName {
    ObjectName::listed(text)
}

fn names(listed: &[Listed]) -> Vec<&str> {
    listed.iter().map(|l| l.name.as_str()).collect()
}

/// A local store in a directory of its own, which lives as long as the guard.
fn local() -> (tempfile::TempDir, Store, PathBuf) {
    let guard = tempfile::tempdir().unwrap();
    let root = guard.path().join("store");
    let store = Store::create_local(&root).unwrap();
    (guard, store, root)
}

/// Runs `test` on every kind of store: in memory, local, and local by the way that wrappers see.
fn every_store(test: impl Fn(&str, &Store)) {
    test("memory", &Store::memory());
    let (_guard, store, _) = local();
    test("local", &store);
    let (_guard, store, _) = local();
    test("local, wrapped", &store.wrapped(|objects| objects));
}

#[test]
fn what_is_created_is_read_back() {
    every_store(|kind, store| {
        let object = name("source/00000001/log/00000000000000000001");
        assert_eq!(store.create(&object, b"content".to_vec()).unwrap(), Created::New, "{kind}");
        assert_eq!(store.create(&object, b"other".to_vec()).unwrap(), Created::Exists, "{kind}");
        assert_eq!(store.get(&object, 7).unwrap(), "content", "{kind}");
        assert_eq!(store.size(&object).unwrap(), 7, "{kind}");
        assert_eq!(store.get_range(&object, 1..4).unwrap(), "ont", "{kind}");
        assert_eq!(store.get_range(&object, 0..7).unwrap(), "content", "{kind}");
        assert_eq!(store.tail(&object, 3).unwrap(), ("ent".into(), 7), "{kind}");
        assert_eq!(store.tail(&object, 99).unwrap(), ("content".into(), 7), "{kind}");
    });
}

#[test]
fn an_empty_object_is_an_object() {
    every_store(|kind, store| {
        let object = name("empty");
        assert_eq!(store.create(&object, Vec::new()).unwrap(), Created::New, "{kind}");
        assert_eq!(store.get(&object, 0).unwrap(), "", "{kind}");
        assert_eq!(store.tail(&object, 8).unwrap(), ("".into(), 0), "{kind}");
        assert_eq!(store.get_range(&object, 0..1).unwrap_err().class(), Class::Corrupt, "{kind}");
        assert_eq!(names(&store.list("", None, None).unwrap()), ["empty"], "{kind}");
    });
}

#[test]
fn a_missing_object_is_not_found_whatever_is_asked() {
    every_store(|kind, store| {
        store.create(&name("a/there"), vec![1]).unwrap();
        for object in [name("missing"), name("a/missing"), name("a/b/c/missing")] {
            for error in [
                store.get(&object, 9).unwrap_err(),
                store.get_range(&object, 0..1).unwrap_err(),
                store.tail(&object, 1).unwrap_err(),
                store.size(&object).unwrap_err(),
            ] {
                assert_eq!(error.class(), Class::NotFound, "{kind}: {error}");
                assert!(error.to_string().contains(object.as_str()), "{kind}: {error}");
            }
            store.delete(&object).unwrap();
        }
    });
}

#[test]
fn what_is_truncated_or_too_large_is_corrupt_and_says_by_how_much() {
    every_store(|kind, store| {
        let object = name("object");
        store.create(&object, vec![7; 100]).unwrap();
        for range in [90..101, 100..101, 200..300] {
            let error = store.get_range(&object, range.clone()).unwrap_err();
            let found = match error {
                StoreError::Truncated { expected, actual, .. } => (expected, actual),
                other => panic!("{kind}: {range:?}: {other}"),
            };
            assert_eq!(found, (range.end, 100), "{kind}");
        }
        let error = store.get(&object, 99).unwrap_err();
        assert!(matches!(error, StoreError::Oversized { most: 99, actual: 100, .. }), "{kind}: {error}");
        assert_eq!(error.class(), Class::Corrupt, "{kind}");
        assert_eq!(store.get_range(&object, 5..5).unwrap_err().class(), Class::Invalid, "{kind}");
    });
}

#[test]
fn one_of_many_creations_wins_and_its_bytes_stay() {
    every_store(|kind, store| {
        for round in 0..4 {
            let object = name(&format!("source/{round}/log/1"));
            let start = Barrier::new(16);
            let won: Vec<u8> = std::thread::scope(|scope| {
                let racers: Vec<_> = (0..16u8)
                    .map(|racer| {
                        let (start, object) = (&start, &object);
                        scope.spawn(move || {
                            start.wait();
                            (racer, store.create(object, vec![racer; 1000]).unwrap())
                        })
                    })
                    .collect();
                let ended = racers.into_iter().map(|racer| racer.join().unwrap());
                ended.filter(|(_, created)| *created == Created::New).map(|(racer, _)| racer).collect()
            });
            assert_eq!(won.len(), 1, "{kind}");
            assert_eq!(store.get(&object, 1000).unwrap(), vec![won[0]; 1000], "{kind}");
        }
    });
}

#[test]
fn lists_are_sorted_by_name_from_anywhere_and_end_early() {
    every_store(|kind, store| {
        let all = ["a", "a-b", "a.c", "b", "dir-x", "dir/1", "dir/2", "dir/sub/1", "dir/sub/2", "dir0", "z"];
        for object in all.iter().rev() {
            // A file and a directory of one name do not go together on disk.
            store.create(&name(object), vec![0; object.len()]).unwrap();
        }
        let listed = store.list("", None, None).unwrap();
        assert_eq!(names(&listed), all, "{kind}");
        assert!(listed.iter().all(|l| l.bytes == l.name.as_str().len() as u64), "{kind}");
        assert_eq!(names(&store.list("dir/", None, None).unwrap()), all[5..9], "{kind}");
        assert_eq!(names(&store.list("dir/sub/", None, None).unwrap()), all[7..9], "{kind}");
        assert_eq!(names(&store.list("dir", None, None).unwrap()), all[4..10], "{kind}");
        assert_eq!(names(&store.list("dir/s", None, None).unwrap()), all[7..9], "{kind}");
        assert!(store.list("nothing/", None, None).unwrap().is_empty(), "{kind}");
        for after in 0..all.len() {
            for most in 0..all.len() {
                let expected: Vec<_> = all[after + 1..].iter().copied().take(most).collect();
                let listed = store.list("", Some(&name(all[after])), Some(most)).unwrap();
                assert_eq!(names(&listed), expected, "{kind}: after {} at most {most}", all[after]);
            }
        }
        assert_eq!(names(&store.list("dir/", Some(&name("dir/sub")), None).unwrap()), all[7..9], "{kind}");
        assert_eq!(names(&store.list("dir/", Some(&name("a")), Some(1)).unwrap()), ["dir/1"], "{kind}");
    });
}

#[test]
fn deleting_is_idempotent_and_takes_effect_at_once() {
    every_store(|kind, store| {
        let object = name("x/y");
        store.create(&object, vec![1, 2, 3]).unwrap();
        assert_eq!(store.get_range(&object, 0..2).unwrap().len(), 2, "{kind}");
        store.delete(&object).unwrap();
        store.delete(&object).unwrap();
        assert_eq!(store.get_range(&object, 0..2).unwrap_err().class(), Class::NotFound, "{kind}");
        assert_eq!(store.create(&object, vec![4]).unwrap(), Created::New, "{kind}");
        assert_eq!(store.get(&object, 9).unwrap(), vec![4], "{kind}");
    });
}

#[test]
fn names_that_could_lead_elsewhere_are_refused() {
    every_store(|kind, store| {
        for odd in ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a/./b", "a\nb", "a\0b"] {
            let error = store.create(&name(odd), vec![1]).unwrap_err();
            assert_eq!(error.class(), Class::Invalid, "{kind}: {odd:?}: {error}");
            for error in [
                store.upload(&name(odd)).unwrap_err(),
                store.get(&name(odd), 9).unwrap_err(),
                store.get_range(&name(odd), 0..1).unwrap_err(),
                store.tail(&name(odd), 9).unwrap_err(),
                store.size(&name(odd)).unwrap_err(),
                store.delete(&name(odd)).unwrap_err(),
            ] {
                assert_eq!(error.class(), Class::Invalid, "{kind}: {odd:?}: {error}");
            }
        }
        for odd in ["../", "/", "a/../", "./", "a//"] {
            assert_eq!(store.list(odd, None, None).unwrap_err().class(), Class::Invalid, "{kind}: {odd:?}");
        }
        for odd in ["a b", "ä", "%2e", "a%2fb", "a?b", "-", "~", "…", "#", "a#b"] {
            store.create(&name(odd), odd.as_bytes().to_vec()).unwrap();
            assert_eq!(store.get(&name(odd), 99).unwrap(), odd.as_bytes(), "{kind}: {odd}");
            assert_eq!(store.get_range(&name(odd), 0..1).unwrap(), odd.as_bytes()[..1], "{kind}: {odd}");
        }
        assert_eq!(store.list("", None, None).unwrap().len(), 10, "{kind}");
    });
}

#[test]
fn an_upload_arrives_whole_whatever_its_pieces() {
    let part = limits::UPLOAD_PART_BYTES;
    every_store(|kind, store| {
        for (case, pieces) in [vec![], vec![10], vec![part], vec![part, 1], vec![3, part, part, 5], vec![2 * part + 7]]
            .into_iter()
            .enumerate()
        {
            let object = name(&format!("packs/{case}"));
            let before = store.meter().snapshot();
            let mut upload = store.upload(&object).unwrap();
            let mut expected = Vec::new();
            for (index, bytes) in pieces.into_iter().enumerate() {
                // Every page differs, so that parts in the wrong order show.
                let mut piece = vec![index as u8; bytes];
                for (page, start) in piece.chunks_mut(4096).enumerate() {
                    start[0] ^= page as u8;
                    start[start.len() / 2] ^= (page >> 8) as u8;
                }
                expected.extend_from_slice(&piece);
                upload.write(piece).unwrap();
            }
            assert!(store.list("packs/", None, None).unwrap().iter().all(|l| l.name != object), "{kind}");
            upload.finish().unwrap();
            assert!(store.get(&object, 1 << 30).unwrap() == expected, "{kind}, case {case}");
            let used = store.meter().snapshot().since(&before);
            assert_eq!(used.bytes_written(), expected.len() as u64, "{kind}, case {case}");
            let parts = if expected.len() > part { expected.len().div_ceil(part) as u64 } else { 0 };
            assert_eq!(used.of(Operation::Part).requests, parts, "{kind}, case {case}");
            assert_eq!(used.of(Operation::Create).requests, u64::from(parts == 0), "{kind}, case {case}");
        }
    });
}

#[test]
fn an_upload_given_up_leaves_nothing() {
    let (_guard, store, root) = local();
    for finish in [false, true] {
        let object = name("packs/1");
        let mut upload = store.upload(&object).unwrap();
        upload.write(vec![1; limits::UPLOAD_PART_BYTES + 1]).unwrap();
        assert_eq!(fs::read_dir(root.join("packs")).unwrap().count(), 1, "the staging file");
        assert!(store.list("", None, None).unwrap().is_empty());
        if finish {
            upload.abort()
        } else {
            drop(upload)
        }
        assert_eq!(fs::read_dir(root.join("packs")).unwrap().count(), 0);
    }
}

#[test]
fn the_probe_finds_support_and_cleans_up() {
    every_store(|kind, store| {
        let env = Env::seeded(1, Instant::from_nanos(0));
        assert_eq!(store.probe(&env).unwrap(), CreateSupport::Honoured, "{kind}");
        assert!(store.list("", None, None).unwrap().is_empty(), "{kind}");
    });
}

fn creates(store: &Store) -> u64 {
    store.meter().snapshot().of(Operation::Create).requests
}

#[test]
fn a_process_probes_once_and_not_at_all_where_the_machine_remembers() {
    let (guard, first, root) = local();
    let memory = guard.path().join("state/proven");
    let env = Env::seeded(1, Instant::from_nanos(0));
    let support = |store: &Store| {
        assert_eq!(store.create_support(&env).unwrap(), CreateSupport::Honoured);
        creates(store)
    };
    let probe = support(&first);
    assert!(probe > 2);
    assert_eq!(support(&first), probe, "once in a process");

    let open = |root: &Path| {
        let store = Store::local(root).unwrap();
        store.keep_proof_in(memory.clone());
        store
    };
    assert_eq!(support(&open(&root)), probe, "nothing is remembered yet");
    assert_eq!(support(&open(&root)), 0);
    let anew = open(&root);
    anew.probe_anew(&env).unwrap();
    assert_eq!(creates(&anew), probe, "who asks for it gets it");

    // The same path, another directory; and another path, the same directory.
    let elsewhere = guard.path().join("elsewhere");
    fs::rename(&root, &elsewhere).unwrap();
    fs::create_dir(&root).unwrap();
    assert_eq!(support(&open(&root)), probe);
    assert_eq!(support(&open(&root)), 0);
    assert_eq!(support(&open(&elsewhere)), probe);
    // What is torn or unreadable is no proof.
    for kept in fs::read_dir(&memory).unwrap() {
        fs::write(kept.unwrap().path(), "0 0").unwrap();
    }
    assert_eq!(support(&open(&root)), probe);
    assert_eq!(support(&open(&root)), 0);
}

#[test]
fn calls_from_an_asynchronous_runtime_do_not_panic() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    every_store(|kind, store| {
        runtime.block_on(async {
            store.create(&name("x"), vec![1]).unwrap();
            assert_eq!(store.get(&name("x"), 1).unwrap(), vec![1], "{kind}");
        });
    });
}

#[test]
fn requests_and_bytes_are_counted() {
    every_store(|kind, store| {
        let before = store.meter().snapshot();
        store.create(&name("x"), vec![0; 10]).unwrap();
        store.create(&name("x"), vec![0; 10]).unwrap();
        store.get(&name("x"), 10).unwrap();
        store.get_range(&name("x"), 2..5).unwrap();
        store.get_range(&name("x"), 2..5).unwrap();
        store.tail(&name("x"), 4).unwrap();
        store.size(&name("x")).unwrap();
        store.size(&name("y")).unwrap_err();
        store.list("", None, None).unwrap();
        let used = store.meter().snapshot().since(&before);
        let counts = |operation| (used.of(operation).requests, used.of(operation).failures, used.of(operation).bytes);
        assert_eq!(counts(Operation::Create), (2, 0, 10), "{kind}");
        assert_eq!(counts(Operation::Get), (1, 0, 10), "{kind}");
        assert_eq!(counts(Operation::Range), (2, 0, 6), "{kind}");
        assert_eq!(counts(Operation::Tail), (1, 0, 4), "{kind}");
        assert_eq!(counts(Operation::Size), (2, 1, 0), "{kind}");
        assert_eq!(counts(Operation::List), (1, 0, 0), "{kind}");
        assert_eq!((used.requests(), used.bytes_read(), used.bytes_written()), (9, 20, 10), "{kind}");
    });
}

#[test]
fn a_new_local_store_is_private_and_only_where_nothing_was() {
    let guard = tempfile::tempdir().unwrap();
    let root = guard.path().join("new");
    let store = Store::create_local(&root).unwrap();
    assert_eq!(store.local_root(), Some(&*root.canonicalize().unwrap()));
    assert_eq!(store.describe(), format!("file://{}", root.canonicalize().unwrap().display()));
    store.create(&name("a/b/c"), vec![1]).unwrap();
    for directory in ["", "a", "a/b"] {
        assert_eq!(fs::metadata(root.join(directory)).unwrap().mode() & 0o777, 0o700, "{directory}");
    }

    let error = Store::create_local(&root).unwrap_err();
    assert!(matches!(error, StoreError::NotEmpty { .. }), "{error}");
    let empty = guard.path().join("empty");
    fs::create_dir_all(empty.join("lost+found")).unwrap();
    let store = Store::create_local(&empty).unwrap();
    assert!(store.list("", None, None).unwrap().is_empty());
    let error = Store::create_local(&guard.path().join("no/parent")).unwrap_err();
    assert_eq!(error.class(), Class::NotFound, "{error}");
    let error = Store::local(&guard.path().join("absent")).unwrap_err();
    assert_eq!(error.class(), Class::NotFound, "{error}");
    fs::write(guard.path().join("file"), "x").unwrap();
    assert!(Store::local(&guard.path().join("file")).is_err());
}

#[test]
fn unfinished_files_and_foreign_things_are_not_listed() {
    let (_guard, store, root) = local();
    store.create(&name("log/1"), vec![1]).unwrap();
    fs::write(root.join("log/2#1"), "half").unwrap();
    fs::write(root.join("log/2#17"), "half").unwrap();
    fs::create_dir(root.join("log/directory")).unwrap();
    symlink("1", root.join("log/link")).unwrap();
    symlink("/etc", root.join("etc")).unwrap();
    symlink("..", root.join("log/loop")).unwrap();
    assert_eq!(names(&store.list("", None, None).unwrap()), ["log/1"]);
}

#[test]
fn no_link_leads_out_of_the_store() {
    let (guard, store, root) = local();
    fs::create_dir(guard.path().join("outside")).unwrap();
    fs::write(guard.path().join("outside/secret"), "secret").unwrap();
    symlink("../outside", root.join("directory")).unwrap();
    symlink("../outside/secret", root.join("file")).unwrap();
    for object in ["file", "directory/secret"] {
        for error in [
            store.get(&name(object), 99).unwrap_err(),
            store.get_range(&name(object), 0..3).unwrap_err(),
            store.tail(&name(object), 3).unwrap_err(),
            store.size(&name(object)).unwrap_err(),
        ] {
            assert_eq!(error.class(), Class::Corrupt, "{object}: {error}");
        }
    }
    assert_eq!(store.list("directory/", None, None).unwrap_err().class(), Class::Corrupt);
    assert!(store.create(&name("directory/new"), vec![1]).is_err());
    assert_eq!(store.create(&name("file"), vec![1]).unwrap(), Created::Exists);
    assert_eq!(fs::read_dir(guard.path().join("outside")).unwrap().count(), 1);
    assert_eq!(fs::read(guard.path().join("outside/secret")).unwrap(), b"secret");
}

#[test]
fn a_directory_or_fifo_in_an_object_s_place_is_damage_and_blocks_nobody() {
    let (_guard, store, root) = local();
    fs::create_dir(root.join("object")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(root.join("fifo")).status().unwrap().success());
    for object in ["object", "fifo"] {
        for error in [
            store.get(&name(object), 99).unwrap_err(),
            store.get_range(&name(object), 0..3).unwrap_err(),
            store.size(&name(object)).unwrap_err(),
        ] {
            assert_eq!(error.class(), Class::Corrupt, "{object}: {error}");
        }
    }
    store.create(&name("plain"), vec![1]).unwrap();
    assert_eq!(store.get(&name("plain/below"), 9).unwrap_err().class(), Class::Corrupt);
}

#[test]
fn an_open_file_follows_deletion_replacement_and_truncation() {
    let (_guard, store, root) = local();
    let object = name("pack");
    store.create(&object, b"0123456789".to_vec()).unwrap();
    assert_eq!(store.get_range(&object, 8..10).unwrap(), "89");

    fs::write(root.join("new"), "abcdefghij").unwrap();
    fs::rename(root.join("new"), root.join("pack")).unwrap();
    assert_eq!(store.get_range(&object, 8..10).unwrap(), "ij");

    fs::OpenOptions::new().write(true).open(root.join("pack")).unwrap().set_len(9).unwrap();
    let error = store.get_range(&object, 8..10).unwrap_err();
    assert!(matches!(error, StoreError::Truncated { expected: 10, actual: 9, .. }), "{error}");

    fs::remove_file(root.join("pack")).unwrap();
    assert_eq!(store.get_range(&object, 8..10).unwrap_err().class(), Class::NotFound);
}

#[test]
fn more_objects_than_open_files_are_read() {
    let (_guard, store, _) = local();
    let object = |n: u32| name(&format!("packs/{n}"));
    for n in 0..300 {
        store.create(&object(n), n.to_le_bytes().to_vec()).unwrap();
    }
    for _ in 0..2 {
        for n in 0..300 {
            assert_eq!(store.get_range(&object(n), 0..4).unwrap(), n.to_le_bytes()[..]);
        }
    }
}

#[test]
fn a_directory_that_has_gone_is_not_an_empty_store() {
    let (guard, store, root) = local();
    store.create(&name("log/1"), vec![1]).unwrap();
    fs::rename(&root, guard.path().join("moved")).unwrap();
    fs::create_dir(&root).unwrap();
    // What stands where an unmounted disk was: an empty directory.
    for error in [
        store.get(&name("log/2"), 9).unwrap_err(),
        store.size(&name("log/2")).unwrap_err(),
        store.list("log2/", None, None).unwrap_err(),
        store.create(&name("log/2"), vec![2]).unwrap_err(),
        store.upload(&name("log/2")).unwrap().finish().unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::RootGone { .. }), "{error}");
        assert_eq!(error.class(), Class::Transient);
    }
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "nothing is written to the wrong place");
}
