//! What fails over a network is tried again within bounds, and what is slow is asked for twice.

use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};

use super::*;
use crate::store::Deadlines;
use crate::store::fault::{Fault, Faults, Rule};
use crate::store::record::Recorder;

/// A store that counts as one over a network, behind a plan, and the one underneath.
fn remote() -> (Store, Store, Faults) {
    let underneath = Store::memory_as_remote(Env::seeded(1, Instant::from_nanos(0)));
    let faults = Faults::new();
    (faults.around(&underneath), underneath, faults)
}

#[test]
fn a_request_that_fails_once_is_made_again_and_nobody_hears_of_it() {
    let (store, _, faults) = remote();
    store.create(&name("log/1"), b"entry".to_vec()).unwrap();
    let requests: [(Operation, &dyn Fn()); 6] = [
        (Operation::Get, &|| assert_eq!(store.get(&name("log/1"), 9).unwrap(), "entry")),
        (Operation::Range, &|| assert_eq!(store.get_range(&name("log/1"), 1..3).unwrap(), "nt")),
        (Operation::Tail, &|| assert_eq!(store.tail(&name("log/1"), 2).unwrap(), ("ry".into(), 5))),
        (Operation::Size, &|| assert_eq!(store.size(&name("log/1")).unwrap(), 5)),
        (Operation::List, &|| assert_eq!(store.list("log/", None, None).unwrap().len(), 1)),
        (Operation::Delete, &|| store.delete(&name("log/2")).unwrap()),
    ];
    for (operation, request) in requests {
        for fault in [Fault::Before, Fault::Half] {
            let (hits, before) = (faults.hits(), store.meter().snapshot());
            faults.plan(Rule::new(fault).on(operation));
            request();
            assert_eq!(faults.hits(), hits + 1, "{operation:?} {fault:?}");
            let counts = store.meter().snapshot().since(&before).of(operation);
            assert_eq!((counts.requests, counts.failures, counts.retries), (2, 1, 1), "{operation:?} {fault:?}");
        }
    }
}

#[test]
fn a_local_store_is_asked_once() {
    let (_guard, local, _) = local();
    for underneath in [Store::memory(), local] {
        let faults = Faults::new();
        let store = faults.around(&underneath);
        store.create(&name("object"), b"bytes".to_vec()).unwrap();
        faults.plan(Rule::new(Fault::Before).on(Operation::Get));
        assert_eq!(store.get(&name("object"), 9).unwrap_err().class(), Class::Transient);
        assert_eq!(store.meter().snapshot().of(Operation::Get).requests, 1);
    }
}

#[test]
fn what_does_not_pass_is_not_tried_again() {
    let (store, _, faults) = remote();
    faults.plan(Rule::new(Fault::Before).on(Operation::Get).reported_as(std::io::ErrorKind::PermissionDenied));
    assert_eq!(store.get(&name("object"), 9).unwrap_err().class(), Class::Denied);
    assert_eq!(store.get(&name("object"), 9).unwrap_err().class(), Class::NotFound);
    assert_eq!(store.meter().snapshot().of(Operation::Get).requests, 2);
}

#[test]
fn a_store_that_is_down_is_told_of_within_the_deadline() {
    let (store, _, faults) = remote();
    let store = store.with_deadlines(Deadlines::all(Duration::from_secs(2)));
    faults.plan(Rule::new(Fault::Before).lasting());
    let begun = std::time::Instant::now();
    let error = store.get(&name("object"), 9).unwrap_err();
    assert!(error.to_string().contains("injected"), "the reason, and not that time is over: {error}");
    assert!(begun.elapsed() < Duration::from_secs(3));
    let requests = store.meter().snapshot().of(Operation::Get).requests;
    assert!((4..=7).contains(&requests), "pauses double: {requests} requests");
}

#[test]
fn deadlines_are_lengthened_for_all_clones_and_never_shortened() {
    let (store, _, faults) = remote();
    let store = store.with_deadlines(Deadlines::all(Duration::from_millis(300)));
    let clone = store.clone();
    store.allow(Duration::from_millis(100), Duration::from_millis(1200));
    faults.plan(Rule::new(Fault::Hang).lasting());
    let timed = |request: &dyn Fn() -> StoreError| {
        let begun = std::time::Instant::now();
        assert_eq!(request().class(), Class::Timeout);
        begun.elapsed()
    };
    assert!(timed(&|| clone.get(&name("object"), 9).unwrap_err()) > Duration::from_millis(1000));
    assert!(timed(&|| clone.size(&name("object")).unwrap_err()) < Duration::from_millis(1000));
}

#[test]
fn a_listing_that_hangs_ends_at_its_deadline() {
    let (store, _, faults) = remote();
    let store = store.with_deadlines(Deadlines::all(Duration::from_millis(500)));
    faults.plan(Rule::new(Fault::Hang).on(Operation::List).lasting());
    let begun = std::time::Instant::now();
    assert_eq!(store.list("log/", None, None).unwrap_err().class(), Class::Timeout);
    assert!(
        begun.elapsed() < Duration::from_millis(1900),
        "three attempts, none beyond the end: {:?}",
        begun.elapsed()
    );
}

/// HDFS and S3 Express list in any order, so that nothing counts before the whole has come.
#[test]
fn a_listing_in_any_order_takes_as_long_as_its_pages_come_and_may_begin_anew() {
    let faults = Faults::new();
    let underneath = faults.around(&Store::over(Arc::new(InMemory::new())));
    for n in 0..30 {
        underneath.create(&name(&format!("log/{n:02}")), vec![n]).unwrap();
    }
    // Each name is a page.
    let slow = ThrottleConfig { wait_list_per_entry: Duration::from_millis(100), ..ThrottleConfig::default() };
    let store = underneath.wrapped(|objects| Arc::new(ThrottledStore::new(objects, slow)));
    let store = store.with_deadlines(Deadlines::all(Duration::from_millis(500)));
    for breaks_off in [false, true] {
        if breaks_off {
            faults.plan(Rule::new(Fault::Half).on(Operation::List));
        }
        let begun = std::time::Instant::now();
        assert_eq!(store.list("log/", None, None).unwrap().len(), 30, "{breaks_off}");
        assert!(begun.elapsed() > Duration::from_millis(2500), "longer than a page may take: {:?}", begun.elapsed());
    }
    assert_eq!(faults.hits(), 1);
}

#[test]
fn a_server_that_never_answered_is_given_up_before_the_deadline() {
    let (store, _, faults) = remote();
    let refused = || Rule::new(Fault::Before).reported_as(std::io::ErrorKind::ConnectionRefused).lasting();
    faults.plan(refused());
    for most in [limits::UNREACHED_DEADLINE, limits::UNREACHED_DEADLINE / 4] {
        let begun = std::time::Instant::now();
        assert_eq!(store.get(&name("object"), 9).unwrap_err().class(), Class::Transient);
        assert!(begun.elapsed() < most + Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    // Once it has answered, whatever it says, it is believed to come back.
    faults.clear();
    assert_eq!(store.get(&name("object"), 9).unwrap_err().class(), Class::NotFound);
    faults.plan(refused());
    let store = store.with_deadlines(Deadlines::all(limits::UNREACHED_DEADLINE * 2));
    let begun = std::time::Instant::now();
    assert_eq!(store.get(&name("object"), 9).unwrap_err().class(), Class::Transient);
    assert!(begun.elapsed() > limits::UNREACHED_DEADLINE, "{:?}", begun.elapsed());
}

#[test]
fn an_attempt_that_hangs_does_not_take_the_whole_deadline() {
    let (store, underneath, faults) = remote();
    underneath.create(&name("object"), b"bytes".to_vec()).unwrap();
    let store = store.with_deadlines(Deadlines::all(Duration::from_secs(3)));
    for (operation, size) in [(Operation::Get, false), (Operation::Size, true)] {
        faults.plan(Rule::new(Fault::Hang).on(operation));
        if size {
            assert_eq!(store.size(&name("object")).unwrap(), 5);
        } else {
            assert_eq!(store.get(&name("object"), 9).unwrap(), "bytes");
        }
        assert_eq!(store.meter().snapshot().of(operation).retries, 1);
    }
    assert_eq!(faults.hits(), 2);
}

#[test]
fn a_creation_whose_answer_is_lost_is_settled_by_what_stands_there() {
    let (store, underneath, faults) = remote();
    // It happened: ours.
    faults.plan(Rule::new(Fault::After).on(Operation::Create));
    assert_eq!(store.create(&name("a"), b"ours".to_vec()).unwrap(), Created::New);
    assert_eq!(store.meter().snapshot().of(Operation::Create).requests, 2);
    // It did not, and somebody else came in between: in either order of the same two bytes.
    for (object, others) in [("b", "theirs"), ("c", "thei")] {
        underneath.create(&name(object), others.into()).unwrap();
        faults.plan(Rule::new(Fault::Before).on(Operation::Create));
        assert_eq!(store.create(&name(object), b"ours".to_vec()).unwrap(), Created::Exists);
        assert_eq!(underneath.get(&name(object), 9).unwrap(), others);
    }
    // It did not happen.
    for (object, fault) in [("d", Fault::Before), ("e", Fault::Half)] {
        faults.plan(Rule::new(fault).on(Operation::Create));
        assert_eq!(store.create(&name(object), b"ours".to_vec()).unwrap(), Created::New);
        assert_eq!(underneath.get(&name(object), 9).unwrap(), "ours");
    }
    assert_eq!(faults.hits(), 5);
}

#[test]
fn a_creation_in_doubt_stays_in_doubt_when_a_later_attempt_is_refused() {
    let (store, underneath, faults) = remote();
    let denied = |operation| Rule::new(Fault::Before).on(operation).reported_as(std::io::ErrorKind::PermissionDenied);
    // It happened, and whoever would look is refused.
    faults.plan(Rule::new(Fault::After).on(Operation::Create));
    faults.plan(denied(Operation::Get));
    let error = store.create(&name("a"), b"ours".to_vec()).unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{error}");
    assert_eq!(underneath.get(&name("a"), 9).unwrap(), "ours");
    // It may yet happen, and its repetition is refused.
    faults.plan(Rule::new(Fault::Late).on(Operation::Create));
    faults.plan(denied(Operation::Create).nth(2));
    let store = store.with_deadlines(Deadlines::all(Duration::from_secs(3)));
    let error = store.create(&name("b"), b"ours".to_vec()).unwrap_err();
    assert_eq!(error.class(), Class::Timeout, "{error}");
    faults.release();
    assert_eq!(underneath.get(&name("b"), 9).unwrap(), "ours");
    // It exists, by whomever, for a client may have sent it twice.
    faults.plan(denied(Operation::Get).lasting());
    assert_eq!(store.create(&name("b"), b"ours".to_vec()).unwrap_err().class(), Class::Transient);
    faults.clear();
    // The first is refused: it had no effect.
    faults.plan(denied(Operation::Create));
    assert_eq!(store.create(&name("c"), b"ours".to_vec()).unwrap_err().class(), Class::Denied);
    assert_eq!(faults.hits(), 1);
}

#[test]
fn a_creation_that_arrives_late_finds_what_its_repetition_made() {
    let (store, underneath, faults) = remote();
    let store = store.with_deadlines(Deadlines::all(Duration::from_secs(3)));
    faults.plan(Rule::new(Fault::Late).on(Operation::Create));
    assert_eq!(store.create(&name("a"), b"ours".to_vec()).unwrap(), Created::New);
    faults.release();
    assert_eq!(faults.hits(), 1);
    assert_eq!(underneath.get(&name("a"), 9).unwrap(), "ours");
    assert_eq!(underneath.create(&name("a"), b"theirs".to_vec()).unwrap(), Created::Exists);
}

#[test]
fn an_upload_whose_last_answer_is_lost_is_complete() {
    let (store, underneath, faults) = remote();
    let bytes = vec![7u8; 2 * limits::UPLOAD_PART_BYTES + 1];
    faults.plan(Rule::new(Fault::After).on(Operation::Finish));
    let mut upload = store.upload(&name("pack")).unwrap();
    upload.write(bytes.clone()).unwrap();
    upload.finish().unwrap();
    assert_eq!(faults.hits(), 1);
    assert!(underneath.get(&name("pack"), bytes.len() as u64).unwrap() == bytes);
    // One that was not is not.
    let store = store.with_deadlines(Deadlines::all(Duration::from_secs(1)));
    faults.plan(Rule::new(Fault::Before).on(Operation::Finish).lasting());
    let mut upload = store.upload(&name("other")).unwrap();
    upload.write(bytes).unwrap();
    assert_eq!(upload.finish().unwrap_err().class(), Class::Transient);
    assert_eq!(underneath.size(&name("other")).unwrap_err().class(), Class::NotFound);
}

#[test]
fn an_upload_that_stands_is_complete_whatever_is_said_of_its_end() {
    use std::io::ErrorKind;
    let bytes = vec![7u8; 2 * limits::UPLOAD_PART_BYTES + 1];
    let in_order = {
        let faults = Faults::new();
        (faults.around(&Store::over(Arc::new(InMemory::new()))), faults)
    };
    let numbered = {
        let (store, _, faults) = remote();
        (store, faults)
    };
    for (kind, (store, faults)) in [("numbered", numbered), ("in order", in_order)] {
        let upload = |object: &str| {
            let mut upload = store.upload(&name(object)).unwrap();
            upload.write(bytes.clone()).unwrap();
            upload.finish()
        };
        // As Azure answers 400 to a list of blocks that is sent again after a lost answer.
        for (said, class) in [(ErrorKind::InvalidInput, Class::Invalid), (ErrorKind::PermissionDenied, Class::Denied)] {
            faults.plan(Rule::new(Fault::After).on(Operation::Finish).reported_as(said));
            let object = format!("pack/{said:?}");
            upload(&object).unwrap_or_else(|error| panic!("{kind}: {error}"));
            assert_eq!(store.size(&name(&object)).unwrap(), bytes.len() as u64, "{kind}");
            // One that was refused is not there, and the refusal is told.
            faults.plan(Rule::new(Fault::Before).on(Operation::Finish).reported_as(said));
            assert_eq!(upload("refused").unwrap_err().class(), class, "{kind}");
            assert_eq!(store.size(&name("refused")).unwrap_err().class(), Class::NotFound, "{kind}");
        }
        assert_eq!(faults.hits(), 4, "{kind}");
    }
}

#[test]
fn an_upload_whose_end_took_all_its_time_is_given_up_all_the_same() {
    let in_order = Store::over(Arc::new(InMemory::new()));
    let numbered = Store::memory_as_remote(Env::seeded(1, Instant::from_nanos(0)));
    for (kind, underneath) in [("numbered", numbered), ("in order", in_order)] {
        let (asked, arrived, faults) = (Recorder::new(), Recorder::new(), Faults::new());
        let aborts =
            |recorder: &Recorder| recorder.calls().iter().filter(|call| call.operation == Operation::Abort).count();
        let store = asked.around(&faults.around(&arrived.around(&underneath)));
        let store = store.with_deadlines(Deadlines::all(Duration::from_secs(2)));
        faults.plan(Rule::new(Fault::Hang).on(Operation::Finish).lasting());
        faults.plan(Rule::new(Fault::Hang).on(Operation::Abort));
        let mut upload = store.upload(&name("pack")).unwrap();
        upload.write(vec![7; limits::UPLOAD_PART_BYTES + 1]).unwrap();
        std::thread::scope(|scope| {
            let finishing = scope.spawn(|| upload.finish());
            let began = std::time::Instant::now();
            while aborts(&asked) == 0 {
                assert!(began.elapsed() < Duration::from_secs(30), "{kind}: it is never given up");
                std::thread::sleep(Duration::from_millis(5));
            }
            // Longer than what is left of a completion that has used its time.
            std::thread::sleep(Duration::from_millis(700));
            faults.release();
            assert_eq!(finishing.join().unwrap().unwrap_err().class(), Class::Timeout, "{kind}");
        });
        assert_eq!(aborts(&arrived), 1, "{kind}");
        let counts = store.meter().snapshot().of(Operation::Abort);
        assert_eq!((counts.requests, counts.failures), (1, 0), "{kind}");
    }
}

#[test]
fn repetitions_of_many_requests_to_a_store_that_is_down_are_bounded() {
    let (store, _, faults) = remote();
    let store = store.with_deadlines(Deadlines::all(Duration::from_secs(30)));
    faults.plan(Rule::new(Fault::Before).lasting());
    let requests = 40;
    std::thread::scope(|scope| {
        for _ in 0..requests {
            scope.spawn(|| store.size(&name("object")).unwrap_err());
        }
    });
    let made = store.meter().snapshot().of(Operation::Size);
    assert_eq!(made.requests, requests + made.retries);
    assert_eq!(made.retries, limits::RETRIES_SAVED_MAX, "all that was saved, and nothing is earned");
    // As soon as it answers, even that something is not there, more may be repeated.
    faults.clear();
    assert_eq!(store.size(&name("object")).unwrap_err().class(), Class::NotFound);
    faults.plan(Rule::new(Fault::Before).on(Operation::Size));
    assert_eq!(store.size(&name("object")).unwrap_err().class(), Class::NotFound);
    assert_eq!(store.meter().snapshot().of(Operation::Size).retries, made.retries + 1);
}

#[test]
fn a_slow_read_is_made_a_second_time_and_the_first_answer_counts() {
    let (store, underneath, faults) = remote();
    underneath.create(&name("object"), b"bytes".to_vec()).unwrap();
    let read = || assert_eq!(store.get_range(&name("object"), 0..5).unwrap(), "bytes");
    (0..40).for_each(|_| read());
    assert_eq!(store.meter().snapshot().of(Operation::Range).requests, 40);
    faults.plan(Rule::new(Fault::Hang).on(Operation::Range));
    let begun = std::time::Instant::now();
    read();
    assert!(begun.elapsed() < Duration::from_secs(5), "a third of the deadline, after which it counts as lost");
    assert_eq!(faults.hits(), 1);
    let counts = store.meter().snapshot().of(Operation::Range);
    assert_eq!((counts.requests, counts.hedges, counts.retries), (42, 1, 0));
}

#[test]
fn hedges_are_few_however_many_reads_are_slow() {
    let (store, underneath, faults) = remote();
    let store = store.with_deadlines(Deadlines::all(Duration::from_millis(300)));
    underneath.create(&name("object"), b"bytes".to_vec()).unwrap();
    (0..20).for_each(|_| assert_eq!(store.get(&name("object"), 9).unwrap(), "bytes"));
    faults.plan(Rule::new(Fault::Hang).on(Operation::Get).lasting());
    for _ in 0..5 {
        assert_eq!(store.get(&name("object"), 9).unwrap_err().class(), Class::Timeout);
    }
    assert_eq!(store.meter().snapshot().of(Operation::Get).hedges, 1);
}
