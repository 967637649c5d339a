//! Captures of real directories into a repository in memory, read back through the trees.

mod disks;
pub(super) mod expect;
mod faults;
mod history;
mod kinds;
mod streams;
mod trees;
mod twins;
