//! Time expressions: what stands behind `@` in a selector, and as a name in `at/`.
//!
//! ```text
//! latest, latest~3                      the newest point, the third before it, by log order
//! now, today, yesterday                 this instant; the end of today, of yesterday
//! 2026-11-20                            the end of that day
//! 2026-11-20T12-00, 2026-11-20T12-00-30 that instant; colons do as well as dashes, fractions are allowed
//! 2026-11-20T12-00-00Z, …Z+2            the point of that name; without +N, else that instant
//! 3h, 2D, 1w, 1D12h                     so long ago: Y M W D h m s; M is a month, m a minute
//! ```
//!
//! A date or time may end in `Z` or an offset (`+02:00`, `+0200`, `+02`); without one it is meant in
//! the caller's time zone. Days, weeks, months and years are counted on that calendar, so that `1D`
//! across a change of clocks is the same hour of the day before.
//!
//! Pure: the present and the zone are given. A [`Moment`] is only the expression; what it stands for
//! follows from [`Moment::target`], and which point that is from the source's log.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp, ToSpan};

use crate::base::{Class, Classed, Instant};

/// A time expression. Its `Display` is the canonical spelling, without colons, and parses back to the same value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moment {
    /// The newest point, or one that many before it.
    Latest {
        /// Points to step back, in log order.
        back: u64,
    },
    /// The present.
    Now,
    /// The end of the present day.
    Today,
    /// The end of the day before.
    Yesterday,
    /// A second in UTC, which may be the name of a point.
    Second {
        /// The second.
        time: DateTime,
        /// The N of a name's `+N`, at least 2; 1 for none.
        ordinal: u32,
    },
    /// The end of a day.
    Day {
        /// The day.
        date: Date,
        /// Where it is that day.
        zone: Zone,
    },
    /// An instant.
    Time {
        /// What the clock shows.
        time: DateTime,
        /// Where it shows it.
        zone: Zone,
    },
    /// So long before the present.
    Ago(Ago),
}

/// Where a date or time is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// In the caller's time zone.
    Local,
    /// At this offset from UTC.
    Offset(Offset),
}

/// A stretch of time in calendar and clock units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ago {
    /// `Y`.
    pub years: u16,
    /// `M`.
    pub months: u16,
    /// `W` or `w`.
    pub weeks: u16,
    /// `D` or `d`.
    pub days: u32,
    /// `h` or `H`.
    pub hours: u32,
    /// `m`.
    pub minutes: u32,
    /// `s` or `S`.
    pub seconds: u32,
}

/// What an expression stands for, to be looked up in a source's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// So many points before the newest, in log order.
    Back(u64),
    /// The newest point that was captured at or before this.
    At(Instant),
    /// The point of this name; when there is none, the newest at or before the instant, if one is given.
    Named(String, Option<Instant>),
}

/// Text that is no time expression, or one that no calendar holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no time: {why}")]
pub struct MomentError {
    /// What was given.
    pub text: String,
    /// What is wrong and what was expected.
    pub why: String,
}

impl Classed for MomentError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

const EXPECTED: &str = "expected a date (2026-11-20), a time (2026-11-20T12-00, with Z for UTC), \
     an age (3h, 2D, 1w), yesterday, today, now, latest or latest~3";

impl Moment {
    /// The longest start of `text` that is a time expression, and its length in bytes.
    ///
    /// # Errors
    /// [`MomentError`] when no start of it is one.
    pub fn parse_prefix(text: &str) -> Result<(Moment, usize), MomentError> {
        let mut cursor = Cursor { text: text.as_bytes(), at: 0 };
        match cursor.moment() {
            Ok(moment) => Ok((moment, cursor.at)),
            Err(why) => Err(MomentError { text: text.to_owned(), why }),
        }
    }

    /// What it stands for, given the present and the caller's time zone.
    ///
    /// # Errors
    /// [`MomentError`] when the instant is outside the years 1677 to 2262.
    pub fn target(&self, now: Instant, local: &TimeZone) -> Result<Target, MomentError> {
        let outside = |_| MomentError {
            text: self.to_string(),
            why: "it is outside the years 1677 to 2262 that amberfs counts".to_owned(),
        };
        let timestamp = match self {
            Moment::Latest { back } => return Ok(Target::Back(*back)),
            Moment::Now => return Ok(Target::At(now)),
            Moment::Today => end_of_day(here(now, local).date(), local).map_err(outside)?,
            Moment::Yesterday => {
                here(now, local).date().yesterday().and_then(|day| end_of_day(day, local)).map_err(outside)?
            }
            Moment::Second { time, ordinal } => {
                let name = self.to_string();
                if *ordinal > 1 {
                    return Ok(Target::Named(name, None));
                }
                let at = time.to_zoned(TimeZone::UTC).map_err(outside)?.timestamp();
                return Ok(Target::Named(name, Some(instant(at))));
            }
            Moment::Day { date, zone } => end_of_day(*date, &zone.or(local)).map_err(outside)?,
            Moment::Time { time, zone } => time.to_zoned(zone.or(local)).map_err(outside)?.timestamp(),
            Moment::Ago(ago) => {
                ago.span().and_then(|span| here(now, local).checked_sub(span)).map_err(outside)?.timestamp()
            }
        };
        Ok(Target::At(instant(timestamp)))
    }
}

impl Zone {
    fn or(self, local: &TimeZone) -> TimeZone {
        match self {
            Zone::Local => local.clone(),
            Zone::Offset(offset) => TimeZone::fixed(offset),
        }
    }
}

impl Ago {
    fn span(&self) -> Result<Span, jiff::Error> {
        Span::new()
            .try_years(self.years)?
            .try_months(self.months)?
            .try_weeks(self.weeks)?
            .try_days(self.days)?
            .try_hours(self.hours)?
            .try_minutes(self.minutes)?
            .try_seconds(self.seconds)
    }

    fn parts(&self) -> [(u32, char); 7] {
        [
            (u32::from(self.years), 'Y'),
            (u32::from(self.months), 'M'),
            (u32::from(self.weeks), 'W'),
            (self.days, 'D'),
            (self.hours, 'h'),
            (self.minutes, 'm'),
            (self.seconds, 's'),
        ]
    }
}

/// The present where the caller is.
fn here(now: Instant, zone: &TimeZone) -> jiff::Zoned {
    Timestamp::from_nanosecond(i128::from(now.nanos())).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone())
}

fn instant(timestamp: Timestamp) -> Instant {
    let nanos = timestamp.as_nanosecond();
    Instant::from_nanos(i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX }))
}

/// The last nanosecond of a day, whatever length the clocks give it.
fn end_of_day(date: Date, zone: &TimeZone) -> Result<Timestamp, jiff::Error> {
    date.tomorrow()?.to_zoned(zone.clone())?.timestamp().checked_sub(1.nanosecond())
}

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Moment, MomentError> {
        let (moment, used) = Moment::parse_prefix(text)?;
        if used == text.len() {
            return Ok(moment);
        }
        let rest = text.get(used..).unwrap_or_default();
        Err(MomentError { text: text.to_owned(), why: format!("{rest:?} is too much; {EXPECTED}") })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Latest { back: 0 } => f.write_str("latest"),
            Moment::Latest { back } => write!(f, "latest~{back}"),
            Moment::Now => f.write_str("now"),
            Moment::Today => f.write_str("today"),
            Moment::Yesterday => f.write_str("yesterday"),
            Moment::Second { time, ordinal } => {
                write_time(f, time)?;
                if *ordinal > 1 { write!(f, "Z+{ordinal}") } else { f.write_str("Z") }
            }
            Moment::Day { date, zone } => write!(f, "{date}{zone}"),
            Moment::Time { time, zone } => {
                write_time(f, time)?;
                write!(f, "{zone}")
            }
            Moment::Ago(ago) => {
                for (count, unit) in ago.parts().into_iter().filter(|(count, _)| *count > 0) {
                    write!(f, "{count}{unit}")?;
                }
                if *ago == Ago::default() { f.write_str("0s") } else { Ok(()) }
            }
        }
    }
}

/// Date and time without colons, which would make `rsync` take a path for a host.
fn write_time(f: &mut fmt::Formatter<'_>, time: &DateTime) -> fmt::Result {
    write!(f, "{}T{:02}-{:02}-{:02}", time.date(), time.hour(), time.minute(), time.second())?;
    match time.subsec_nanosecond() {
        0 => Ok(()),
        nanos => write!(f, ".{}", format!("{nanos:09}").trim_end_matches('0')),
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Zone::Local => Ok(()),
            Zone::Offset(offset) if offset.is_zero() => f.write_str("Z"),
            Zone::Offset(offset) => {
                let minutes = offset.seconds().abs() / 60;
                let sign = if offset.is_negative() { '-' } else { '+' };
                write!(f, "{sign}{:02}{:02}", minutes / 60, minutes % 60)
            }
        }
    }
}

/// A place in the text. Methods that return `Option` leave it where it was when they return none.
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn moment(&mut self) -> Result<Moment, String> {
        if self.word("latest") {
            let back = match self.word("~") {
                true => self.number().ok_or("a number of points is expected after ~")?,
                false => 0,
            };
            return Ok(Moment::Latest { back });
        }
        for (word, moment) in [("now", Moment::Now), ("today", Moment::Today), ("yesterday", Moment::Yesterday)] {
            if self.word(word) {
                return Ok(moment);
            }
        }
        if self.digits(4).is_some() && self.word("-") {
            self.at = 0;
            return self.date();
        }
        self.at = 0;
        self.ago()
    }

    fn date(&mut self) -> Result<Moment, String> {
        const FORM: &str = "a date is written 2026-11-20";
        let year = self.digits(4).ok_or(FORM)?;
        let month = self.word("-").then(|| self.digits(2)).flatten().ok_or(FORM)?;
        let day = self.word("-").then(|| self.digits(2)).flatten().ok_or(FORM)?;
        let date = Date::new(narrow(year), narrow(month), narrow(day))
            .map_err(|_| format!("no calendar has the day {year:04}-{month:02}-{day:02}"))?;
        if !self.word("T") {
            return Ok(Moment::Day { date, zone: self.zone()? });
        }
        let time = DateTime::from_parts(date, self.time()?);
        let zone = self.zone()?;
        if zone == Zone::Offset(Offset::UTC)
            && time.subsec_nanosecond() == 0
            && self.text.get(self.at - 1) == Some(&b'Z')
        {
            let mark = self.at;
            let ordinal = match self.word("+") {
                true => self.number().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 1),
                false => None,
            };
            if ordinal.is_none() {
                self.at = mark;
            }
            return Ok(Moment::Second { time, ordinal: ordinal.unwrap_or(1) });
        }
        Ok(Moment::Time { time, zone })
    }

    fn time(&mut self) -> Result<Time, String> {
        const FORM: &str = "a time is written 12-00 or 12-00-00, with dashes or with colons";
        let hour = self.digits(2).ok_or(FORM)?;
        let separator = if self.word("-") {
            "-"
        } else if self.word(":") {
            ":"
        } else {
            return Err(FORM.to_owned());
        };
        let minute = self.digits(2).ok_or(FORM)?;
        let mark = self.at;
        let mut second = 0;
        let mut nanos = 0;
        // Four digits are an offset: `12:00-0500`.
        match self.word(separator).then(|| self.digits(2)).flatten() {
            Some(found) if !self.text.get(self.at).is_some_and(u8::is_ascii_digit) => {
                second = found;
                nanos = self.fraction();
            }
            _ => self.at = mark,
        }
        Time::new(narrow(hour), narrow(minute), narrow(second), nanos)
            .map_err(|_| format!("no clock shows {hour:02}{separator}{minute:02}{separator}{second:02}"))
    }

    /// `.5` in nanoseconds; 0 when there is none.
    fn fraction(&mut self) -> i32 {
        let mark = self.at;
        if !self.word(".") {
            return 0;
        }
        let (mut nanos, mut digits) = (0, 0);
        while digits < 9 {
            let Some(digit) = self.digits(1) else { break };
            nanos = nanos * 10 + digit;
            digits += 1;
        }
        if digits == 0 {
            self.at = mark;
            return 0;
        }
        i32::try_from(nanos).unwrap_or(0) * 10i32.pow(9 - digits)
    }

    fn zone(&mut self) -> Result<Zone, String> {
        if self.word("Z") {
            return Ok(Zone::Offset(Offset::UTC));
        }
        let sign = match self.text.get(self.at) {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Ok(Zone::Local),
        };
        self.at += 1;
        let hours = self.digits(2).ok_or("an offset is written +02 or +02:00")?;
        let mark = self.at;
        let separated = self.word(":") || self.word("-");
        let minutes = match self.digits(2) {
            Some(minutes) => minutes,
            None => {
                if separated {
                    self.at = mark;
                }
                0
            }
        };
        if hours > 23 || minutes > 59 {
            return Err(format!("no place is {hours:02}:{minutes:02} from UTC"));
        }
        let seconds = sign * i32::try_from(hours * 3600 + minutes * 60).unwrap_or(0);
        Ok(Zone::Offset(Offset::from_seconds(seconds).map_err(|error| error.to_string())?))
    }

    fn ago(&mut self) -> Result<Moment, String> {
        let mut ago = Ago::default();
        let mut any = false;
        while let Some(count) = self.number() {
            let unit = self.text.get(self.at).copied();
            let fits = match unit {
                Some(b'Y' | b'y') => set(&mut ago.years, count),
                Some(b'M') => set(&mut ago.months, count),
                Some(b'W' | b'w') => set(&mut ago.weeks, count),
                Some(b'D' | b'd') => set(&mut ago.days, count),
                Some(b'H' | b'h') => set(&mut ago.hours, count),
                Some(b'm') => set(&mut ago.minutes, count),
                Some(b'S' | b's') => set(&mut ago.seconds, count),
                _ => return Err(EXPECTED.to_owned()),
            };
            if !fits {
                return Err(format!("{count} is too many, or its unit is given twice"));
            }
            self.at += 1;
            any = true;
        }
        if any { Ok(Moment::Ago(ago)) } else { Err(EXPECTED.to_owned()) }
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes()));
        if found {
            self.at += word.len();
        }
        found
    }

    /// Exactly that many digits.
    fn digits(&mut self, count: usize) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + count)?;
        let number = digits
            .iter()
            .try_fold(0u32, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0')))?;
        self.at += count;
        Some(number)
    }

    /// All digits that follow; none when there is none or they exceed 64 bits.
    fn number(&mut self) -> Option<u64> {
        let rest = self.text.get(self.at..)?;
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = std::str::from_utf8(rest.get(..count)?).ok()?.parse().ok()?;
        self.at += count;
        Some(number)
    }
}

/// Numbers of at most four digits, into what the calendar takes; a larger one is refused there.
fn narrow<T: TryFrom<u32> + From<i8>>(number: u32) -> T {
    T::try_from(number).unwrap_or_else(|_| T::from(-1))
}

/// Sets a unit that has not been set; false when it has, or the count does not fit.
fn set<T: TryFrom<u64> + Default + PartialEq>(unit: &mut T, count: u64) -> bool {
    match T::try_from(count) {
        Ok(count) if *unit == T::default() => {
            *unit = count;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
pub(crate) mod tests;
