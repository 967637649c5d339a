//! Does the same to many things, several at a time.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::VerifyError;

/// Most that are worth having: more would only wait for the same disk.
const WORKERS_MAX: usize = 8;

/// How many work at a time.
pub(super) fn count(wanted: Option<usize>) -> usize {
    let machine = || std::thread::available_parallelism().map_or(1, usize::from);
    wanted.unwrap_or_else(machine).clamp(1, WORKERS_MAX)
}

/// What `work` makes of each of `things`, in their order; the first failure ends it.
pub(super) fn each<T: Send, R: Send>(
    workers: usize,
    things: Vec<T>,
    work: impl Fn(T) -> Result<R, VerifyError> + Sync,
) -> Result<Vec<R>, VerifyError> {
    let workers = workers.min(things.len());
    let waiting = Mutex::new(things.into_iter().enumerate());
    let failed = AtomicBool::new(false);
    let run = || {
        let mut done = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let Some((index, thing)) = waiting.lock().next() else { break };
            match work(thing) {
                Ok(result) => done.push((index, result)),
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(done)
    };
    let mut results = std::thread::scope(|scope| {
        let mut helpers = Vec::new();
        for _ in 1..workers {
            let helper = std::thread::Builder::new().name("amberfs-verify".to_owned()).spawn_scoped(scope, run);
            helpers.push(helper.map_err(|source| {
                failed.store(true, Ordering::Relaxed);
                VerifyError::Thread { source }
            })?);
        }
        let mut results = run()?;
        for helper in helpers {
            match helper.join() {
                Ok(done) => results.extend(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, VerifyError>(results)
    })?;
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}
