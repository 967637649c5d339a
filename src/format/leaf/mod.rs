//! The leaves of the three trees, one file each.

pub(crate) mod entries;
mod maps;
mod usage;

pub use entries::Entries;
pub use maps::Maps;
pub use usage::Usage;

#[cfg(test)]
mod tests;
