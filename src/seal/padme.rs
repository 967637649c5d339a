//! Lengths that tell little: Padmé (Nikitin et al., *Reducing Metadata Leakage from Encrypted Files and
//! Communication with PURBs*, PETS 2019).
//!
//! A length is padded until it is a floating-point number whose mantissa is no longer than its exponent: what stays
//! visible of a length L is O(log log L) bits, for at most 12 % of padding, less the longer it is.

/// The length to which `length` bytes are padded: not below it, and itself when padded once more.
pub fn padded_len(length: u64) -> u64 {
    let Some(exponent @ 1..) = length.checked_ilog2() else { return length };
    let mantissa = exponent.ilog2() + 1;
    let zeros = exponent.saturating_sub(mantissa);
    let mask = (1u64 << zeros) - 1;
    // A length within one step of 2^64 has nothing above it.
    length.checked_add(mask).map_or(length, |padded| padded & !mask)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::padded_len;

    #[test]
    fn lengths_of_the_paper() {
        let pairs =
            [(0, 0), (1, 1), (2, 2), (8, 8), (9, 10), (15, 16), (17, 18), (100, 104), (1000, 1024), (1025, 1088)];
        for (length, padded) in pairs {
            assert_eq!(padded_len(length), padded, "{length}");
        }
        assert_eq!(padded_len((64 << 20) + 1), 66 << 20);
        assert_eq!(padded_len(u64::MAX), u64::MAX);
    }

    #[test]
    fn few_lengths_are_left() {
        let mut left: Vec<u64> = (1..=1u64 << 20).map(padded_len).collect();
        left.dedup();
        // At most 2^(mantissa bits) of each power of two.
        let most: u64 = 1 + (1..=20u32).map(|exponent| 1 << (exponent.ilog2() + 1).min(exponent)).sum::<u64>();
        assert!(left.len() as u64 <= most, "{} lengths, at most {most}", left.len());
    }

    /// Lengths of all magnitudes.
    fn lengths() -> impl Strategy<Value = u64> {
        (0u32..62, any::<u64>()).prop_map(|(shift, bits)| (bits >> 2) >> shift)
    }

    proptest! {
        #[test]
        fn a_padded_length_is_little_longer_and_stays(length in lengths()) {
            let padded = padded_len(length);
            prop_assert!(padded >= length);
            prop_assert_eq!(padded_len(padded), padded);
            // 12 % at most; from 256 bytes on 1/16, from 64 KiB on 1/32.
            let parts = match length { 0..256 => 100 / 12, 256..65_536 => 16, _ => 32 };
            prop_assert!(padded - length <= length / parts, "{} to {}", length, padded);
        }

        #[test]
        fn longer_is_never_padded_to_less(a in lengths(), b in lengths()) {
            prop_assert!(padded_len(a.min(b)) <= padded_len(a.max(b)));
        }
    }
}
