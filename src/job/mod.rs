//! Accepts a request, runs it once, reports progress, survives restart.

pub mod config;
mod config_edit;
pub mod control;
pub mod error;
mod journal;
pub mod line;
pub mod places;
pub mod protocol;
mod record;
pub mod request;
pub mod state;

pub use config::{Config, ConfigFile, SourceConfig};
pub use error::JobError;
pub use journal::list;
pub use places::Places;
pub use record::{Ending, Process, Record};
