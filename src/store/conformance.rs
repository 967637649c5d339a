//! Tries out what a store promises, one promise after another, and says which it keeps.
//!
//! The same trials judge a user's store (`amberfs repo check`) and every server of the tests. Nothing is believed: what is
//! written is read back, what is deleted is looked for. Everything happens below `probe/<random>/`, and is deleted at the end, also
//! when somebody asks for the end early. What a crash leaves there is no part of any repository, and is deleted by the next check;
//! so of two checks of one place at a time the second makes the first one find faults. The few objects of a writer's
//! probe are spared until the end, when it is long over.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::{Class, Classed, Env};
use crate::format::ids::Nonce;
use crate::format::object::{Object, ObjectName, PROBES_PREFIX};

use super::error::StoreError;
use super::probe::RACERS;
use super::store::{Created, Store};

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Objects in one listing; a page of S3 has 1,000.
    pub listed: usize,
    /// Bytes of an object in several parts.
    pub parts_bytes: usize,
    /// Rounds of the race.
    pub races: usize,
}

impl Default for Extent {
    fn default() -> Extent {
        Extent { listed: 1050, parts_bytes: 20 << 20, races: 4 }
    }
}

/// What became of one trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A short name, for programs.
    pub name: &'static str,
    /// What was promised, in words.
    pub promise: &'static str,
    /// Why it is not kept; none where it is.
    pub broken: Option<String>,
}

/// Threads that write the objects of the long listing.
const WRITERS: usize = 16;

/// Why a trial did not end as promised.
enum Broken {
    /// What the store did instead.
    Otherwise(String),
    /// It failed where it must not.
    Failed(StoreError),
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Broken {
        Broken::Failed(error)
    }
}

type Trial = Result<(), Broken>;

/// Broken, unless what happened is what was promised.
fn holds(it_does: bool, otherwise: impl FnOnce() -> String) -> Trial {
    if it_does { Ok(()) } else { Err(Broken::Otherwise(otherwise())) }
}

/// Content that no other object has.
fn content(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(bytes).collect()
}

struct Trials<'s> {
    store: &'s Store,
    env: &'s Env,
    prefix: String,
    extent: Extent,
    stop: &'s (dyn Fn() -> bool + Sync),
}

/// Tries everything, and tells of each trial when it has ended. Once `stop` says so, what was written is deleted and nothing more
/// tried.
///
/// # Errors
/// When the store cannot be written to at all, or what was written cannot be deleted: the rest would tell nothing.
pub fn check(
    store: &Store,
    env: &Env,
    extent: Extent,
    stop: &(dyn Fn() -> bool + Sync),
    mut tell: impl FnMut(&Finding),
) -> Result<Vec<Finding>, StoreError> {
    let prefix = format!("{}/", Object::Probe(Nonce(env.random())).name());
    let (of_checks, of_probes) = left_behind(store)?;
    delete_all(store, &of_checks)?;
    let trials = Trials { store, env, prefix, extent, stop };
    // Without this nothing can be tried, and the reason is the store's or the user's, not a promise's.
    store.create(&trials.name("first"), b"first".to_vec())?;
    type Row<'s> = (&'static str, &'static str, fn(&Trials<'s>) -> Trial);
    let rows: [Row<'_>; 11] = [
        ("create-in-sequence", "a second creation of a name says that it exists and changes nothing", Trials::sequence),
        ("create-raced", "of 16 creations of a name at once, one wins and its bytes stay", Trials::race),
        ("read-after-write", "what was written is read back, whole and at once", Trials::read_back),
        ("absence", "what does not exist is told from what cannot be read", Trials::absence),
        ("ranges", "ranges and ends of an object are exact, and what is beyond its end is an error", Trials::ranges),
        ("list-after-write", "a listing has what was just written, and not what was deleted", Trials::list_after_write),
        (
            "list-many",
            "a listing of more than 1,000 names is complete, sorted, and can begin anywhere",
            Trials::list_many,
        ),
        ("odd-names", "names with spaces, signs and other letters are kept apart and come back", Trials::odd_names),
        ("parts", "an object that goes up in parts is absent until it is whole", Trials::parts),
        ("parts-given-up", "an upload that is given up leaves no object", Trials::given_up),
        ("delete", "what is deleted is gone, and deleting what is not there is no error", Trials::delete),
    ];
    let mut findings = Vec::new();
    for (name, promise, trial) in rows {
        let tried = trial(&trials);
        // What was broken off says nothing.
        if stop() {
            break;
        }
        let broken = match tried {
            Ok(()) => None,
            Err(Broken::Otherwise(what)) => Some(what),
            Err(Broken::Failed(error)) => Some(error.to_string()),
        };
        let finding = Finding { name, promise, broken };
        tell(&finding);
        findings.push(finding);
    }
    let mut written: Vec<ObjectName> =
        store.list(&trials.prefix, None, None)?.into_iter().map(|one| one.name).collect();
    written.extend(of_probes);
    delete_all(store, &written)?;
    store.remove_empty(PROBES_PREFIX.trim_end_matches('/'));
    Ok(findings)
}

/// What checks that were killed have left, and what lies where writers' probes do.
fn left_behind(store: &Store) -> Result<(Vec<ObjectName>, Vec<ObjectName>), StoreError> {
    let listed = store.list(PROBES_PREFIX, None, None)?.into_iter().map(|one| one.name);
    let is_probe = |name: &str| Object::parse(&ObjectName::listed(name)).is_some();
    let is_ours = |name: &ObjectName| {
        let end = name.as_str().match_indices('/').nth(1).map_or(name.as_str().len(), |(end, _)| end);
        name.as_str().get(..end).is_some_and(is_probe)
    };
    Ok(listed.filter(is_ours).partition(|name| !is_probe(name.as_str())))
}

fn delete_all(store: &Store, names: &[ObjectName]) -> Result<(), StoreError> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let delete = || {
            while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                store.delete(name)?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..WRITERS.min(names.len())).map(|_| scope.spawn(delete)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<()>, StoreError>>()
    })?;
    Ok(())
}

impl Trials<'_> {
    fn name(&self, name: &str) -> ObjectName {
        ObjectName::listed(&format!("{}{name}", self.prefix))
    }

    fn listed(&self, below: &str) -> Result<Vec<String>, StoreError> {
        let listed = self.store.list(&format!("{}{below}", self.prefix), None, None)?;
        Ok(listed.iter().filter_map(|l| l.name.as_str().strip_prefix(&self.prefix).map(str::to_owned)).collect())
    }

    fn sequence(&self) -> Trial {
        let name = self.name("sequence");
        let first = self.store.create(&name, b"first".to_vec())?;
        let second = self.store.create(&name, b"second".to_vec())?;
        let kept = self.store.get(&name, 64)?;
        holds((first, second) == (Created::New, Created::Exists), || {
            format!("the first creation says {first:?}, the second {second:?}")
        })?;
        holds(kept == "first", || "the second creation's bytes are there".to_owned())
    }

    fn race(&self) -> Trial {
        for round in 0..self.extent.races {
            let name = self.name(&format!("race-{round}"));
            let race = self.store.race(&name)?;
            holds(race.winners == 1, || {
                format!("in round {} {} of {RACERS} were told that they won", round + 1, race.winners)
            })?;
            holds(race.the_winners_stayed, || "another's bytes stayed than the winner's".to_owned())?;
        }
        Ok(())
    }

    fn read_back(&self) -> Trial {
        for (number, bytes) in [0, 1, 5, 1 << 10, 3 << 20].into_iter().enumerate() {
            let name = self.name(&format!("read/{number}"));
            let written = content(number as u64 + 1, bytes);
            self.store.create(&name, written.clone())?;
            let read = self.store.get(&name, 4 << 20)?;
            holds(read == written, || format!("of {bytes} bytes {} came back, or others", read.len()))?;
            let size = self.store.size(&name)?;
            holds(size == bytes as u64, || format!("{bytes} bytes are said to be {size}"))?;
        }
        Ok(())
    }

    fn absence(&self) -> Trial {
        let name = self.name("absent");
        let answers = [
            ("a read", self.store.get(&name, 64).map(drop)),
            ("a range", self.store.get_range(&name, 0..1).map(drop)),
            ("the end", self.store.tail(&name, 1).map(drop)),
            ("the size", self.store.size(&name).map(drop)),
        ];
        for (what, answer) in answers {
            match answer {
                Err(error) if error.class() == Class::NotFound => {}
                Err(error) => return Err(Broken::Otherwise(format!("{what} of what does not exist: {error}"))),
                Ok(()) => return Err(Broken::Otherwise(format!("{what} of what does not exist succeeds"))),
            }
        }
        Ok(())
    }

    fn ranges(&self) -> Trial {
        const BYTES: u64 = 100_000;
        let name = self.name("ranges");
        let written = content(99, BYTES as usize);
        self.store.create(&name, written.clone())?;
        for range in [0..1, 0..BYTES, 4_095..4_097, 50_000..50_001, BYTES - 1..BYTES] {
            let expected = written.get(range.start as usize..range.end as usize).unwrap_or_default();
            let read = self.store.get_range(&name, range.clone())?;
            holds(*read == *expected, || format!("bytes {}..{} are others", range.start, range.end))?;
        }
        for range in [BYTES - 1..BYTES + 1, BYTES..BYTES + 1, BYTES + 10..BYTES + 20] {
            match self.store.get_range(&name, range.clone()) {
                Err(StoreError::Truncated { .. }) => {}
                Err(error) => return Err(Broken::Otherwise(format!("a range beyond the end: {error}"))),
                Ok(_) => return Err(Broken::Otherwise("a range beyond the end succeeds".to_owned())),
            }
        }
        for bytes in [1, 1_000, BYTES, BYTES + 1] {
            let (tail, size) = self.store.tail(&name, bytes)?;
            let expected = written.get((BYTES - bytes.min(BYTES)) as usize..).unwrap_or_default();
            holds(*tail == *expected && size == BYTES, || format!("the last {bytes} bytes are others"))?;
        }
        Ok(())
    }

    fn list_after_write(&self) -> Trial {
        for name in ["new/a", "new/b", "new/c/d", "newer"] {
            self.store.create(&self.name(name), b"x".to_vec())?;
            let listed = self.listed("new")?;
            holds(listed.iter().any(|l| l == name), || format!("{name} was written and is not listed"))?;
        }
        let below = self.listed("new/")?;
        holds(below == ["new/a", "new/b", "new/c/d"], || format!("below new/ are listed {below:?}"))?;
        self.store.delete(&self.name("new/b"))?;
        let below = self.listed("new/")?;
        holds(below == ["new/a", "new/c/d"], || format!("after a deletion, {below:?} are listed"))?;
        let none = self.listed("nothing/here/")?;
        holds(none.is_empty(), || format!("below nothing are listed {none:?}"))
    }

    fn list_many(&self) -> Trial {
        let count = self.extent.listed;
        let name = |number: usize| self.name(&format!("many/{number:05}"));
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let write = || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count || (self.stop)() {
                        return Ok(());
                    }
                    self.store.create(&name(number), vec![b'x'; number % 7 + 1])?;
                }
            };
            let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(write)).collect();
            writers
                .into_iter()
                .map(|writer| writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Result<Vec<()>, StoreError>>()
        })?;
        let prefix = format!("{}many/", self.prefix);
        let listed = self.store.list(&prefix, None, None)?;
        let complete = listed.len() == count
            && listed.iter().enumerate().all(|(n, l)| l.name == name(n) && l.bytes == (n % 7 + 1) as u64);
        holds(complete, || format!("of {count} names {} are listed, or with wrong sizes", listed.len()))?;
        for (after, most) in [(0, None), (count / 2, None), (count.saturating_sub(3), None), (7, Some(5)), (0, Some(1))]
        {
            let listed = self.store.list(&prefix, Some(&name(after)), most)?;
            let expected = (count - 1 - after).min(most.unwrap_or(usize::MAX));
            let right = listed.len() == expected && listed.iter().zip(after + 1..).all(|(l, n)| l.name == name(n));
            holds(right, || format!("behind name {after} {} of {expected} are listed", listed.len()))?;
        }
        Ok(())
    }

    fn odd_names(&self) -> Trial {
        let long = "l".repeat(200);
        let names = ["a b", "a+b", "a%20b", "ü", "日本", "a=b&c", "x~y", "'", "(1)", "A", "a", ".hidden", &long];
        // Some would be refused by the store's own rules for names, which a repository never runs into.
        let mut refused = Vec::new();
        for odd in names {
            match self.store.create(&self.name(&format!("odd/{odd}")), odd.as_bytes().to_vec()) {
                Ok(_) => {}
                Err(error) if error.class() == Class::Invalid => refused.push(odd),
                Err(error) => return Err(error.into()),
            }
        }
        let kept = || names.into_iter().filter(|odd| !refused.contains(odd));
        for odd in kept() {
            let read = self.store.get(&self.name(&format!("odd/{odd}")), 1 << 10)?;
            holds(read == odd.as_bytes(), || format!("under {odd:?} stand another name's bytes"))?;
        }
        let mut expected: Vec<String> = kept().map(|odd| format!("odd/{odd}")).collect();
        expected.sort();
        let listed = self.listed("odd/")?;
        holds(listed == expected, || format!("listed are {listed:?}"))
    }

    fn parts(&self) -> Trial {
        let name = self.name("parts");
        let written = content(7, self.extent.parts_bytes + 1);
        let mut upload = self.store.upload(&name)?;
        for piece in written.chunks(3 << 20) {
            upload.write(piece.to_vec())?;
        }
        match self.store.size(&name) {
            Err(error) if error.class() == Class::NotFound => {}
            Err(error) => return Err(error.into()),
            Ok(bytes) => return Err(Broken::Otherwise(format!("{bytes} bytes of it are visible before its end"))),
        }
        let seen = self.listed("parts")?;
        holds(seen.is_empty(), || format!("before its end, {seen:?} are listed"))?;
        upload.finish()?;
        let mut at = 0;
        for piece in written.chunks(1 << 20) {
            let read = self.store.get_range(&name, at..at + piece.len() as u64)?;
            holds(*read == *piece, || format!("the bytes from {at} on are others"))?;
            at += piece.len() as u64;
        }
        let size = self.store.size(&name)?;
        holds(size == written.len() as u64, || format!("it has {size} bytes"))
    }

    fn given_up(&self) -> Trial {
        let name = self.name("given-up");
        let mut upload = self.store.upload(&name)?;
        upload.write(content(8, 12 << 20))?;
        upload.abort();
        match self.store.size(&name) {
            Err(error) if error.class() == Class::NotFound => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(Broken::Otherwise("it is there".to_owned())),
        }
        let seen = self.listed("given-up")?;
        holds(seen.is_empty(), || format!("{seen:?} are listed"))
    }

    fn delete(&self) -> Trial {
        let name = self.name("deleted");
        self.store.create(&name, b"x".to_vec())?;
        self.store.delete(&name)?;
        match self.store.get(&name, 64) {
            Err(error) if error.class() == Class::NotFound => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(Broken::Otherwise("it can still be read".to_owned())),
        }
        self.store.delete(&name)?;
        self.store.delete(&self.name(&format!("never-{}", u64::from_le_bytes(self.env.random()))))?;
        let created = self.store.create(&name, b"y".to_vec())?;
        holds(created == Created::New, || "its name cannot be used again".to_owned())
    }
}
