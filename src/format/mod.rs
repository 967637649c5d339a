//! Domain values into the bytes that `docs/format.md` specifies, and back; anything else is refused.
//!
//! Pure: no input or output, no clock, no threads. Bytes come from a store that may be hostile, so
//! nothing here panics, indexes or allocates by a length that it has not checked.

pub mod author;
pub mod codec;
pub mod entry;
pub mod envelope;
pub mod error;
pub mod frame;
pub mod ids;
pub mod kept;
pub mod key;
pub mod keyring;
pub mod leaf;
pub mod lease;
pub mod log;
pub mod map;
pub mod marker;
pub mod node;
pub mod object;
pub mod pack;
pub mod problems;
pub mod realm;
pub mod sealed;
pub mod slot;

pub use error::FormatError;
pub use ids::*;
pub use key::Key;
pub use realm::Realm;
