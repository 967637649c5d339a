//! A look at everything that is sealed, for tests: no key may ever seal two texts under one counter.
//!
//! No production code sets an observer; without one, sealing costs one load more. It sees what is sealed before it is,
//! in whichever thread, and can change nothing.

use std::sync::OnceLock;

use super::aead::Counter;

/// One message, as it is about to be sealed.
#[derive(Debug, Clone, Copy)]
pub struct Sealing<'a> {
    /// What the key commits to, in place of the key.
    pub commitment: &'a [u8; 32],
    /// Under which nonce.
    pub counter: Counter,
    /// To what it is bound.
    pub place: &'a [u8],
    /// What is sealed.
    pub text: &'a [u8],
}

/// Is told of every message.
pub type Observer = fn(&Sealing<'_>);

static OBSERVER: OnceLock<Observer> = OnceLock::new();

/// From now on `observer` is told of all that this process seals; the first stays.
pub fn observe(observer: Observer) {
    OBSERVER.get_or_init(|| observer);
}

pub(super) fn tell(sealing: &Sealing<'_>) {
    if let Some(observer) = OBSERVER.get() {
        observer(sealing);
    }
}
