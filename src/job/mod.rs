//! Accepts a request, runs it once, reports progress, survives restart.

mod board;
mod child;
pub mod client;
pub mod config;
mod config_edit;
pub mod control;
pub mod credentials;
mod desk;
pub mod error;
mod help;
mod journal;
pub mod line;
mod mounted;
mod outcome;
mod page;
pub mod places;
pub mod protocol;
mod record;
pub mod request;
mod runner;
pub mod state;
mod sys;
pub mod witness;

pub use child::Program;
pub use config::{Config, ConfigFile, SourceConfig};
pub use desk::{Desk, DeskOptions, Site};
pub use error::JobError;
pub use journal::{is_unjudged, list};
pub use mounted::{MountSite, open_desk};
pub use outcome::Testimony;
pub use places::Places;
pub use record::{Ending, Process, Record};
