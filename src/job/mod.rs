//! Accepts a request, runs it once, reports progress, survives restart.

pub mod control;
