//! Elements of the field of 2^128 elements in which windows are hashed, in the registers that are fastest at it.
//!
//! Both kinds are compiled wherever both can be, and compared: which of them cuts must never show.

use std::ops::BitXor;

/// What an element is made of and makes: its coefficients, that of x^0 first.
pub(super) trait Field: Copy + From<u128> + Into<[u8; 16]> + BitXor<Output = Self> {
    /// Times x, modulo `x^128 + x^7 + x^2 + x + 1`, without a branch.
    fn times_x(self) -> Self;
}

/// The kind that this machine hashes with.
#[cfg(target_arch = "x86_64")]
pub(super) use super::sys::Element;
/// The kind that this machine hashes with.
#[cfg(not(target_arch = "x86_64"))]
pub(super) type Element = Scalar;

/// An element in two registers for numbers.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[derive(Debug, Clone, Copy)]
pub(super) struct Scalar(u128);

#[cfg(any(test, not(target_arch = "x86_64")))]
impl Field for Scalar {
    #[inline(always)]
    fn times_x(self) -> Scalar {
        let carried = 0u64.wrapping_sub((self.0 >> 127) as u64);
        Scalar((self.0 << 1) ^ u128::from(carried & 0x87))
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
impl From<u128> for Scalar {
    fn from(coefficients: u128) -> Scalar {
        Scalar(coefficients)
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
impl From<Scalar> for [u8; 16] {
    #[inline(always)]
    fn from(element: Scalar) -> [u8; 16] {
        element.0.to_le_bytes()
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
impl BitXor for Scalar {
    type Output = Scalar;

    #[inline(always)]
    fn bitxor(self, other: Scalar) -> Scalar {
        Scalar(self.0 ^ other.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_kinds_say_the_same(a: u128, b: u128, times in 0usize..300) {
            let after = |steps: usize| (0..steps).fold(Element::from(a), |moved, _| moved.times_x()) ^ Element::from(b);
            let plain = |steps: usize| (0..steps).fold(Scalar::from(a), |moved, _| moved.times_x()) ^ Scalar::from(b);
            prop_assert_eq!(<[u8; 16]>::from(after(times)), <[u8; 16]>::from(plain(times)));
            prop_assert_eq!(<[u8; 16]>::from(Element::from(a)), a.to_le_bytes());
        }
    }
}
