//! The outside influences that make two runs differ: the clock and the dice.
//!
//! A production [`Env`] asks the operating system; a test makes one from a seed and moves its clock
//! by hand. It is passed down explicitly: there is no global.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::time::Instant;

/// Clock and randomness, cheap to clone.
#[derive(Clone, Debug)]
pub struct Env {
    inner: Arc<Kind>,
}

#[derive(Debug)]
enum Kind {
    System,
    /// `now` in nanoseconds since 1970; `state` of a splitmix64 generator.
    Seeded {
        now: AtomicI64,
        state: AtomicU64,
    },
}

impl Env {
    /// The machine's own clock and random numbers.
    pub fn system() -> Env {
        Env { inner: Arc::new(Kind::System) }
    }

    /// A reproducible world: random bytes follow from `seed`, time stands still at `now` until
    /// [`Env::advance`] moves it.
    pub fn seeded(seed: u64, now: Instant) -> Env {
        Env { inner: Arc::new(Kind::Seeded { now: AtomicI64::new(now.nanos()), state: AtomicU64::new(seed) }) }
    }

    /// The present instant.
    #[allow(clippy::disallowed_methods)]
    pub fn now(&self) -> Instant {
        match &*self.inner {
            Kind::System => Instant::from_system(std::time::SystemTime::now()),
            Kind::Seeded { now, .. } => Instant::from_nanos(now.load(Ordering::SeqCst)),
        }
    }

    /// Moves a seeded clock forward; does nothing to the machine's clock.
    pub fn advance(&self, by: std::time::Duration) {
        if let Kind::Seeded { now, .. } = &*self.inner {
            now.fetch_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// `N` random bytes, from the operating system unless seeded.
    ///
    /// # Panics
    /// When the operating system has no randomness to give: nothing safe can be written then.
    #[allow(clippy::disallowed_methods)]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0u8; N];
        match &*self.inner {
            Kind::System => getrandom::fill(&mut bytes).expect("the operating system gives random bytes"),
            Kind::Seeded { state, .. } => {
                for chunk in bytes.chunks_mut(8) {
                    let mut z =
                        state.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::SeqCst).wrapping_add(0x9E37_79B9_7F4A_7C15);
                    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                    z ^= z >> 31;
                    for (to, from) in chunk.iter_mut().zip(z.to_le_bytes()) {
                        *to = from;
                    }
                }
            }
        }
        bytes
    }
}
