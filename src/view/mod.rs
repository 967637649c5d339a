//! Answers what a path or a byte held at a moment, without knowing who asks.

pub mod inode;
pub mod moment;
pub mod namespace;
pub mod point;
pub mod selector;

pub use inode::Inode;
pub use moment::Moment;
pub use point::PointView;
pub use selector::Selector;
