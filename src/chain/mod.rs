//! Which points exist: the logs, and what they amount to.
//!
//! ```text
//! state      what entries mean: a pure fold, the same for every reader
//! protocol   how an entry comes to stand: a pure machine, the one that the model checker runs
//! log        the driver: reads a log, appends to it, writes checkpoints
//! authority  who may append to the log of a source, said there and pinned in the repository's
//! audit      reads everything that a reader could do without, and says what is wrong
//! deletion   what a deletion would take, before it is asked of the log
//! weight     what points hold in the store that other points do not
//! ```

mod audit;
mod authority;
mod deletion;
mod error;
pub mod heads;
mod log;
pub mod name;
pub mod origin;
mod point;
pub mod protocol;
mod repo_log;
mod source_log;
pub mod state;
#[cfg(test)]
pub(crate) mod testing;
pub mod weight;

pub use audit::Audit;
pub use authority::Unreached;
pub use deletion::DeletionPlan;
pub use error::ChainError;
pub use log::Survey;
pub use point::Point;
pub use repo_log::RepoLog;
pub use source_log::SourceLog;
pub use state::{RepoState, SourceState};
