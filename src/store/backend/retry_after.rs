//! What `Retry-After` says: seconds or a date, by RFC 9110, section 10.2.3. Of the forms of a date only that which servers
//! must write (`Sun, 06 Nov 1994 08:49:37 GMT`) is understood; anything else counts as if nothing was said.

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use object_store::HeaderMap;

use crate::base::Instant;

/// How long the server that sent `headers` wants to be left alone.
pub(super) fn wait(headers: &HeaderMap, now: Instant) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let asked = text("retry-after").filter(|asked| !asked.is_empty())?;
    if asked.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(asked.parse().unwrap_or(u64::MAX)));
    }
    // How far away its date is, the server's clock tells best.
    let from = text("date").and_then(seconds).unwrap_or(now.nanos() / 1_000_000_000);
    u64::try_from(seconds(asked)?.saturating_sub(from)).ok().map(Duration::from_secs)
}

/// A date in seconds since 1970.
fn seconds(date: &str) -> Option<i64> {
    DateTimeParser::new().parse_timestamp(date).ok().map(|at| at.as_second())
}

#[cfg(test)]
mod tests {
    use object_store::HeaderValue;

    use super::*;

    fn asked(retry_after: &'static str, date: Option<&'static str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", HeaderValue::from_static(retry_after));
        if let Some(date) = date {
            headers.insert("date", HeaderValue::from_static(date));
        }
        // 1994-11-06 08:49:37 UTC.
        wait(&headers, Instant::from_nanos(784_111_777_000_000_000)).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_and_dates_are_understood_and_nothing_else() {
        for (retry_after, date, expected) in [
            ("0", None, Some(0)),
            (" 120 ", None, Some(120)),
            ("99999999999999999999999", None, Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", None, Some(30)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", None, None),
            // Its clock is a year ahead of ours.
            ("Mon, 06 Nov 1995 08:49:39 GMT", Some("Mon, 06 Nov 1995 08:49:37 GMT"), Some(2)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some("yesterday"), Some(30)),
            ("", None, None),
            ("-1", None, None),
            ("1.5", None, None),
            ("soon", None, None),
            ("Sunday, 06-Nov-94 08:50:07 GMT", None, None),
        ] {
            assert_eq!(asked(retry_after, date), expected, "{retry_after:?} {date:?}");
        }
        assert_eq!(wait(&HeaderMap::new(), Instant::from_nanos(0)), None);
    }
}
