//! The counted copy-on-write B+tree: what a point's names, maps and usage are kept in.
//!
//! A [`Tree`] is read through its root and never changes. A [`TreeWriter`] starts from a parent's
//! root (or nothing), takes batches of edits, and yields a new root that shares every node that no
//! edit touched. Counts in inner nodes make an item's rank and its key two ways to the same place,
//! each in one descent.

mod parts;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{Item, Scan, Tree};
pub use write::{Delta, Edit, TreeWriter};
