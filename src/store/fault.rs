//! Fails what is asked of a store, by plan, for the crash, damage and deadline tests of every layer.
//!
//! ```
//! use amberfs::base::{Class, Classed};
//! use amberfs::format::object::ObjectName;
//! use amberfs::store::{Operation, Store, fault::{Fault, Faults, Rule}};
//!
//! let faults = Faults::new();
//! let store = faults.around(&Store::memory());
//! faults.plan(Rule::new(Fault::After).on(Operation::Create).within("log/").nth(2));
//! let name = |n| ObjectName::listed(&format!("log/{n}"));
//! store.create(&name(1), b"first".to_vec())?;
//! // Lost acknowledgement: it says that it failed, and it happened.
//! assert_eq!(store.create(&name(2), b"second".to_vec()).unwrap_err().class(), Class::Transient);
//! assert_eq!(store.get(&name(2), 10)?, "second");
//! # Ok::<(), amberfs::store::StoreError>(())
//! ```
//!
//! A crash test counts the calls of a run that succeeds ([`Faults::calls`]), and for each of them runs again
//! with [`Faults::crash_at`]: that call fails in one of three ways, and every later one fails without effect,
//! as after a power cut. It then opens the store underneath, without faults.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use object_store::path::Path;
use object_store::{ObjectStore, PutOptions, PutPayload};
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::intercept::{Gate, Verdict};
use super::meter::Operation;
use super::store::Store;

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It has no effect.
    Before,
    /// It has its effect, and the answer is lost. Reads have no effect: they just fail.
    After,
    /// A write leaves rests and nothing visible, in a local store a truncated file where such files are
    /// staged; a read or listing breaks off in the middle with an error.
    Half,
    /// An answer ends early, as if it were whole. Writes succeed.
    Short,
    /// One bit of an answer is wrong. Writes and listings succeed.
    Flipped,
    /// A deletion has no effect, and is answered as if it had: by a gateway's page, say. Everything else succeeds.
    Feigned,
    /// It waits for [`Faults::release`], and then goes on. Whoever has given up by then cancels it.
    Hang,
    /// It is never answered; [`Faults::release`] makes a creation happen, even if its caller has given up
    /// long since.
    Late,
}

/// Which calls fail, and how.
#[derive(Debug, Clone)]
pub struct Rule {
    fault: Fault,
    operation: Option<Operation>,
    within: String,
    nth: u64,
    lasting: bool,
    crash: bool,
    error: ErrorKind,
    matched: u64,
}

impl Rule {
    /// The first call of any kind, once.
    pub fn new(fault: Fault) -> Rule {
        Rule {
            fault,
            operation: None,
            within: String::new(),
            nth: 1,
            lasting: false,
            crash: false,
            error: ErrorKind::ConnectionReset,
            matched: 0,
        }
    }

    /// Only calls of this kind.
    pub fn on(self, operation: Operation) -> Rule {
        Rule { operation: Some(operation), ..self }
    }

    /// Only objects (or listed directories) whose names contain this.
    pub fn within(self, part: &str) -> Rule {
        Rule { within: part.to_owned(), ..self }
    }

    /// The `nth` of the matching calls, counted from 1 and from when the rule is planned.
    pub fn nth(self, nth: u64) -> Rule {
        Rule { nth, ..self }
    }

    /// And every matching call behind it.
    pub fn lasting(self) -> Rule {
        Rule { lasting: true, ..self }
    }

    /// And from then on every call of any kind fails without effect.
    pub fn then_crash(self) -> Rule {
        Rule { crash: true, ..self }
    }

    /// The operating system's error that is reported: `StorageFull`, `PermissionDenied`; otherwise a broken
    /// connection.
    pub fn reported_as(self, error: ErrorKind) -> Rule {
        Rule { error, ..self }
    }

    fn matches(&self, operation: Operation, object: &Path) -> bool {
        self.operation.is_none_or(|on| on == operation) && object.as_ref().contains(&self.within)
    }

    fn hits(&self) -> bool {
        self.matched == self.nth || self.lasting && self.matched > self.nth
    }
}

/// A plan of faults for one or several stores. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    plan: Arc<Plan>,
}

#[derive(Debug)]
struct Plan {
    state: Mutex<State>,
    /// Somebody began to hang.
    hung: Condvar,
    /// Counts releases.
    released: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    calls: u64,
    hits: u64,
    crashed: bool,
    ignores_create: bool,
    hanging: usize,
    late: Vec<Postponed>,
}

#[derive(Debug)]
struct Postponed {
    objects: Arc<dyn ObjectStore>,
    object: Path,
    payload: PutPayload,
    options: PutOptions,
}

/// The plan as one store meets it.
#[derive(Debug)]
struct Planned {
    plan: Arc<Plan>,
    objects: Arc<dyn ObjectStore>,
    root: Option<PathBuf>,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { state: Mutex::default(), hung: Condvar::new(), released: watch::Sender::new(0) }
    }
}

impl Faults {
    /// No faults.
    pub fn new() -> Faults {
        Faults::default()
    }

    /// `store`, with its calls subject to this plan.
    pub fn around(&self, store: &Store) -> Store {
        let plan = Arc::clone(&self.plan);
        let root = store.local_root().map(std::path::Path::to_owned);
        store.gated(&Arc::new(Planned { plan, objects: Arc::clone(store.objects()), root }))
    }

    /// Adds a rule. Of several that hit the same call, the first counts.
    pub fn plan(&self, rule: Rule) {
        self.plan.state.lock().rules.push(rule);
    }

    /// The `nth` call from now, of any kind, suffers `fault`, and all behind it fail without effect.
    pub fn crash_at(&self, nth: u64, fault: Fault) {
        self.plan(Rule::new(fault).nth(nth).then_crash());
    }

    /// Creations overwrite, as with a store that knows no condition.
    pub fn ignore_create(&self, ignore: bool) {
        self.plan.state.lock().ignores_create = ignore;
    }

    /// Forgets all rules and a crash, lets hanging calls go on, and counts from 0. Late creations stay for
    /// [`Faults::release`].
    pub fn clear(&self) {
        let mut state = self.plan.state.lock();
        state.rules.clear();
        (state.calls, state.hits, state.crashed, state.ignores_create) = (0, 0, false, false);
        drop(state);
        self.plan.released.send_modify(|count| *count += 1);
    }

    /// Calls so far, failed ones included.
    pub fn calls(&self) -> u64 {
        self.plan.state.lock().calls
    }

    /// How often a rule has hit. 0 after a test means that it has tested nothing.
    pub fn hits(&self) -> u64 {
        self.plan.state.lock().hits
    }

    /// Waits until this many calls hang or are late.
    ///
    /// # Panics
    /// When that takes more than a minute: the test would wait for ever.
    pub fn wait_for_stuck(&self, calls: usize) {
        let mut state = self.plan.state.lock();
        while state.hanging + state.late.len() < calls {
            let waited = self.plan.hung.wait_for(&mut state, Duration::from_secs(60));
            assert!(!waited.timed_out(), "no {calls} calls got stuck within a minute");
        }
    }

    /// Lets hanging calls go on, and makes late creations happen before it returns.
    ///
    /// # Panics
    /// When a late creation has to wait for something itself.
    pub fn release(&self) {
        self.plan.released.send_modify(|count| *count += 1);
        let late = std::mem::take(&mut self.plan.state.lock().late);
        // Outside any runtime `object_store` does its work at once, on the thread that polls.
        let done = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    late.into_iter().all(|Postponed { objects, object, payload, options }| {
                        // Whether the name was free is for those to find who read it.
                        let put = objects.put_opts(&object, payload, options).now_or_never();
                        put.is_some()
                    })
                })
                .join()
        });
        assert!(matches!(done, Ok(true)), "a late creation happens at once");
    }
}

#[async_trait]
impl Gate for Planned {
    async fn pass(&self, operation: Operation, object: &Path, _bytes: u64) -> Verdict {
        let mut released = self.plan.released.subscribe();
        let (fault, error) = {
            let mut state = self.plan.state.lock();
            state.calls += 1;
            if state.crashed {
                return Verdict::Before(failure(ErrorKind::BrokenPipe, operation, object));
            }
            let mut hit = None;
            for rule in state.rules.iter_mut().filter(|rule| rule.matches(operation, object)) {
                rule.matched += 1;
                if hit.is_none() && rule.hits() {
                    hit = Some((rule.fault, rule.error, rule.crash));
                }
            }
            let Some((fault, error, crash)) = hit else { return Verdict::Pass };
            state.hits += 1;
            state.crashed = crash;
            if fault == Fault::Hang {
                state.hanging += 1;
                self.plan.hung.notify_all();
            }
            (fault, error)
        };
        let error = failure(error, operation, object);
        match fault {
            Fault::Before => Verdict::Before(error),
            Fault::After => Verdict::After(error),
            Fault::Half => Verdict::Half(error),
            Fault::Short => Verdict::Short,
            Fault::Flipped => Verdict::Flipped,
            Fault::Feigned => Verdict::Feigned,
            Fault::Late => Verdict::Late,
            Fault::Hang => {
                let _hanging = Hanging(&self.plan);
                // The sender is in the plan that we hold, so this ends by a release only.
                let waited = released.changed().await;
                if waited.is_ok() { Verdict::Pass } else { Verdict::Before(error) }
            }
        }
    }

    fn ignores_create(&self) -> bool {
        self.plan.state.lock().ignores_create
    }

    fn leave_rest(&self, object: &Path, half: &[u8]) {
        let Some(root) = &self.root else { return };
        let path = root.join(format!("{object}#99"));
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, half));
        if let Err(error) = written {
            tracing::error!(path = %path.display(), %error, "the rest of a crash could not be left");
        }
    }

    fn postpone(&self, object: Path, payload: PutPayload, options: PutOptions) {
        let objects = Arc::clone(&self.objects);
        self.plan.state.lock().late.push(Postponed { objects, object, payload, options });
        self.plan.hung.notify_all();
    }
}

/// Counts a call as hanging until it goes on or is cancelled.
struct Hanging<'p>(&'p Plan);

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.state.lock().hanging -= 1;
    }
}

fn failure(kind: ErrorKind, operation: Operation, object: &Path) -> object_store::Error {
    let error = std::io::Error::new(kind, format!("injected fault: {operation} {object}"));
    object_store::Error::Generic { store: "faults", source: Box::new(error) }
}
