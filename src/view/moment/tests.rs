use proptest::prelude::*;

use super::*;

fn berlin() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
}

fn utc(text: &str) -> Instant {
    instant(text.parse::<Timestamp>().unwrap())
}

fn at(text: &str) -> Target {
    text.parse::<Moment>().unwrap().target(utc("2026-11-20T20:00:00Z"), &berlin()).unwrap()
}

#[test]
fn expressions_mean_what_they_say() {
    let second = 1_000_000_000;
    let end = |text: &str| Target::At(Instant::from_nanos(utc(text).nanos() - 1));
    for (text, target) in [
        ("latest", Target::Back(0)),
        ("latest~3", Target::Back(3)),
        ("now", Target::At(utc("2026-11-20T20:00:00Z"))),
        ("today", end("2026-11-20T23:00:00Z")),
        ("yesterday", end("2026-11-19T23:00:00Z")),
        ("2026-11-20", end("2026-11-20T23:00:00Z")),
        ("2026-11-20Z", end("2026-11-21T00:00:00Z")),
        ("2026-11-20+02:00", end("2026-11-20T22:00:00Z")),
        // The day on which the clocks go back has 25 hours.
        ("2026-10-25", end("2026-10-25T23:00:00Z")),
        ("2026-11-20T12-00", Target::At(utc("2026-11-20T11:00:00Z"))),
        ("2026-11-20T12:00", Target::At(utc("2026-11-20T11:00:00Z"))),
        ("2026-07-20T12-00", Target::At(utc("2026-07-20T10:00:00Z"))),
        ("2026-11-20T12-00-30.5", Target::At(Instant::from_nanos(utc("2026-11-20T11:00:30Z").nanos() + second / 2))),
        ("2026-11-20T12:00:00-05:00", Target::At(utc("2026-11-20T17:00:00Z"))),
        ("2026-11-20T12:00-0500", Target::At(utc("2026-11-20T17:00:00Z"))),
        ("2026-11-20T12-00-00+02", Target::At(utc("2026-11-20T10:00:00Z"))),
        ("2026-11-20T12-00-00Z", Target::Named("2026-11-20T12-00-00Z".into(), Some(utc("2026-11-20T12:00:00Z")))),
        ("2026-11-20T12:00:00Z", Target::Named("2026-11-20T12-00-00Z".into(), Some(utc("2026-11-20T12:00:00Z")))),
        ("2026-11-20T12-00-00Z+2", Target::Named("2026-11-20T12-00-00Z+2".into(), None)),
        ("3h", Target::At(utc("2026-11-20T17:00:00Z"))),
        ("2D", Target::At(utc("2026-11-18T20:00:00Z"))),
        ("1w", Target::At(utc("2026-11-13T20:00:00Z"))),
        ("1M", Target::At(utc("2026-10-20T19:00:00Z"))),
        ("90m", Target::At(utc("2026-11-20T18:30:00Z"))),
        ("1Y", Target::At(utc("2025-11-20T20:00:00Z"))),
        ("1D12h", Target::At(utc("2026-11-19T08:00:00Z"))),
        ("0s", Target::At(utc("2026-11-20T20:00:00Z"))),
    ] {
        assert_eq!(at(text), target, "{text}");
    }
}

#[test]
fn nonsense_is_refused_with_what_was_expected() {
    for (text, why) in [
        ("", "expected a date"),
        ("yesteryear", "expected a date"),
        ("2026-13-01", "no calendar"),
        ("2026-02-30", "no calendar"),
        ("2026-11-20T25-00", "no clock"),
        ("2026-11-20T12", "a time is written"),
        ("2026-11-20 12:00", "is too much"),
        ("2026-11-20T12-00-00Z+1", "is too much"),
        ("2026-11-20T12-00-00+26", "no place"),
        ("latest~", "a number of points"),
        ("3x", "expected a date"),
        ("3h3h", "twice"),
        ("99999999999999999999h", "expected a date"),
        ("99999Y", "too many"),
        ("nowhere", "is too much"),
        ("../etc", "expected a date"),
    ] {
        let error = text.parse::<Moment>().unwrap_err();
        assert!(error.to_string().contains(why), "{text}: {error}");
        assert_eq!(error.class(), Class::Invalid);
    }
    assert!("9999-01-01".parse::<Moment>().is_ok());
    let far = "60000Y".parse::<Moment>().unwrap().target(Instant::from_nanos(0), &TimeZone::UTC).unwrap_err();
    assert!(far.to_string().contains("outside the years"), "{far}");
}

#[test]
fn a_prefix_is_taken_as_long_as_it_goes() {
    for (text, used) in [
        ("2026-11-20:etc", 10),
        ("2026-11-20T12:00:30:etc", 19),
        ("2026-11-20T12-00:30", 16),
        ("2026-11-20T12:00:etc", 16),
        ("2026-11-20T12-00-00+02:etc", 22),
        ("3h:3h", 2),
        ("latest~3:x", 8),
    ] {
        assert_eq!(Moment::parse_prefix(text).map(|(_, used)| used), Ok(used), "{text}");
    }
}

pub(crate) fn any_moment() -> impl Strategy<Value = Moment> {
    let date = (0i16..=9999, 1i8..=12, 1i8..=28).prop_map(|(y, m, d)| Date::new(y, m, d).unwrap());
    let time = (date.clone(), 0i8..24, 0i8..60, 0i8..60, prop_oneof![Just(0), 0..1_000_000_000i32])
        .prop_map(|(date, h, m, s, n)| DateTime::from_parts(date, Time::new(h, m, s, n).unwrap()));
    let offset = (-23 * 60..=23 * 60i32).prop_map(|m| Zone::Offset(Offset::from_seconds(m * 60).unwrap()));
    let zone = prop_oneof![Just(Zone::Local), Just(Zone::Offset(Offset::UTC)), offset];
    prop_oneof![
        any::<u64>().prop_map(|back| Moment::Latest { back }),
        Just(Moment::Now),
        Just(Moment::Today),
        Just(Moment::Yesterday),
        (date, zone.clone()).prop_map(|(date, zone)| Moment::Day { date, zone }),
        (time, zone, 1u32..9).prop_map(|(time, zone, ordinal)| {
            if zone == Zone::Offset(Offset::UTC) && time.subsec_nanosecond() == 0 {
                Moment::Second { time, ordinal }
            } else {
                Moment::Time { time, zone }
            }
        }),
        any::<(u16, u16, u16, u32, u32, u32, u32)>().prop_map(
            |(years, months, weeks, days, hours, minutes, seconds)| {
                Moment::Ago(Ago { years, months, weeks, days, hours, minutes, seconds })
            }
        ),
    ]
}

proptest! {
    #[test]
    fn the_canonical_spelling_parses_back(moment in any_moment()) {
        let text = moment.to_string();
        prop_assert!(!text.contains([':', '/']), "{text}");
        prop_assert_eq!(text.parse::<Moment>(), Ok(moment));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,30}|[0-9TZ:+~.-]{0,30}") {
        if let Ok(moment) = text.parse::<Moment>() {
            drop(moment.target(Instant::from_nanos(0), &berlin()));
        }
    }
}
