//! Accepts a request, runs it once, reports progress, survives restart.

pub mod control;
pub mod line;
pub mod protocol;
pub mod request;
pub mod state;
pub mod suggest;
