//! What stands in the objects of single-writer mode. Their names say all that programs go by; the text is for people, and
//! always the same, so that what somebody else has put there is told apart.

use super::ids::Nonce;

/// Bytes that no text of these is longer than.
pub const TEXT_BYTES_MAX: u64 = 128;

/// Of a lease.
pub fn text(holder: Nonce, beat: u64) -> Vec<u8> {
    format!("{holder} {beat}\n").into_bytes()
}

/// Of the notice that this repository is written to in single-writer mode.
pub fn notice() -> Vec<u8> {
    b"written to in single-writer mode\n".to_vec()
}
