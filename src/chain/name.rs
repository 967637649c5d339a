//! The names that people give and see: of points, sources and labels.
//!
//! A point's name is the instant at which its capture began, in UTC and without colons, so that names
//! sort by time and are file names everywhere: `2026-11-20T12-00-00Z`, and `…Z+2`, `…Z+3` when the
//! second is taken. Nothing decides by it; the order of points is the order of the log.

use std::num::NonZeroU32;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::base::{Class, Classed, Instant, limits};

const POINT_FORMAT: &str = "%Y-%m-%dT%H-%M-%SZ";
/// The same, with `0` where there may be any digit.
const PATTERN: &[u8; 20] = b"0000-00-00T00-00-00Z";

/// A name that the rules refuse.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NameError {
    /// Not a source's name.
    #[error(
        "{name:?} cannot name a source: use 1 to {} letters, digits, `.`, `_` and `-`, a letter or digit first",
        limits::SOURCE_NAME_BYTES_MAX
    )]
    Source {
        /// As given.
        name: String,
    },
    /// Not a label.
    #[error(
        "{label:?} cannot be a label: use 1 to {} bytes without `/` and control characters, `.` and `-` not first",
        limits::LABEL_BYTES_MAX
    )]
    Label {
        /// As given.
        label: String,
    },
    /// Not a point's name.
    #[error("{name:?} is not the name of a point: those read 2026-11-20T12-00-00Z, or 2026-11-20T12-00-00Z+2")]
    Point {
        /// As given.
        name: String,
    },
}

impl Classed for NameError {
    fn class(&self) -> Class {
        match self {
            NameError::Source { .. } | NameError::Label { .. } | NameError::Point { .. } => Class::Invalid,
        }
    }
}

/// The name of a point whose capture began at `started`.
pub fn of_instant(started: Instant) -> String {
    let timestamp = Timestamp::from_nanosecond(i128::from(started.nanos())).unwrap_or(Timestamp::UNIX_EPOCH);
    timestamp.strftime(POINT_FORMAT).to_string()
}

/// The second that a point's name says, and which of the points with that second it is (1, 2, …).
///
/// # Errors
/// [`NameError::Point`] for anything that amberfs would not have written.
pub fn parse_point(name: &str) -> Result<(Instant, NonZeroU32), NameError> {
    parse(name).ok_or_else(|| NameError::Point { name: name.to_owned() })
}

fn parse(name: &str) -> Option<(Instant, NonZeroU32)> {
    let Some((second, rank)) = name.split_once('+') else { return Some((parse_second(name)?, NonZeroU32::MIN)) };
    let parsed: NonZeroU32 = rank.parse().ok()?;
    (parsed.get() > 1 && parsed.to_string() == rank).then_some((parse_second(second)?, parsed))
}

/// What [`of_instant`] writes, read digit by digit: a long log has many.
fn parse_second(text: &str) -> Option<Instant> {
    let text: &[u8; PATTERN.len()] = text.as_bytes().try_into().ok()?;
    let fits = |(byte, pattern): (&u8, &u8)| if *pattern == b'0' { byte.is_ascii_digit() } else { byte == pattern };
    if !text.iter().zip(PATTERN).all(fits) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |number, digit| number * 10 + i16::from(digit - b'0'));
    let two = |[a, b]: [u8; 2]| i8::try_from(number(&[a, b])).ok();
    let [y1, y2, y3, y4, _, m1, m2, _, d1, d2, _, h1, h2, _, n1, n2, _, s1, s2, _] = *text;
    let (year, month, day) = (number(&[y1, y2, y3, y4]), two([m1, m2])?, two([d1, d2])?);
    let datetime = DateTime::new(year, month, day, two([h1, h2])?, two([n1, n2])?, two([s1, s2])?, 0).ok()?;
    let timestamp = Offset::UTC.to_timestamp(datetime).ok()?;
    Some(Instant::from_nanos(i64::try_from(timestamp.as_nanosecond()).ok()?))
}

/// The name of the `rank`th point of the second that `second` names.
fn ranked(second: &str, rank: NonZeroU32) -> String {
    if rank.get() == 1 { second.to_owned() } else { format!("{second}+{rank}") }
}

/// The first of `name`, `name+2`, `name+3`, … that is not `taken`.
///
/// # Errors
/// [`NameError::Point`] when `name` is not a point's name.
pub fn first_free(name: &str, taken: impl Fn(&str) -> bool) -> Result<String, NameError> {
    let (second, first) = parse_point(name)?;
    let second = of_instant(second);
    (first.get()..=u32::MAX)
        .filter_map(NonZeroU32::new)
        .map(|rank| ranked(&second, rank))
        .find(|candidate| !taken(candidate))
        .ok_or_else(|| NameError::Point { name: name.to_owned() })
}

/// Whether `name` may name a source.
///
/// # Errors
/// [`NameError::Source`] with the rule.
pub fn check_source(name: &str) -> Result<(), NameError> {
    let fits = name.len() <= limits::SOURCE_NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if fits { Ok(()) } else { Err(NameError::Source { name: name.to_owned() }) }
}

/// Whether `label` may be a label.
///
/// # Errors
/// [`NameError::Label`] with the rule.
pub fn check_label(label: &str) -> Result<(), NameError> {
    let fits = (1..=limits::LABEL_BYTES_MAX).contains(&label.len())
        && !label.starts_with(['.', '-'])
        && !label.chars().any(|c| c == '/' || c.is_control());
    if fits { Ok(()) } else { Err(NameError::Label { label: label.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    #[test]
    fn a_point_is_named_by_its_second_in_utc() {
        let started = Instant::from_nanos(1_795_176_000_123_456_789);
        assert_eq!(of_instant(started), "2026-11-20T12-00-00Z");
        let second = Instant::from_nanos(1_795_176_000_000_000_000);
        assert_eq!(parse_point("2026-11-20T12-00-00Z"), Ok((second, rank(1))));
        assert_eq!(parse_point("2026-11-20T12-00-00Z+17"), Ok((second, rank(17))));
    }

    #[test]
    fn every_representable_instant_has_a_name_that_parses_back() {
        for nanos in [i64::MIN, -1, 0, 1, 999_999_999, i64::MAX] {
            let name = of_instant(Instant::from_nanos(nanos));
            if nanos == i64::MIN {
                // The first second of the range begins before it: such a name cannot be compared, so it is refused.
                assert!(parse_point(&name).is_err());
                continue;
            }
            let (second, _) = parse_point(&name).unwrap();
            assert_eq!(second.nanos(), nanos.div_euclid(1_000_000_000) * 1_000_000_000, "{name}");
        }
    }

    #[test]
    fn only_what_amberfs_writes_is_a_points_name() {
        for name in [
            "",
            ".",
            "..",
            "2026-11-20T12:00:00Z",
            "2026-11-20T12-00-00",
            "2026-11-20T12-00-00Z+1",
            "2026-11-20T12-00-00Z+02",
            "2026-11-20T12-00-00Z+",
            "2026-11-20T12-00-00Z+2+2",
            "2026-11-20T12-00-00Z+-2",
            "2026-02-30T12-00-00Z",
            "2026-11-20T12-00-60Z",
            "2026-11-20T12-00-00Z/../x",
            " 2026-11-20T12-00-00Z",
        ] {
            assert!(parse_point(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_first_free_name_counts_from_the_wish() {
        let taken = ["2026-11-20T12-00-00Z", "2026-11-20T12-00-00Z+2"];
        let free = |wish: &str| first_free(wish, |name| taken.contains(&name));
        assert_eq!(free("2026-11-20T12-00-00Z").unwrap(), "2026-11-20T12-00-00Z+3");
        assert_eq!(free("2026-11-20T12-00-00Z+7").unwrap(), "2026-11-20T12-00-00Z+7");
        assert_eq!(free("2026-11-20T12-00-01Z").unwrap(), "2026-11-20T12-00-01Z");
        assert!(free("now").is_err());
    }

    #[test]
    fn source_names_and_labels_follow_their_rules() {
        for good in ["a", "home", "Home-2.d_x", "9", &"x".repeat(64)] {
            assert_eq!(check_source(good), Ok(()), "{good}");
        }
        for bad in ["", ".amberfs", "-x", "_x", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(check_source(bad).is_err(), "{bad}");
        }
        for good in ["a", "nightly run", "vor Umzug ü", "a.b-c", &"x".repeat(128)] {
            assert_eq!(check_label(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", ".x", "-x", "a/b", "a\nb", "a\u{7f}", "a\0", &"x".repeat(129)] {
            assert!(check_label(bad).is_err(), "{bad:?}");
        }
    }
}
