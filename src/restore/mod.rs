//! Makes the outside world equal to a view, resumably.
//!
//! ```text
//!  directory, trail, sys   the target: open directories, and the calls that never follow a link
//!  claim                   proof of which restore a target belongs to, and of what is finished
//!  walk, plan              what there is to restore, in the order in which it is stored
//!  write, links            one name, complete or not at all
//!  attributes, finish      metadata, of directories last
//!  compare                 reads back what was written
//!  inode, content          an inode with its metadata, and the bytes of one file
//!  disk                    the same for disks, which are one large file
//!  run                     a restore from its claim to its end
//!  rollback, note          the source itself back at a point, by the difference
//! ```

mod attributes;
mod claim;
mod compare;
mod content;
mod directory;
pub mod disk;
mod error;
mod finish;
mod inode;
mod links;
mod note;
mod options;
mod outcome;
mod plan;
mod progress;
pub mod rollback;
mod run;
mod sys;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trail;
mod walk;
mod write;

pub use error::RestoreError;
pub use options::Options;
pub use outcome::{Counts, Outcome, Problem};
pub use progress::Progress;
pub use run::{Wanted, restore};
