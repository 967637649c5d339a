//! A cache bounded by bytes, in which each missing value is produced once however many ask for it.
//!
//! Invariant: the weights of the kept values never exceed the budget. A value heavier than the whole
//! budget is handed out and not kept. When the producer fails, every waiter tries for itself: a
//! failure is not remembered, since the next read may succeed.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::{Condvar, Mutex};

struct Kept<V> {
    value: V,
    weight: usize,
}

struct State<K: Hash + Eq, V> {
    kept: LruCache<K, Kept<V>>,
    weight: usize,
    /// Values under way, each with the condition on which others wait.
    flights: HashMap<K, Arc<Condvar>>,
}

/// A byte-bounded, single-flight, least-recently-used cache.
pub(super) struct Cache<K: Hash + Eq, V> {
    budget: usize,
    state: Mutex<State<K, V>>,
}

impl<K: Hash + Eq, V> std::fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cache of {} bytes", self.budget)
    }
}

/// Ends a flight even when the producer panics, so that nobody waits for ever.
struct Landing<'a, K: Hash + Eq + Clone, V> {
    cache: &'a Cache<K, V>,
    key: K,
}

impl<K: Hash + Eq + Clone, V> Drop for Landing<'_, K, V> {
    fn drop(&mut self) {
        if let Some(waiters) = self.cache.state.lock().flights.remove(&self.key) {
            waiters.notify_all();
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    pub(super) fn new(budget: usize) -> Cache<K, V> {
        Cache { budget, state: Mutex::new(State { kept: LruCache::unbounded(), weight: 0, flights: HashMap::new() }) }
    }

    /// The value of `key`, produced if it is not kept; `produce` also says how heavy it is.
    pub(super) fn get_or<E>(&self, key: &K, produce: impl FnOnce() -> Result<(V, usize), E>) -> Result<V, E> {
        {
            let mut state = self.state.lock();
            loop {
                if let Some(kept) = state.kept.get(key) {
                    return Ok(kept.value.clone());
                }
                match state.flights.get(key).cloned() {
                    Some(landed) => landed.wait(&mut state),
                    None => {
                        state.flights.insert(key.clone(), Arc::new(Condvar::new()));
                        break;
                    }
                }
            }
        }
        let landing = Landing { cache: self, key: key.clone() };
        let (value, weight) = produce()?;
        self.keep(key.clone(), value.clone(), weight);
        drop(landing);
        Ok(value)
    }

    fn keep(&self, key: K, value: V, weight: usize) {
        if weight > self.budget {
            return;
        }
        let mut state = self.state.lock();
        if let Some(old) = state.kept.put(key, Kept { value, weight }) {
            state.weight -= old.weight;
        }
        state.weight += weight;
        while state.weight > self.budget {
            match state.kept.pop_lru() {
                Some((_, evicted)) => state.weight -= evicted.weight,
                None => break,
            }
        }
    }

    /// Whether it is kept.
    pub(super) fn has(&self, key: &K) -> bool {
        self.state.lock().kept.contains(key)
    }

    /// Bytes kept now.
    pub(super) fn weight(&self) -> usize {
        self.state.lock().weight
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn the_weight_never_exceeds_the_budget() {
        let cache: Cache<u32, u32> = Cache::new(100);
        for key in 0..50 {
            assert_eq!(cache.get_or(&key, || Ok::<_, ()>((key, 30))), Ok(key));
            assert!(cache.weight() <= 100);
        }
        assert_eq!(cache.get_or(&99, || Ok::<_, ()>((99, 101))), Ok(99));
        assert_eq!(cache.weight(), 90);
    }

    #[test]
    fn a_value_is_produced_once_for_all_who_ask_at_the_same_time() {
        let cache: Cache<u32, u32> = Cache::new(100);
        let produced = AtomicUsize::new(0);
        let gate = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    gate.wait();
                    let got = cache.get_or(&1, || {
                        produced.fetch_add(1, Ordering::SeqCst);
                        Ok::<_, ()>((7, 1))
                    });
                    assert_eq!(got, Ok(7));
                });
            }
        });
        assert_eq!(produced.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_failure_is_not_remembered() {
        let cache: Cache<u32, u32> = Cache::new(100);
        assert_eq!(cache.get_or(&1, || Err("no")), Err("no"));
        assert_eq!(cache.get_or(&1, || Ok::<_, &str>((2, 1))), Ok(2));
    }
}
