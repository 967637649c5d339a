//! Answers what a path or a byte held at a moment, without knowing who asks.

pub mod disk;
pub mod info;
pub mod inode;
pub mod loss;
pub mod moment;
pub mod mount;
pub mod namespace;
mod nodes;
mod paths;
pub mod point;
pub mod resolve;
pub mod selector;

pub use inode::Inode;
pub use moment::Moment;
pub use mount::{MountSettings, MountView};
pub use point::PointView;
pub use selector::Selector;
