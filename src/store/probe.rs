//! Finds out whether a store honours "create only if absent", on which every commit rests.
//!
//! Some gateways and network filesystems accept the condition and ignore it, so it is tried and not
//! believed: once in sequence and once as a race. The probe's objects are deleted, also when it fails;
//! what a crash leaves lies under `probe/`, where nothing else does.

use std::sync::Barrier;

use crate::base::{Class, Classed, Env};
use crate::format::ids::Nonce;
use crate::format::object::{Object, ObjectName};

use super::error::StoreError;
use super::store::{Created, Deadlines, Store};

/// Concurrent creations in the race.
pub(super) const RACERS: usize = 16;

/// Whether "create only if absent" holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateSupport {
    /// One of many creations of a name wins, and its bytes stay.
    Honoured,
    /// The store overwrites, tells several that they won, or knows no such condition.
    Ignored,
    /// It does not, and this process holds the lease of single-writer mode.
    Leased,
}

impl Store {
    /// Tries whether this store honours [`Store::create`]; about two dozen small requests.
    ///
    /// # Errors
    /// When the store fails otherwise: that says nothing about its support.
    pub fn probe(&self, env: &Env) -> Result<CreateSupport, StoreError> {
        let patient = self.deadlines();
        // A disk that is busy with what others write makes each creation durable when it has the time.
        if !self.is_remote() {
            return self.probe_in_time(env);
        }
        // What is tried is small: who waits at a terminal need not wait as long as for a pack.
        let quick = Deadlines { durable: patient.metadata, data: patient.metadata, ..patient };
        self.clone().with_deadlines(quick).probe_in_time(env)
    }

    fn probe_in_time(&self, env: &Env) -> Result<CreateSupport, StoreError> {
        let sequence = Object::Probe(Nonce(env.random())).name();
        let race = Object::Probe(Nonce(env.random())).name();
        let found = self.probe_sequence(&sequence).and_then(|support| match support {
            CreateSupport::Honoured => self.probe_race(&race),
            CreateSupport::Ignored | CreateSupport::Leased => Ok(support),
        });
        // Where nothing can be created for reasons of the network, nothing can be deleted either.
        let cleaned = match &found {
            Err(error) if error.is_unreached() => return found,
            _ => self.delete(&sequence).and(self.delete(&race)),
        };
        match found {
            Ok(support) => cleaned.map(|()| support),
            Err(error) if error.class() == Class::Unsupported => Ok(CreateSupport::Ignored),
            Err(error) => Err(error),
        }
    }

    fn probe_sequence(&self, name: &ObjectName) -> Result<CreateSupport, StoreError> {
        let created = [self.create(name, b"first".to_vec())?, self.create(name, b"second".to_vec())?];
        let kept = self.get(name, 64)?;
        Ok(honoured(created == [Created::New, Created::Exists] && kept == "first"))
    }

    fn probe_race(&self, name: &ObjectName) -> Result<CreateSupport, StoreError> {
        let race = self.race(name)?;
        Ok(honoured(race.winners == 1 && race.the_winners_stayed))
    }

    /// Has many create `name` at once.
    ///
    /// # Errors
    /// When any of the requests fails.
    pub(super) fn race(&self, name: &ObjectName) -> Result<Race, StoreError> {
        let bytes_of = |racer: usize| format!("racer {racer}").into_bytes();
        let start = Barrier::new(RACERS);
        let created = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..RACERS)
                .map(|racer| {
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        self.create(name, bytes_of(racer))
                    })
                })
                .collect();
            racers
                .into_iter()
                .map(|racer| racer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Result<Vec<_>, _>>()
        })?;
        let winners: Vec<usize> = (0..RACERS).filter(|racer| created.get(*racer) == Some(&Created::New)).collect();
        let kept = self.get(name, 64)?;
        Ok(Race { winners: winners.len(), the_winners_stayed: winners.iter().all(|winner| kept == bytes_of(*winner)) })
    }
}

/// What came of many creations of one name.
pub(super) struct Race {
    /// How many were told that they had created it.
    pub(super) winners: usize,
    /// Whether it holds the bytes of each of these.
    pub(super) the_winners_stayed: bool,
}

fn honoured(it_is: bool) -> CreateSupport {
    if it_is { CreateSupport::Honoured } else { CreateSupport::Ignored }
}
