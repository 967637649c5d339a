use super::*;
use std::sync::mpsc::{Receiver, Sender, channel};

struct Told(Sender<Result<u32, Errno>>);

impl Reply for Told {
    fn refuse(self, errno: Errno) {
        self.0.send(Err(errno)).unwrap();
    }
}

struct Bench {
    dispatcher: Dispatcher,
    faults: Arc<Mutex<Vec<String>>>,
}

fn bench(bounds: Bounds) -> Bench {
    let faults = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&faults);
    let on_fault: OnFault = Arc::new(move |node, text| seen.lock().push(format!("{node}: {text}")));
    Bench { dispatcher: Dispatcher::start(bounds, on_fault).unwrap(), faults }
}

const PATIENT: Duration = Duration::from_secs(3600);

fn workers(each: usize) -> Workers {
    Workers { metadata: each, data: each, points: each, desk: each }
}

fn bounds() -> Bounds {
    Bounds { metadata: PATIENT, data: PATIENT, inline: 0, workers: workers(2), queue: 2 }
}

fn reply() -> (Told, Receiver<Result<u32, Errno>>) {
    let (to, from) = channel();
    (Told(to), from)
}

fn give(pending: &Pending<Told>, value: u32) {
    pending.answer(|told| told.0.send(Ok(value)).unwrap());
}

#[test]
fn work_answers_inline_and_in_the_pool() {
    for inline in [0, 1] {
        let bench = bench(Bounds { inline, ..bounds() });
        for value in 0..20 {
            let (told, answer) = reply();
            bench.dispatcher.run(Budget::Data, 1, told, move |pending| give(pending, value));
            assert_eq!(answer.recv().unwrap(), Ok(value));
        }
        assert!(bench.faults.lock().is_empty());
    }
}

#[test]
fn a_deadline_answers_for_work_that_hangs_and_the_late_result_is_dropped() {
    for inline in [0, 1] {
        let bench = Arc::new(bench(Bounds { metadata: Duration::from_millis(20), inline, ..bounds() }));
        let (told, answer) = reply();
        let (release, hang) = channel::<()>();
        let (done, finished) = channel::<()>();
        let in_thread = Arc::clone(&bench);
        let receiver = std::thread::spawn(move || {
            in_thread.dispatcher.run(Budget::Metadata, 7, told, move |pending| {
                hang.recv().unwrap();
                give(pending, 1);
                done.send(()).unwrap();
            });
        });
        assert_eq!(answer.recv().unwrap(), Err(Errno::ETIMEDOUT));
        assert_eq!(bench.faults.lock().len(), 1);
        release.send(()).unwrap();
        finished.recv().unwrap();
        receiver.join().unwrap();
        assert!(answer.recv().is_err(), "nothing may be answered twice");
        assert_eq!(bench.faults.lock().len(), 1);
    }
}

#[test]
fn a_short_deadline_is_kept_while_a_longer_one_is_watched() {
    let bench = bench(Bounds { metadata: Duration::from_millis(20), ..bounds() });
    let (release, hang) = channel::<()>();
    let (slow, slow_answer) = reply();
    bench.dispatcher.run(Budget::Data, 1, slow, move |pending| {
        let _ended = hang.recv();
        give(pending, 1);
    });
    let (held, never) = channel::<()>();
    let (quick, quick_answer) = reply();
    bench.dispatcher.run(Budget::Metadata, 2, quick, move |_| {
        let _ended = never.recv();
    });
    assert_eq!(quick_answer.recv().unwrap(), Err(Errno::ETIMEDOUT));
    drop(held);
    drop(release);
    assert_eq!(slow_answer.recv().unwrap(), Ok(1));
}

#[test]
fn a_receiver_is_free_while_others_hang() {
    let bench = bench(Bounds { inline: 1, workers: workers(1), queue: 8, ..bounds() });
    let (release, hang) = channel::<()>();
    let (told, answer) = reply();
    std::thread::scope(|threads| {
        let (started, start) = channel::<()>();
        let dispatcher = &bench.dispatcher;
        threads.spawn(move || {
            dispatcher.run(Budget::Data, 1, told, move |pending| {
                started.send(()).unwrap();
                hang.recv().unwrap();
                give(pending, 1);
            });
        });
        start.recv().unwrap();
        // The one receiver that may work is busy: this goes to a worker, and this thread is free at once.
        let (second, second_answer) = reply();
        bench.dispatcher.run(Budget::Data, 2, second, |pending| give(pending, 2));
        assert_eq!(second_answer.recv().unwrap(), Ok(2));
        release.send(()).unwrap();
    });
    assert_eq!(answer.recv().unwrap(), Ok(1));
}

#[test]
fn requests_of_one_kind_that_hang_keep_no_other_kind_waiting() {
    let bench = bench(Bounds { inline: 1, workers: workers(2), queue: 100, ..bounds() });
    let dispatcher = &bench.dispatcher;
    let (release, hang) = channel::<()>();
    let hang = Arc::new(Mutex::new(hang));
    std::thread::scope(|threads| {
        let mut hung = Vec::new();
        let kinds = [Budget::Data, Budget::Metadata, Budget::Points, Budget::Desk];
        for (at, budget) in kinds.into_iter().enumerate() {
            // More than there are workers and idle receivers; each on a thread, as one may do the work itself.
            for _ in 0..8 {
                let (told, answer) = reply();
                let hang = Arc::clone(&hang);
                threads.spawn(move || {
                    dispatcher.run(budget, 1, told, move |pending| {
                        let _ended = hang.lock().recv();
                        give(pending, 1);
                    });
                });
                hung.push(answer);
            }
            for other in kinds.into_iter().skip(at + 1) {
                let (told, answer) = reply();
                threads.spawn(move || dispatcher.run(other, 2, told, |pending| give(pending, 2)));
                assert_eq!(answer.recv_timeout(Duration::from_secs(30)), Ok(Ok(2)), "{other:?} behind {budget:?}");
            }
        }
        drop(release);
        for answer in hung {
            assert_eq!(answer.recv().unwrap(), Ok(1));
        }
    });
}

#[test]
fn a_full_queue_refuses_instead_of_growing() {
    let bench = bench(Bounds { workers: workers(1), queue: 2, ..bounds() });
    let (release, hang) = channel::<()>();
    let (started, start) = channel::<()>();
    let (first, first_answer) = reply();
    bench.dispatcher.run(Budget::Data, 1, first, move |pending| {
        started.send(()).unwrap();
        let _ended = hang.recv();
        give(pending, 1);
    });
    start.recv().unwrap();
    let mut waiting = Vec::new();
    for value in 2..5 {
        let (told, answer) = reply();
        bench.dispatcher.run(Budget::Data, 1, told, move |pending| give(pending, value));
        waiting.push(answer);
    }
    assert_eq!(waiting.pop().unwrap().recv().unwrap(), Err(Errno::EIO));
    drop(release);
    assert_eq!(first_answer.recv().unwrap(), Ok(1));
    assert_eq!(waiting.iter().map(|answer| answer.recv().unwrap()).collect::<Vec<_>>(), [Ok(2), Ok(3)]);
}

#[test]
fn a_panic_is_an_io_error_for_its_caller_alone() {
    let bench = bench(Bounds { inline: 1, ..bounds() });
    let (told, answer) = reply();
    bench.dispatcher.run(Budget::Data, 3, told, |_| panic!("expected by this test"));
    assert_eq!(answer.recv().unwrap(), Err(Errno::EIO));
    assert!(bench.faults.lock()[0].contains("expected by this test"));
    let (told, answer) = reply();
    bench.dispatcher.run(Budget::Data, 3, told, |pending| give(pending, 9));
    assert_eq!(answer.recv().unwrap(), Ok(9));
}

#[test]
fn work_that_forgets_to_answer_is_a_fault() {
    let bench = bench(bounds());
    let (told, answer) = reply();
    bench.dispatcher.run(Budget::Data, 3, told, |_| {});
    assert_eq!(answer.recv().unwrap(), Err(Errno::EIO));
}
