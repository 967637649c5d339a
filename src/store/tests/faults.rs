//! The wrappers do what they say, and the store stays honest under them.

use std::io::ErrorKind;
use std::time::Duration;

use super::*;
use crate::store::fault::{Fault, Faults, Rule};
use crate::store::record::{Recorded, Recorder};

/// Runs `test` on stores behind a plan, with the store underneath.
fn every_faulty_store(test: impl Fn(&str, &Store, &Store, &Faults)) {
    let memory = Store::memory();
    let faults = Faults::new();
    test("memory", &faults.around(&memory), &memory, &faults);
    let (_guard, local, _) = local();
    let faults = Faults::new();
    test("local", &faults.around(&local), &local, &faults);
}

#[test]
fn a_failed_creation_happened_or_not_but_never_in_part() {
    every_faulty_store(|kind, store, underneath, faults| {
        for (index, (fault, stays)) in
            [(Fault::Before, false), (Fault::After, true), (Fault::Half, false)].into_iter().enumerate()
        {
            faults.plan(Rule::new(fault).on(Operation::Create).within("log/"));
            let object = name(&format!("log/{index}"));
            let error = store.create(&object, b"entry".to_vec()).unwrap_err();
            assert_eq!(error.class(), Class::Transient, "{kind}: {error}");
            assert!(error.to_string().contains(object.as_str()), "{kind}: {error}");
            let found = underneath.get(&object, 99);
            if stays {
                assert_eq!(found.unwrap(), "entry", "{kind}");
                assert_eq!(store.create(&object, b"again".to_vec()).unwrap(), Created::Exists, "{kind}");
            } else {
                assert_eq!(found.unwrap_err().class(), Class::NotFound, "{kind}");
                assert!(underneath.list("", None, None).unwrap().iter().all(|l| l.name != object), "{kind}");
                assert_eq!(store.create(&object, b"again".to_vec()).unwrap(), Created::New, "{kind}");
            }
            assert_eq!(faults.hits(), index as u64 + 1, "{kind}");
        }
    });
}

#[test]
fn answers_that_break_off_or_end_early_are_no_answers() {
    every_faulty_store(|kind, store, _, faults| {
        let object = name("object");
        store.create(&object, vec![9; 1000]).unwrap();
        let reads = |class: Class| {
            for read in [
                store.get(&object, 1000).map(|_| ()),
                store.get_range(&object, 10..900).map(|_| ()),
                store.tail(&object, 500).map(|_| ()),
            ] {
                assert_eq!(read.unwrap_err().class(), class, "{kind}");
            }
        };
        for (fault, class) in [
            (Fault::Before, Class::Transient),
            (Fault::After, Class::Transient),
            (Fault::Half, Class::Transient),
            (Fault::Short, Class::Corrupt),
        ] {
            faults.plan(Rule::new(fault).lasting());
            reads(class);
            faults.clear();
        }
        faults.plan(Rule::new(Fault::Flipped).lasting());
        let flipped = store.get(&object, 1000).unwrap();
        assert_eq!(flipped.iter().filter(|byte| **byte != 9).count(), 1, "{kind}");
        faults.clear();
        assert_eq!(store.get(&object, 1000).unwrap(), vec![9; 1000], "{kind}");
    });
}

#[test]
fn a_listing_that_fails_says_so() {
    every_faulty_store(|kind, store, _, faults| {
        for n in 0..10 {
            store.create(&name(&format!("log/{n}")), vec![1]).unwrap();
        }
        for fault in [Fault::Before, Fault::Half] {
            faults.plan(Rule::new(fault).on(Operation::List));
            assert_eq!(store.list("log/", None, None).unwrap_err().class(), Class::Transient, "{kind}");
        }
        assert_eq!(store.list("log/", None, None).unwrap().len(), 10, "{kind}");
    });
}

#[test]
fn an_upload_that_fails_anywhere_leaves_nothing_visible_unless_it_was_finished() {
    let bytes = 3 * limits::UPLOAD_PART_BYTES - 1;
    every_faulty_store(|kind, store, underneath, faults| {
        let object = name("packs/1");
        let write = || -> Result<(), StoreError> {
            let mut upload = store.upload(&object)?;
            for _ in 0..3 {
                upload.write(vec![5; bytes / 3])?;
            }
            upload.finish()
        };
        for (operation, nth) in [
            (Operation::Begin, 1),
            (Operation::Part, 1),
            (Operation::Part, 2),
            (Operation::Part, 3),
            (Operation::Finish, 1),
        ] {
            for fault in [Fault::Before, Fault::After, Fault::Half] {
                for crash in [false, true] {
                    let rule = Rule::new(fault).on(operation).nth(nth);
                    faults.plan(if crash { rule.then_crash() } else { rule });
                    assert_eq!(write().unwrap_err().class(), Class::Transient, "{kind}: {operation:?} {fault:?}");
                    assert_eq!(faults.hits(), 1, "{kind}: {operation:?} {nth} {fault:?}");
                    let visible = underneath.list("packs/", None, None).unwrap().len();
                    let finished = operation == Operation::Finish && fault == Fault::After;
                    assert_eq!(visible, usize::from(finished), "{kind}: {operation:?} {nth} {fault:?}");
                    underneath.delete(&object).unwrap();
                    faults.clear();
                }
            }
        }
        write().unwrap();
        assert_eq!(underneath.size(&object).unwrap(), bytes as u64 / 3 * 3, "{kind}");
    });
}

#[test]
fn a_broken_upload_takes_no_more_and_cannot_be_finished() {
    every_faulty_store(|kind, store, _, faults| {
        faults.plan(Rule::new(Fault::Before).on(Operation::Part));
        let mut upload = store.upload(&name("packs/1")).unwrap();
        let failed = (0..9).find_map(|_| upload.write(vec![5; limits::UPLOAD_PART_BYTES]).err()).unwrap();
        assert!(failed.to_string().contains("packs/1"), "{kind}: {failed}");
        assert!(matches!(upload.write(vec![1]).unwrap_err(), StoreError::Broken { .. }), "{kind}");
        assert!(matches!(upload.finish().unwrap_err(), StoreError::Broken { .. }), "{kind}");
    });
}

#[test]
fn a_crash_lets_nothing_through_behind_it() {
    every_faulty_store(|kind, store, underneath, faults| {
        faults.crash_at(2, Fault::After);
        store.create(&name("1"), vec![1]).unwrap();
        store.create(&name("2"), vec![2]).unwrap_err();
        for n in 3..6 {
            store.create(&name(&n.to_string()), vec![n]).unwrap_err();
        }
        assert!(store.get(&name("1"), 9).is_err(), "{kind}");
        assert_eq!(names(&underneath.list("", None, None).unwrap()), ["1", "2"], "{kind}");
        assert_eq!(faults.hits(), 1, "{kind}");
        faults.clear();
        assert_eq!(store.get(&name("1"), 9).unwrap(), vec![1], "{kind}");
        assert_eq!(faults.calls(), 1, "{kind}");
    });
}

#[test]
fn a_store_that_hangs_ends_every_request_at_its_deadline() {
    every_faulty_store(|kind, store, underneath, faults| {
        let object = name("object");
        underneath.create(&object, vec![1; 10]).unwrap();
        let store = store.clone().with_deadlines(Deadlines::all(Duration::from_millis(20)));
        faults.plan(Rule::new(Fault::Hang).lasting());
        for error in [
            store.create(&name("new"), vec![1]).unwrap_err(),
            store.get(&object, 10).unwrap_err(),
            store.get_range(&object, 0..1).unwrap_err(),
            store.tail(&object, 1).unwrap_err(),
            store.size(&object).unwrap_err(),
            store.list("", None, None).unwrap_err(),
            store.delete(&object).unwrap_err(),
            store.upload(&name("pack")).unwrap().finish().unwrap_err(),
            store.upload(&name("pack")).unwrap().write(vec![1; limits::UPLOAD_PART_BYTES + 1]).unwrap_err(),
            store.probe(&Env::seeded(1, Instant::from_nanos(0))).unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Deadline { .. }), "{kind}: {error}");
            assert_eq!(error.class(), Class::Timeout, "{kind}");
        }
        // What was cancelled does not happen when the store comes back.
        faults.clear();
        assert_eq!(names(&underneath.list("", None, None).unwrap()), ["object"], "{kind}");
    });
}

#[test]
fn a_hanging_call_goes_on_when_released() {
    every_faulty_store(|kind, store, underneath, faults| {
        faults.plan(Rule::new(Fault::Hang).on(Operation::Create));
        std::thread::scope(|scope| {
            let stalled = scope.spawn(|| store.create(&name("log/1"), b"stalled".to_vec()));
            faults.wait_for_stuck(1);
            assert_eq!(underneath.create(&name("log/1"), b"quick".to_vec()).unwrap(), Created::New, "{kind}");
            faults.release();
            assert_eq!(stalled.join().unwrap().unwrap(), Created::Exists, "{kind}");
        });
        assert_eq!(underneath.get(&name("log/1"), 99).unwrap(), "quick", "{kind}");
    });
}

#[test]
fn a_creation_can_happen_long_after_its_caller_gave_up() {
    every_faulty_store(|kind, store, underneath, faults| {
        faults.plan(Rule::new(Fault::Late).on(Operation::Create));
        let impatient = store.clone().with_deadlines(Deadlines::all(Duration::from_millis(20)));
        assert_eq!(impatient.create(&name("log/1"), b"late".to_vec()).unwrap_err().class(), Class::Timeout, "{kind}");
        faults.wait_for_stuck(1);
        assert_eq!(underneath.get(&name("log/1"), 99).unwrap_err().class(), Class::NotFound, "{kind}");
        faults.release();
        assert_eq!(underneath.get(&name("log/1"), 99).unwrap(), "late", "{kind}");
    });
}

/// As behind gigabytes that others write: `fsync` of a small file took more than ten seconds there.
#[test]
fn the_probe_waits_for_a_busy_disk_as_long_as_whatever_is_made_durable() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::new();
    let deadlines = Deadlines { metadata: Duration::from_millis(50), ..Deadlines::default() };
    let store = faults.around(&Store::local(dir.path()).unwrap()).with_deadlines(deadlines);
    faults.plan(Rule::new(Fault::Hang).on(Operation::Create));
    let support = std::thread::scope(|scope| {
        let probe = scope.spawn(|| store.probe(&Env::seeded(1, Instant::from_nanos(0))));
        while faults.hits() == 0 {
            std::thread::yield_now();
        }
        std::thread::sleep(4 * deadlines.metadata);
        faults.release();
        probe.join().unwrap()
    });
    assert_eq!(support.unwrap(), CreateSupport::Honoured);
}

#[test]
fn the_probe_finds_out_who_ignores_the_condition() {
    every_faulty_store(|kind, store, underneath, faults| {
        let env = Env::seeded(1, Instant::from_nanos(0));
        faults.ignore_create(true);
        assert_eq!(store.probe(&env).unwrap(), CreateSupport::Ignored, "{kind}");
        assert!(underneath.list("", None, None).unwrap().is_empty(), "{kind}");
        faults.clear();
        faults.plan(Rule::new(Fault::Before).on(Operation::Create).reported_as(ErrorKind::Unsupported).lasting());
        assert_eq!(store.probe(&env).unwrap(), CreateSupport::Ignored, "{kind}");
        faults.clear();
        faults.plan(Rule::new(Fault::Before).on(Operation::Create).nth(4));
        assert_eq!(store.probe(&env).unwrap_err().class(), Class::Transient, "{kind}");
        assert!(underneath.list("", None, None).unwrap().is_empty(), "{kind}");
        assert_eq!(store.probe(&env).unwrap(), CreateSupport::Honoured, "{kind}");
    });
}

#[test]
fn a_fault_reports_the_error_that_was_planned() {
    every_faulty_store(|kind, store, _, faults| {
        for (error, class) in [
            (ErrorKind::StorageFull, Class::Exhausted),
            (ErrorKind::QuotaExceeded, Class::Exhausted),
            (ErrorKind::PermissionDenied, Class::Denied),
            (ErrorKind::TimedOut, Class::Timeout),
            (ErrorKind::NotFound, Class::Transient),
        ] {
            faults.plan(Rule::new(Fault::Before).reported_as(error));
            assert_eq!(store.create(&name("x"), vec![1]).unwrap_err().class(), class, "{kind}: {error:?}");
        }
    });
}

#[test]
fn everything_is_on_record_in_order() {
    every_store(|kind, plain| {
        let recorder = Recorder::new();
        let store = recorder.around(plain);
        assert_eq!(store.describe(), plain.describe(), "{kind}");
        assert_eq!(store.local_root(), plain.local_root(), "{kind}");
        store.create(&name("log/1"), vec![1; 10]).unwrap();
        store.create(&name("log/1"), vec![1; 11]).unwrap();
        store.get(&name("log/1"), 10).unwrap();
        store.get_range(&name("log/1"), 2..5).unwrap();
        store.tail(&name("log/1"), 4).unwrap();
        store.size(&name("log/1")).unwrap();
        store.get(&name("log/2"), 10).unwrap_err();
        store.list("log/", None, None).unwrap();
        store.delete(&name("log/1")).unwrap();
        let mut upload = store.upload(&name("pack")).unwrap();
        upload.write(vec![0; limits::UPLOAD_PART_BYTES]).unwrap();
        upload.write(vec![0; 3]).unwrap();
        upload.finish().unwrap();
        let call = |operation, object: &str, bytes| Recorded { operation, object: object.to_owned(), bytes };
        let part = limits::UPLOAD_PART_BYTES as u64;
        let expected = vec![
            call(Operation::Create, "log/1", 10),
            call(Operation::Create, "log/1", 11),
            call(Operation::Get, "log/1", 10),
            call(Operation::Range, "log/1", 3),
            call(Operation::Tail, "log/1", 4),
            call(Operation::Size, "log/1", 0),
            call(Operation::Get, "log/2", 0),
            call(Operation::List, "log", 0),
            call(Operation::Delete, "log/1", 0),
            call(Operation::Begin, "pack", 0),
            call(Operation::Part, "pack", part),
            call(Operation::Part, "pack", 3),
            call(Operation::Finish, "pack", 0),
        ];
        let mut taken = recorder.take();
        // Two parts are under way at once.
        if let Some(parts) = taken.get_mut(10..12) {
            parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
        }
        assert_eq!(taken, expected, "{kind}");
        assert!(recorder.calls().is_empty(), "{kind}");
        for operation in Operation::ALL {
            let recorded = expected.iter().filter(|call| call.operation == operation).count() as u64;
            assert_eq!(store.meter().snapshot().of(operation).requests, recorded, "{kind}: {operation:?}");
        }
    });
}
