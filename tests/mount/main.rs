//! Kernel mounts: what programs see that use one, and what becomes of it when its processes die.
//!
//! The mounts show a toy tree (`toy.rs`), which holds what real repositories have seldom: reads that
//! hang, panic, or meet damage. This binary starts itself once more as the processes of a mount
//! (`processes.rs`).

#![allow(clippy::unwrap_used)]

#[path = "../support/program.rs"]
mod program;
#[path = "../support/servers.rs"]
mod servers;
#[path = "../support/skip.rs"]
mod skip;
// What the histories without a kernel use, of which a mount needs a part.
#[allow(dead_code)]
#[path = "../it/history.rs"]
mod history;
#[allow(dead_code)]
#[path = "../it/nonces.rs"]
mod nonces;
#[allow(dead_code)]
#[path = "../it/world.rs"]
mod world;

mod big_disk;
mod big_tree;
mod control;
mod deletion;
mod demo;
mod disks;
mod encrypted;
mod fidelity;
mod handles;
mod histories;
mod jobs;
mod lifecycle;
mod main_job;
mod memory;
mod orders;
mod processes;
mod reading;
mod readme;
mod real;
mod rollback;
mod semantics;
mod stores;
mod sys;
mod toy;
mod trouble;
mod users;
mod walk_in;
