//! Accepts a request, runs it once, reports progress, survives restart.

pub mod config;
mod config_edit;
pub mod control;
pub mod line;
pub mod places;
pub mod protocol;
pub mod request;
pub mod state;

pub use config::{Config, ConfigFile, SourceConfig};
pub use places::Places;
