#![allow(unsafe_code)]
//! Elements in registers of SSE2, which every x86-64 has: twice as fast as in registers for numbers.

use std::arch::x86_64::{
    __m128i, _mm_and_si128, _mm_cvtsi128_si64, _mm_set_epi32, _mm_set_epi64x, _mm_shuffle_epi32, _mm_slli_epi64,
    _mm_srai_epi32, _mm_unpackhi_epi64, _mm_xor_si128,
};
use std::ops::BitXor;

use super::element::Field;

/// The coefficients, that of x^0 in the lowest bit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element(__m128i);

impl Field for Element {
    #[inline(always)]
    fn times_x(self) -> Element {
        // SAFETY: SSE2 is part of x86-64, and these touch registers only.
        unsafe {
            // Each quarter becomes its highest bit, all over; the highest goes where the modulus is taken, that of the
            // lower half to the upper one.
            let signs = _mm_shuffle_epi32(_mm_srai_epi32(self.0, 31), 0b00_01_00_11);
            let carried = _mm_and_si128(signs, _mm_set_epi32(0, 1, 0, 0x87));
            Element(_mm_xor_si128(_mm_slli_epi64(self.0, 1), carried))
        }
    }
}

impl From<u128> for Element {
    #[inline(always)]
    fn from(coefficients: u128) -> Element {
        // SAFETY: as above.
        Element(unsafe { _mm_set_epi64x((coefficients >> 64) as i64, coefficients as i64) })
    }
}

impl From<Element> for [u8; 16] {
    #[inline(always)]
    fn from(Element(halves): Element) -> [u8; 16] {
        // SAFETY: as above.
        let (lower, upper) =
            unsafe { (_mm_cvtsi128_si64(halves), _mm_cvtsi128_si64(_mm_unpackhi_epi64(halves, halves))) };
        (u128::from(upper as u64) << 64 | u128::from(lower as u64)).to_le_bytes()
    }
}

impl BitXor for Element {
    type Output = Element;

    #[inline(always)]
    fn bitxor(self, other: Element) -> Element {
        // SAFETY: as above.
        Element(unsafe { _mm_xor_si128(self.0, other.0) })
    }
}
