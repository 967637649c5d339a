//! What networks and servers do to requests (`tests/support/faulty_http.rs`), against the promises that hold whatever they do:
//! no wrong bytes, what is acknowledged stands whole, every request ends by its deadline, and no storm of repetitions.
//!
//! First each fault of each request by itself, then random schedules of faults over captures and everything that was captured
//! read back. A schedule is its seed, as far as the times at which things happen let it be.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use amberfs::base::{Class, Classed, Env, limits};
use amberfs::capture::{Options, Progress, capture_tree};
use amberfs::format::object::ObjectName;
use amberfs::store::{Access, Address, Created, Credentials, Deadlines, Store, StoreError};
use amberfs::view::MountView;
use amberfs::view::namespace::{FileKind, Namespace, NodeId, ViewError};

use crate::faulty_http::{Asked, Fault, FaultyHttp};
use crate::history::Dice;
use crate::servers::moto;
use crate::world::{self, Manifest, World, later, names, node, real, same, shown, zero_settings};

const DEADLINE: Duration = Duration::from_secs(3);

/// A store on moto below `prefix`, by way of `endpoint`.
fn store(endpoint: &str, prefix: &str) -> Store {
    let words = &moto().words;
    let pairs = [("access_key_id", &words[1]), ("secret_access_key", &words[2])];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.clone().into())).into_iter().collect();
    let credentials = Some(Credentials { path: "keys".into(), pairs, again: None });
    let address = Address::parse(OsStr::new(&format!("s3://amber/{prefix}?endpoint={endpoint}"))).unwrap();
    let store = Store::open(&address, &Access { credentials, ..Access::default() }).unwrap();
    store.with_deadlines(Deadlines::all(DEADLINE))
}

fn name(name: &str) -> ObjectName {
    ObjectName::listed(name)
}

/// What a fault may be reported as. That nothing else is said is half of the promise: no disturbance looks like absence,
/// like damage, or like somebody else's write.
fn is_a_disturbance(class: Class, denied: bool) -> bool {
    matches!(class, Class::Transient | Class::Timeout) || (denied && class == Class::Denied)
}

// --- Each fault of each request.

const SMALL: &[u8] = b"what stands in the object before the test";
const LARGE_BYTES: usize = limits::UPLOAD_PART_BYTES + 4096;

type Request = fn(&Store) -> Result<(), StoreError>;

/// Each checks what it gets, so that wrong bytes fail the test.
const REQUESTS: [(&str, Request); 8] = [
    ("get", |store| store.get(&name("object"), 100).map(|bytes| assert_eq!(bytes, SMALL))),
    ("range", |store| store.get_range(&name("object"), 5..9).map(|bytes| assert_eq!(bytes, SMALL[5..9]))),
    ("tail", |store| store.tail(&name("object"), 4).map(|tail| assert_eq!(tail, ("test".into(), 41)))),
    ("size", |store| store.size(&name("object")).map(|size| assert_eq!(size, 41))),
    ("list", |store| {
        // Which of them are left out is the server's matter.
        store.list("", None, None).map(|listed| {
            assert!(listed.is_sorted_by(|a, b| a.name < b.name), "{listed:?}");
            assert!(listed.iter().all(|listed| listed.bytes == 41 || listed.name != name("object")));
        })
    }),
    ("create", |store| {
        let created = store.create(&name("new"), b"created by the test".to_vec());
        created.map(|created| assert_eq!(created, Created::New))
    }),
    ("delete", |store| store.delete(&name("nothing"))),
    ("upload", |store| {
        let mut upload = store.upload(&name("large"))?;
        upload.write(vec![7; LARGE_BYTES])?;
        upload.finish()
    }),
];

/// Runs `jobs` on so many threads, since nearly all that they do is wait.
fn side_by_side<T: Sync>(threads: usize, jobs: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::SeqCst) as usize) {
                    work(job)
                }
            });
        }
    });
}

/// A new store with one object, behind a proxy.
fn with_one_object(prefix: &str) -> (FaultyHttp, Store) {
    let proxy = FaultyHttp::start(moto().endpoint());
    let store = store(&proxy.endpoint(), prefix);
    // That it stands is no part of any test, however busy the machine is.
    store.clone().with_deadlines(Deadlines::default()).create(&name("object"), SMALL.to_vec()).unwrap();
    (proxy, store)
}

fn clear_away(store: &Store) {
    for listed in store.list("", None, None).unwrap() {
        store.delete(&listed.name).unwrap();
    }
}

#[test]
fn each_fault_of_each_request_passes_or_is_told_of_in_time() {
    moto();
    let jobs: Vec<_> = (0..REQUESTS.len()).flat_map(|n| Fault::ALL.map(|fault| (n, fault))).collect();
    side_by_side(24, &jobs, |(n, fault)| {
        let (what, request) = REQUESTS[*n];
        let fault = *fault;
        let (proxy, store) = with_one_object(&format!("once/{what}-{fault:?}"));
        proxy.plan(move |asked| (asked.number == 0).then_some(fault));
        let begun = Instant::now();
        let result = request(&store);
        // An upload's requests follow one another, and each page of a listing has a deadline.
        let longest = if what == "upload" || what == "list" { DEADLINE * 3 } else { DEADLINE };
        assert!(begun.elapsed() < longest + Duration::from_secs(1), "{what} {fault:?}: {:?}", begun.elapsed());
        assert_eq!(proxy.early(), Vec::<String>::new(), "{what} {fault:?}");
        match result {
            Ok(()) => {}
            Err(error) => {
                let lasts = matches!(fault, Fault::VeryBusy | Fault::Expired | Fault::Trickle);
                assert!(lasts, "{what} {fault:?}: {error}");
                assert!(is_a_disturbance(error.class(), fault == Fault::Expired), "{what} {fault:?}: {error}");
                if fault == Fault::VeryBusy {
                    assert!(error.to_string().contains("for 30"), "the wait is named: {error}");
                    assert!(begun.elapsed() < DEADLINE / 2, "at once: {:?}", begun.elapsed());
                }
            }
        }
        proxy.clear();
        drop(store);
        clear_away(&self::store(moto().endpoint(), &format!("once/{what}-{fault:?}")));
    });
}

#[test]
fn a_fault_that_lasts_is_told_of_in_time_and_without_a_storm() {
    moto();
    let jobs: Vec<_> = ["get", "range", "list", "create", "upload"]
        .iter()
        .flat_map(|wanted| {
            let n = REQUESTS.iter().position(|(what, _)| what == wanted).unwrap();
            Fault::ALL.map(|fault| (n, fault))
        })
        .collect();
    side_by_side(48, &jobs, |(n, fault)| {
        let (what, request) = REQUESTS[*n];
        let fault = *fault;
        let (proxy, store) = with_one_object(&format!("lasting/{what}-{fault:?}"));
        proxy.plan(move |_| Some(fault));
        let begun = Instant::now();
        let result = request(&store);
        let longest = if what == "upload" || what == "list" { DEADLINE * 3 } else { DEADLINE };
        assert!(begun.elapsed() < longest + Duration::from_secs(1), "{what} {fault:?}: {:?}", begun.elapsed());
        assert_eq!(proxy.early(), Vec::<String>::new(), "{what} {fault:?}");
        // Each attempt is up to three requests of the client; pauses double, so that a deadline has few of them.
        assert!(proxy.requests() <= 40, "{what} {fault:?}: {} requests", proxy.requests());
        if let Err(error) = result {
            assert!(is_a_disturbance(error.class(), fault == Fault::Expired), "{what} {fault:?}: {error}");
        }
        proxy.clear();
        drop(store);
        clear_away(&self::store(moto().endpoint(), &format!("lasting/{what}-{fault:?}")));
    });
}

#[test]
fn a_server_that_wants_to_be_left_alone_is_by_all_requests_and_by_their_repetitions() {
    let (proxy, store) = with_one_object("busy");
    // The first of several at once is told; the others are on their way, or wait.
    proxy.plan(|asked| (asked.number % 3 == 0).then_some(Fault::Busy));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (what, request) in [REQUESTS[0], REQUESTS[1], REQUESTS[4]] {
                    // Some meet with it so often that their time is over.
                    if let Err(error) = request(&store) {
                        assert!(is_a_disturbance(error.class(), false), "{what}: {error}");
                    }
                }
            });
        }
    });
    assert!(proxy.injected()[&Fault::Busy] >= 2, "{:?}", proxy.injected());
    assert_eq!(proxy.early(), Vec::<String>::new());
    proxy.clear();
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(error) = store.get(&name("object"), 100) {
        assert!(Instant::now() < deadline, "{error}");
    }
    clear_away(&store);
}

#[test]
fn an_upload_rides_out_an_outage_of_a_second_in_any_of_its_requests() {
    moto();
    let jobs: Vec<_> =
        (0..5u64).flat_map(|first| [Fault::SlowDown, Fault::Reset, Fault::Lost].map(|fault| (first, fault))).collect();
    side_by_side(8, &jobs, |(first, fault)| {
        let (first, fault) = (*first, *fault);
        let prefix = format!("outage/{first}-{fault:?}");
        let (proxy, store) = with_one_object(&prefix);
        let store = store.with_deadlines(Deadlines::all(Duration::from_secs(10)));
        let began = std::sync::Mutex::new(None);
        proxy.plan(move |asked| {
            if asked.number < first {
                return None;
            }
            let began = *began.lock().unwrap().get_or_insert_with(Instant::now);
            (began.elapsed() < Duration::from_millis(1500)).then_some(fault)
        });
        let content = noise(first, 2 * limits::UPLOAD_PART_BYTES + 4096);
        let mut upload = store.upload(&name("large")).unwrap();
        upload.write(content.clone()).unwrap_or_else(|error| panic!("{prefix}: {error}"));
        upload.finish().unwrap_or_else(|error| panic!("{prefix}: {error}"));
        assert!(!proxy.injected().is_empty(), "{prefix}: nothing happened");
        proxy.clear();
        assert!(store.get(&name("large"), 1 << 30).unwrap() == content, "{prefix}: other bytes stand there");
        clear_away(&self::store(moto().endpoint(), &prefix));
    });
}

#[test]
fn what_is_written_over_a_slow_line_has_the_time_that_its_bytes_take() {
    let (proxy, store) = with_one_object("slow-line");
    let deadlines = Deadlines { per_mib_written: Duration::from_secs(1), ..Deadlines::all(Duration::from_secs(1)) };
    let store = store.with_deadlines(deadlines);
    proxy.throttle(4 << 20);
    let content = noise(1, limits::UPLOAD_PART_BYTES + (4 << 20));
    let begun = Instant::now();
    let mut upload = store.upload(&name("large")).unwrap();
    upload.write(content.clone()).unwrap();
    upload.finish().unwrap();
    store.create(&name("small"), content[..6 << 20].to_vec()).unwrap();
    assert!(begun.elapsed() > Duration::from_secs(3), "a part alone takes 2 s, as the small object does nearly");
    assert!(store.get(&name("large"), 1 << 30).unwrap() == content);
    clear_away(&store);
}

// --- Random schedules.

/// What becomes of each request of a run.
#[derive(Debug)]
struct Schedule {
    seed: u64,
    /// Of so many requests one meets with a fault.
    one_in: u64,
    faults: Vec<Fault>,
    /// While these requests come, the server is down in one way.
    outage: Option<(std::ops::Range<u64>, Fault)>,
    /// Whether the captured tree has more than one part of an upload.
    large: bool,
}

impl Schedule {
    fn of(seed: u64) -> Schedule {
        let mut dice = Dice(seed);
        // Schedules of few kinds of faults meet with each more often, and those of many kinds with their combinations.
        let kinds = [2, 4, 18][dice.roll(3) as usize];
        let mut faults: Vec<Fault> = (0..kinds).map(|_| *dice.pick(&Fault::ALL).unwrap()).collect();
        // They end nearly every operation that meets with them.
        if dice.roll(3) > 0 {
            faults.retain(|fault| !matches!(fault, Fault::Expired | Fault::VeryBusy | Fault::Trickle));
        }
        let outage = (dice.roll(4) == 0).then(|| {
            let (begin, length) = (dice.roll(60), 1 + dice.roll(40));
            let down = [Fault::Reset, Fault::Lost, Fault::SlowDown, Fault::Broken, Fault::Busy, Fault::Silence];
            (begin..begin + length, *dice.pick(&down).unwrap())
        });
        Schedule { seed, one_in: [4, 10, 25][dice.roll(3) as usize], faults, outage, large: dice.roll(5) == 0 }
    }

    fn fault(&self, asked: &Asked) -> Option<Fault> {
        if let Some((outage, fault)) = &self.outage
            && outage.contains(&asked.number)
        {
            return Some(*fault);
        }
        // What is asked decides, and not when: threads race.
        let what = format!("{} {} {:?} {}", asked.method, asked.path, asked.range, asked.same);
        let hash = blake3::hash(what.as_bytes());
        let mut dice = Dice(self.seed ^ u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap()));
        let fits: Vec<Fault> = self.faults.iter().copied().filter(|fault| asked.suffers(*fault)).collect();
        if dice.roll(self.one_in) == 0 { dice.pick(&fits).copied() } else { None }
    }
}

/// What a run did.
struct Run {
    requests: u64,
    faults: u64,
    acknowledged: usize,
}

/// Reads all points of `home` that a mount shows. Each must be the tree of its name, or, where its capture was not told that it had
/// committed, one of those without a name. An error ends it, with what it says and its class.
fn read_back(world: &World, trees: &[(Option<String>, Manifest)]) -> Result<usize, (String, Class)> {
    let told = |context: &str, error: &dyn Classed| (context.to_owned(), error.class());
    let repo = world::open(world.repo.store().clone(), world.env.clone()).map_err(|e| told(&e.to_string(), &e))?;
    let view = MountView::open(repo, zero_settings()).map_err(|e| told(&e.to_string(), &e))?;
    let viewed = |error: ViewError| told(&format!("{error}: {error:?}"), &error);
    let mut at = NodeId::ROOT;
    for name in ["home", "points"] {
        at = view.lookup(at, name.as_bytes()).map_err(viewed)?.attr.node;
    }
    let mut points = Vec::new();
    let mut take = |item: amberfs::view::namespace::DirEntry| {
        points.push((item.name, item.found.map(|found| found.attr.node)));
        true
    };
    view.read_dir(at, 0, &mut take).map_err(viewed)?;
    let count = points.len();
    for (point, root) in points {
        let Ok(root) = root else { continue };
        let point = String::from_utf8(point).unwrap();
        let candidates: Vec<&Manifest> = match trees.iter().find(|(name, _)| name.as_ref() == Some(&point)) {
            Some((_, tree)) => vec![tree],
            // Of a capture that was not told that it has committed.
            None => trees.iter().filter(|(name, _)| name.is_none()).map(|(_, tree)| tree).collect(),
        };
        assert!(!candidates.is_empty(), "the point {point} is nobody's");
        let mut fits = vec![true; candidates.len()];
        for path in candidates[0].keys() {
            let mut node = root;
            for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
                node = view.lookup(node, name).map_err(viewed)?.attr.node;
            }
            let attr = view.attr(node).map_err(viewed)?.attr;
            let mut content = Vec::new();
            while attr.kind == FileKind::Regular && (content.len() as u64) < attr.size {
                let piece = view.read(node, content.len() as u64, 100_000).map_err(viewed)?;
                assert!(!piece.is_empty(), "{point}: {} ends early", path.escape_ascii());
                content.extend_from_slice(&piece);
            }
            for (fits, tree) in fits.iter_mut().zip(&candidates) {
                *fits &= tree.get(path).is_some_and(|seen| seen.content == content && seen.mtime == attr.mtime);
            }
            assert!(fits.contains(&true), "{point}: {} has wrong bytes", path.escape_ascii());
        }
    }
    Ok(count)
}

/// Captures, changes, captures again and reads all back while `schedule` is played; then everything must be there.
fn play(schedule: &Schedule, faulty: bool) -> Run {
    let prefix = format!("schedules/{}-{faulty}-{}", schedule.seed, schedule.large);
    let proxy = FaultyHttp::start(moto().endpoint());
    let env = Env::seeded(schedule.seed, later());
    let world = World::new(store(&proxy.endpoint(), &prefix), env);
    let mut dice = Dice(7);
    for n in 0..40 {
        let length = dice.roll(20_000);
        world.write(&format!("d{}/{n}", n % 5), noise(n, length as usize));
    }
    world.write("file", noise(100, 300_000));
    if schedule.large {
        world.write("large", noise(101, LARGE_BYTES + (1 << 20)));
    }
    let denies = schedule.faults.contains(&Fault::Expired);
    let plan = Schedule { faults: schedule.faults.clone(), outage: schedule.outage.clone(), ..*schedule };
    proxy.plan(move |asked| if faulty { plan.fault(asked) } else { None });

    let mut trees: Vec<(Option<String>, Manifest)> = Vec::new();
    let check = |what: &str, begun: Instant, context: String, class: Class| {
        assert!(is_a_disturbance(class, denies), "{what} says {class:?}: {context}");
        // It has few requests after one another that each may take their deadline before one of them fails for good.
        assert!(begun.elapsed() < 20 * DEADLINE, "{what} took {:?}: {context}", begun.elapsed());
    };
    for changed in 0..2u64 {
        for n in (0..40).filter(|n| n % 4 == changed) {
            world.write(&format!("d{}/{n}", n % 5), noise(1000 * changed + n, 3000));
        }
        world.env.advance(Duration::from_secs(60));
        let tree = real(&world.root());
        let begun = Instant::now();
        let options = Options { workers: Some(2), ..Options::default() };
        match capture_tree(&world.repo, &world.log, &world.source, &world.root(), &options, &Progress::new()) {
            Ok(outcome) => {
                assert!(outcome.problems.is_empty(), "{:?}", outcome.problems);
                trees.push((Some(outcome.point.name().to_owned()), tree));
            }
            Err(error) => {
                check("capture", begun, error.to_string(), error.class());
                trees.push((None, tree));
            }
        }
    }
    let acknowledged = trees.iter().filter(|(name, _)| name.is_some()).count();
    let begun = Instant::now();
    match read_back(&world, &trees) {
        Ok(points) => assert!(points >= acknowledged, "{points} points are shown, {acknowledged} acknowledged"),
        Err((context, class)) => check("reading", begun, context, class),
    }
    let requests = proxy.requests();
    let faults = proxy.injected().values().sum();
    assert_eq!(proxy.early(), Vec::<String>::new(), "requests while the server wanted to be left alone");

    // Another host sees what has come of it, and the next capture is a whole one.
    proxy.clear();
    let (dir, source) = (&world.dir, &world.source);
    let direct = world::open(store(moto().endpoint(), &prefix), world.env.clone()).unwrap();
    let log = amberfs::chain::SourceLog::open(direct.store().clone(), world.env.clone(), direct.realm(), source.id);
    world.env.advance(Duration::from_secs(60));
    let last = real(&world.root());
    let outcome =
        capture_tree(&direct, &log, source, &dir.path().join("source"), &Options::default(), &Progress::new()).unwrap();
    trees.push((Some(outcome.point.name().to_owned()), last));
    let view = MountView::open(Arc::clone(&direct), zero_settings()).unwrap();
    let shown_points = names(&view, node(&view, "home/points"));
    for (point, tree) in &trees {
        let Some(point) = point else { continue };
        let root = shown_points.iter().find(|(name, _)| name == point.as_bytes());
        let (_, root) = root.unwrap_or_else(|| panic!("the acknowledged point {point} is not there"));
        same(tree, &shown(&view, *root, 100_000), point);
    }
    for (point, root) in &shown_points {
        if !trees.iter().any(|(name, _)| name.as_deref().map(str::as_bytes) == Some(point)) {
            let found = shown(&view, *root, 100_000);
            let is_one = trees.iter().any(|(name, tree)| name.is_none() && contents(tree) == contents(&found));
            assert!(is_one, "{} is nobody's", point.escape_ascii());
        }
    }
    clear_away(direct.store());
    Run { requests, faults, acknowledged }
}

fn contents(tree: &Manifest) -> Vec<(&Vec<u8>, &Vec<u8>)> {
    tree.iter().map(|(path, seen)| (path, &seen.content)).collect()
}

/// Bytes that do not compress.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

#[test]
fn schedules_of_faults_never_give_wrong_bytes_and_lose_nothing_that_was_acknowledged() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let first = number("AMBERFS_SEED").unwrap_or(1);
    let seeds: Vec<u64> = (first..first + number("AMBERFS_NETWORK_FAULTS").unwrap_or(8)).collect();
    let quiet = [false, true].map(|large| {
        let schedule = Schedule { seed: 0, one_in: 1, faults: Vec::new(), outage: None, large };
        let run = play(&schedule, false);
        assert_eq!(run.acknowledged, 2);
        run.requests
    });
    let (worst, faults, acknowledged) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    side_by_side(12, &seeds, |seed| {
        let schedule = Schedule::of(*seed);
        let run = std::panic::catch_unwind(|| {
            let run = play(&schedule, true);
            let quiet = quiet[usize::from(schedule.large)];
            let most = 3 * quiet + limits::RETRIES_SAVED_MAX;
            assert!(run.requests <= most, "{} requests, {quiet} without faults: a storm", run.requests);
            worst.fetch_max(100 * run.requests / quiet, Ordering::SeqCst);
            faults.fetch_add(run.faults, Ordering::SeqCst);
            acknowledged.fetch_add(run.acknowledged as u64, Ordering::SeqCst);
        });
        if let Err(panic) = run {
            eprintln!("the schedule of AMBERFS_SEED={seed} AMBERFS_NETWORK_FAULTS=1 fails: {schedule:?}");
            std::panic::resume_unwind(panic);
        }
    });
    let (worst, faults) = (worst.into_inner(), faults.into_inner());
    let acknowledged = acknowledged.into_inner();
    eprintln!("{faults} faults, {acknowledged} points acknowledged, at worst {worst} % of the requests ({quiet:?})");
    assert!(faults > 3 * seeds.len() as u64 && acknowledged > 0, "the schedules try nothing");
}
