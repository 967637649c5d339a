//! The one home of `bincode`: values to bytes and back, exactly and canonically.
//!
//! Configuration, written out so that the crate can be replaced without a change of format: integers
//! little-endian and variable-length (below 251 one byte; 251, 252, 253, 254 announce 2, 4, 8, 16
//! bytes), signed ones zigzagged first; sequences, byte strings and text as a length and their
//! items; options as 0 or 1 and the value; an enum as its variant's number and fields; fixed arrays
//! and structs as their parts without any frame. `docs/format.md` repeats this normatively.
//!
//! Invariant: `decode` accepts exactly the bytes that `encode` yields. What bincode would let pass
//! (trailing bytes, integers longer than needed) is refused by encoding again and comparing.
//! Types given to it must not be recursive and must not hold sequences of empty items: bincode's
//! limit counts bytes, and such items have none.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};

use super::error::{FormatError, malformed};

/// More than any structure may announce, so that a length in hostile bytes cannot allocate more.
const LIMIT_BYTES: usize = 64 << 20;

const fn config() -> Configuration<LittleEndian, Varint, Limit<LIMIT_BYTES>> {
    bincode::config::standard().with_limit::<LIMIT_BYTES>()
}

/// The canonical bytes of `value`.
///
/// # Panics
/// When a value exceeds 64 MiB: callers bound their sequences (`limits.rs`) before they come here.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    match bincode::encode_to_vec(value, bincode::config::standard()) {
        Ok(bytes) => bytes,
        Err(error) => panic!("in-memory encoding cannot fail: {error}"),
    }
}

/// The value whose canonical bytes are exactly `bytes`; `what` names it in errors.
///
/// # Errors
/// [`FormatError::TooLarge`] beyond `limit` bytes, [`FormatError::Malformed`] for anything but
/// canonical bytes.
pub fn decode<T: Encode + Decode<()>>(what: &'static str, bytes: &[u8], limit: usize) -> Result<T, FormatError> {
    if bytes.len() > limit {
        return Err(FormatError::TooLarge { what, size: bytes.len() as u64, limit: limit as u64 });
    }
    let (value, used): (T, usize) =
        bincode::decode_from_slice(bytes, config()).map_err(|error| malformed(what, error.to_string()))?;
    if used != bytes.len() {
        return Err(malformed(what, format!("{} bytes follow its end", bytes.len().saturating_sub(used))));
    }
    if encode(&value) != bytes {
        return Err(malformed(what, "not in canonical form"));
    }
    Ok(value)
}
