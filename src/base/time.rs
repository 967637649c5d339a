//! Instants of captures, and the times that files carry.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What [`timeout`] takes, for messages.
pub const TIMEOUT: &str = "a number of seconds from 0.01 to 3600";

/// How long somebody is to wait at most, in seconds; none unless it is [`TIMEOUT`].
pub fn timeout(seconds: f64) -> Option<Duration> {
    (0.01..=3600.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// A moment in UTC, in nanoseconds since 1970-01-01; 1677 to 2262. For what amberfs itself does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct Instant(i64);

impl Instant {
    /// From nanoseconds since 1970.
    pub const fn from_nanos(nanos: i64) -> Instant {
        Instant(nanos)
    }

    /// Nanoseconds since 1970.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// From the system's representation; clamped to what fits.
    pub fn from_system(time: SystemTime) -> Instant {
        Instant(match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n),
        })
    }

    /// This moment less `by`, clamped.
    pub fn minus(self, by: Duration) -> Instant {
        Instant(self.0.saturating_sub(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// This moment and `by`, clamped.
    pub fn plus(self, by: Duration) -> Instant {
        Instant(self.0.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// As a file time.
    pub fn file_time(self) -> FileTime {
        FileTime {
            seconds: self.0.div_euclid(1_000_000_000),
            nanos: u32::try_from(self.0.rem_euclid(1_000_000_000)).unwrap_or(0),
        }
    }
}

/// A time stamp of a file: the whole range that filesystems can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, bincode::Encode, bincode::Decode)]
pub struct FileTime {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 1,000,000,000.
    pub nanos: u32,
}
