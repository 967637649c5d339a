//! Reads a source as it is now and yields one committed point or nothing.

#![allow(dead_code)]

mod boundary;
mod change;
mod chunk;
mod directory;
mod error;
mod exclude;
mod stat;
mod sys;
mod walk;

pub use error::CaptureError;
pub use exclude::Excludes;
