//! amberfs: backups you can walk into.
//!
//! Every point of every source is a read-only directory, reconstructed on the fly from chunked
//! objects in a repository. The layers, each importing downward only (`tests/it/architecture.rs`
//! holds them to it):
//!
//! ```text
//!  base < seal < format < store < repo < chain < { capture | view } < { restore, verify } < job < { fuse | cli }
//!
//!  write    source > capture > chunks > frames > packs > repo > chain (commit)
//!  read     store > repo (cache) > chain > view > fuse | restore
//!  control  control file | cli > job > capture, restore, verify
//! ```

pub mod base;
pub mod capture;
pub mod chain;
pub mod cli;
pub mod format;
pub mod fuse;
pub mod job;
pub mod repo;
pub mod restore;
pub mod seal;
pub mod store;
pub mod verify;
pub mod view;
