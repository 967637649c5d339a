//! Time, chance, limits and failure classes, for everything above to use and for a test to control.
//!
//! Nothing outside this layer reads a clock or draws a random number directly (`clippy.toml`
//! bans the calls), so a whole system can run from one seed.

pub mod class;
pub mod env;
pub mod foreign;
pub mod heirloom;
pub mod hex;
pub mod limits;
/// For the unit tests of every layer; included once, here.
#[cfg(test)]
#[path = "../../tests/support/skip.rs"]
pub(crate) mod skip;
pub mod suggest;
pub mod sys;
pub mod time;

pub use class::{Class, Classed};
pub use env::Env;
pub use heirloom::Bequest;
pub use time::{FileTime, Instant};
