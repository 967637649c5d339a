//! The one home of `bincode`: values to bytes and back, exactly and canonically.
//!
//! Configuration, written out so that the crate can be replaced without a change of format: integers
//! little-endian and variable-length (below 251 one byte; 251, 252, 253, 254 announce 2, 4, 8, 16
//! bytes), signed ones zigzagged first; sequences, byte strings and text as a length and their
//! items; options as 0 or 1 and the value; an enum as its variant's number and fields; fixed arrays
//! and structs as their parts without any frame. `docs/format.md` repeats this normatively.
//!
//! Invariant: `decode` accepts exactly the bytes that `encode` yields. What bincode would let pass
//! (trailing bytes, integers longer than needed) is refused by encoding again and comparing, byte by byte as they come: no
//! second copy is made.
//! Types given to it must not be recursive and must not hold sequences of empty items: bincode's
//! limit counts bytes, and such items have none.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};

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
    decode_with(what, bytes, limit, || bincode::decode_from_slice(bytes, config()))
}

/// The same of a value that borrows byte strings from `bytes`.
///
/// # Errors
/// As [`decode`].
pub fn decode_borrowed<'a, T: Encode + BorrowDecode<'a, ()>>(
    what: &'static str,
    bytes: &'a [u8],
    limit: usize,
) -> Result<T, FormatError> {
    decode_with(what, bytes, limit, || bincode::borrow_decode_from_slice(bytes, config()))
}

fn decode_with<T: Encode>(
    what: &'static str,
    bytes: &[u8],
    limit: usize,
    decoded: impl FnOnce() -> Result<(T, usize), DecodeError>,
) -> Result<T, FormatError> {
    if bytes.len() > limit {
        return Err(FormatError::TooLarge { what, size: bytes.len() as u64, limit: limit as u64 });
    }
    let (value, used) = decoded().map_err(|error| malformed(what, error.to_string()))?;
    if used != bytes.len() {
        return Err(malformed(what, format!("{} bytes follow its end", bytes.len().saturating_sub(used))));
    }
    if !encodes_to(&value, bytes) {
        return Err(malformed(what, "not in canonical form"));
    }
    Ok(value)
}

/// Whether the canonical bytes of `value` are `bytes`.
fn encodes_to<T: Encode>(value: &T, bytes: &[u8]) -> bool {
    struct Compared<'a>(&'a [u8]);

    impl Writer for Compared<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
            self.0 = self.0.strip_prefix(bytes).ok_or(EncodeError::Other("other bytes"))?;
            Ok(())
        }
    }

    let mut compared = Compared(bytes);
    bincode::encode_into_writer(value, &mut compared, bincode::config::standard()).is_ok() && compared.0.is_empty()
}
