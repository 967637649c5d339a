//! Answers what a path or a byte held at a moment, without knowing who asks.

pub mod moment;
pub mod namespace;
pub mod resolve;
pub mod selector;

pub use moment::Moment;
pub use selector::Selector;
