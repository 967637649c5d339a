//! The one binary of integration tests that need no kernel mount.
//!
//! One binary, because linking dominates the time of a test run; each file beside this one is a
//! module of it. Tests on real kernel mounts are the other binary, `tests/mount/main.rs`.

// A failed unwrap is a failed test, in a helper as much as in the test itself.
#![allow(clippy::unwrap_used)]

#[path = "../support/faulty_http.rs"]
mod faulty_http;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/servers.rs"]
mod servers;
#[path = "../support/skip.rs"]
mod skip;

mod architecture;
mod cli;
mod costs;
mod crash;
mod damage;
mod deletion;
mod desk;
mod disks;
mod docs;
mod encryption;
mod fingerprints;
mod format_doc;
mod golden;
mod history;
mod log_model;
mod log_schedules;
mod log_world;
mod model;
mod network_faults;
mod no_forgotten_files;
mod nonces;
mod power;
mod remote_reads;
mod requests;
mod rollback;
mod rust_source;
mod stores;
mod world;
