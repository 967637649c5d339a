//! Answers what a path or a byte held at a moment, without knowing who asks.

pub mod namespace;
