//! Selectors: how a command names a source, one of its points, and a path in it.
//!
//! ```text
//! SOURCE[@TIME | %LABEL | #ID | ~N][:PATH]
//!
//! home                    the newest point of home
//! home@yesterday:etc      etc as of the end of yesterday (times: `moment`)
//! home%before-upgrade     the newest point with that label; \: and \\ stand for : and \ in a label
//! home#17                 the point with that number, as `amberfs points` shows it
//! home~2:/a:b             a:b in the second point before the newest
//! ```
//!
//! A source's name and a number end by themselves, a time ends where it stops being one, a label at
//! the first bare colon; all behind the colon is the path, byte by byte, whatever it contains. Parsing
//! is pure and asks no repository.

use std::fmt;
use std::str::FromStr;

use super::moment::{Moment, MomentError};
use crate::base::{Class, Classed, limits};
use crate::chain::name::check_label;
use crate::format::PointId;

/// A source, one of its points, and a path in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// The source's name.
    pub source: String,
    /// Which point.
    pub pick: Pick,
    /// What stands behind the colon, in bytes; none without a colon.
    pub path: Option<Vec<u8>>,
}

/// Which point of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// The newest.
    Newest,
    /// The state at a time.
    At(Moment),
    /// The newest with a label.
    Label(String),
    /// The one with a number.
    Id(PointId),
    /// One so many before the newest, in log order.
    Back(u64),
}

/// Text that is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("selector {text:?}: {why}")]
pub struct SelectorError {
    /// What was given.
    pub text: String,
    /// What is wrong, where, and what was expected.
    pub why: String,
}

impl Classed for SelectorError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

impl Selector {
    /// From an argument's bytes.
    ///
    /// # Errors
    /// [`SelectorError`] says what was expected and where.
    pub fn parse(text: &[u8]) -> Result<Selector, SelectorError> {
        let fail = |why: String| SelectorError { text: String::from_utf8_lossy(text).into_owned(), why };
        let length = text.iter().take_while(|byte| is_source_byte(**byte)).count();
        let (name, rest) = text.split_at(length);
        let source = String::from_utf8_lossy(name).into_owned();
        if !name.first().is_some_and(u8::is_ascii_alphanumeric) {
            return Err(fail(
                "it must begin with a source's name, such as home: letters, digits, . _ and -".to_owned(),
            ));
        }
        if length > limits::SOURCE_NAME_BYTES_MAX {
            return Err(fail(format!(
                "a source's name has at most {} characters, this one {length}",
                limits::SOURCE_NAME_BYTES_MAX
            )));
        }
        let (pick, rest) = match rest.split_first() {
            None | Some((b':', _)) => (Pick::Newest, rest),
            Some((b'@', rest)) => time(rest).map_err(fail)?,
            Some((b'%', rest)) => label(rest).map_err(fail)?,
            Some((b'#', rest)) => {
                let (number, rest) = number(rest).ok_or_else(|| fail("a point's number is expected after #".into()))?;
                (Pick::Id(PointId(number)), rest)
            }
            Some((b'~', rest)) => {
                let (back, rest) = number(rest).ok_or_else(|| fail("a number of points is expected after ~".into()))?;
                (Pick::Back(back), rest)
            }
            Some((byte, _)) => {
                return Err(fail(format!(
                    "unexpected {:?} at byte {length}: a source's name is followed by @TIME, %LABEL, #ID, ~N or :PATH",
                    byte.escape_ascii().to_string()
                )));
            }
        };
        let path = match rest.split_first() {
            None => None,
            Some((b':', path)) => Some(path.to_vec()),
            Some(_) => {
                return Err(fail(format!(
                    "unexpected {:?} at byte {}: only :PATH can follow here",
                    String::from_utf8_lossy(rest),
                    text.len() - rest.len()
                )));
            }
        };
        if path.as_ref().is_some_and(|path| path.contains(&0)) {
            return Err(fail("a path has no zero byte".to_owned()));
        }
        Ok(Selector { source, pick, path })
    }

    /// The newest point of a source, whole.
    pub fn newest(source: impl Into<String>) -> Selector {
        Selector { source: source.into(), pick: Pick::Newest, path: None }
    }

    /// As text that parses back to the same value, byte by byte.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{}{}", self.source, self.pick).into_bytes();
        if let Some(path) = &self.path {
            text.push(b':');
            text.extend_from_slice(path);
        }
        text
    }

    /// The names on the way to the path, from the root of the source.
    ///
    /// # Errors
    /// [`SelectorError`] when the path has a `..`: the directories of a point are not the caller's.
    pub fn names(&self) -> Result<Vec<&[u8]>, SelectorError> {
        let path = self.path.as_deref().unwrap_or_default();
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
        if names.contains(&b"..".as_slice()) {
            return Err(SelectorError {
                text: self.to_string(),
                why: "a path in a point has no .. in it: write the path from the source's root".to_owned(),
            });
        }
        Ok(names)
    }
}

/// Whether a source's name may contain `byte`.
fn is_source_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

fn time(rest: &[u8]) -> Result<(Pick, &[u8]), String> {
    // All times are ASCII; what is not may be the path, in any encoding.
    let ascii = rest.iter().take_while(|byte| byte.is_ascii()).count();
    let text = rest.get(..ascii).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
    let word = text.split(':').next().unwrap_or(text);
    let wrong = |error: MomentError| match word {
        "" => format!("a time is expected after @; {}", error.why),
        word => format!("{word:?} is no time: {}", error.why),
    };
    let (moment, used) = Moment::parse_prefix(text).map_err(wrong)?;
    let rest = rest.get(used..).unwrap_or_default();
    match (rest.first(), word.parse::<Moment>()) {
        (None | Some(b':'), _) => Ok((Pick::At(moment), rest)),
        (Some(_), Err(error)) => Err(wrong(error)),
        (Some(_), Ok(_)) => Err(format!("unexpected {:?} after the time", String::from_utf8_lossy(rest))),
    }
}

fn label(rest: &[u8]) -> Result<(Pick, &[u8]), String> {
    let mut label = Vec::new();
    let mut bytes = rest.iter().copied().enumerate();
    let mut end = rest.len();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b':' => {
                end = at;
                break;
            }
            b'\\' => match bytes.next() {
                Some((_, next @ (b':' | b'\\'))) => label.push(next),
                _ => return Err(r"in a label, \ is followed by : or \".to_owned()),
            },
            byte => label.push(byte),
        }
    }
    let label = String::from_utf8(label).map_err(|_| "a label is UTF-8".to_owned())?;
    if label.is_empty() {
        return Err("a label is expected after %".to_owned());
    }
    check_label(&label).map_err(|error| error.to_string())?;
    Ok((Pick::Label(label), rest.get(end..).unwrap_or_default()))
}

fn number(rest: &[u8]) -> Option<(u64, &[u8])> {
    let (digits, rest) = rest.split_at(rest.iter().take_while(|byte| byte.is_ascii_digit()).count());
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Selector, SelectorError> {
        Selector::parse(text.as_bytes())
    }
}

impl fmt::Display for Selector {
    /// Lossy only where the path is not UTF-8; [`Selector::to_bytes`] never is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_bytes()))
    }
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pick::Newest => Ok(()),
            Pick::At(moment) => write!(f, "@{moment}"),
            Pick::Label(label) => write!(f, "%{}", label.replace('\\', r"\\").replace(':', r"\:")),
            Pick::Id(id) => write!(f, "#{id}"),
            Pick::Back(back) => write!(f, "~{back}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::moment::tests::any_moment;
    use super::*;

    #[test]
    fn selectors_take_apart() {
        let moment = |text: &str| Pick::At(text.parse().unwrap());
        for (text, source, pick, path) in [
            ("home", "home", Pick::Newest, None),
            ("home:", "home", Pick::Newest, Some("")),
            ("home:a:b@c", "home", Pick::Newest, Some("a:b@c")),
            ("my-home.2:/etc", "my-home.2", Pick::Newest, Some("/etc")),
            ("home@3h:etc", "home", moment("3h"), Some("etc")),
            ("home@2026-11-20T12:00:00Z:etc", "home", moment("2026-11-20T12-00-00Z"), Some("etc")),
            ("home@2026-11-20T12-00:30", "home", moment("2026-11-20T12-00"), Some("30")),
            ("home@latest~2", "home", moment("latest~2"), None),
            ("home%nightly:x", "home", Pick::Label("nightly".into()), Some("x")),
            (r"home%a\:b\\c d:x", "home", Pick::Label(r"a:b\c d".into()), Some("x")),
            ("home#17", "home", Pick::Id(PointId(17)), None),
            ("home~2:x", "home", Pick::Back(2), Some("x")),
            ("home@now:\u{e9}", "home", moment("now"), Some("\u{e9}")),
        ] {
            let selector: Selector = text.parse().unwrap();
            let path = path.map(|path| path.as_bytes().to_vec());
            assert_eq!(selector, Selector { source: source.to_owned(), pick, path }, "{text}");
        }
        let bytes = Selector::parse(b"home:\xff\xfe").unwrap();
        assert_eq!(bytes.path.as_deref(), Some(b"\xff\xfe".as_slice()));
    }

    #[test]
    fn nonsense_is_refused_with_what_was_expected() {
        for (text, why) in [
            ("", "must begin with a source's name"),
            ("@3h", "must begin with a source's name"),
            (".home", "must begin with a source's name"),
            ("/home/me", "must begin with a source's name"),
            ("ho me", "unexpected \" \" at byte 2"),
            ("home@", "a time is expected after @; expected a date"),
            ("home@nowhere", "\"nowhere\" is no time"),
            ("home@3hours:x", "\"3hours\" is no time"),
            ("home%", "a label is expected"),
            (r"home%a\b", r"\ is followed by"),
            ("home%-a", "cannot be a label"),
            ("home%a/b", "cannot be a label"),
            ("home#x", "a point's number"),
            ("home#17x", "only :PATH can follow"),
            ("home~", "a number of points"),
            ("home:\0", "no zero byte"),
        ] {
            let error = text.parse::<Selector>().unwrap_err();
            assert!(error.to_string().contains(why), "{text}: {error}");
        }
        let long = "a".repeat(65);
        assert!(long.parse::<Selector>().unwrap_err().to_string().contains("at most 64"));
    }

    #[test]
    fn a_path_becomes_names() {
        let names = |text: &str| -> Result<Vec<String>, SelectorError> {
            let selector: Selector = text.parse()?;
            Ok(selector.names()?.into_iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect())
        };
        assert_eq!(names("home").unwrap(), Vec::<String>::new());
        assert_eq!(names("home:/etc//./passwd/").unwrap(), ["etc", "passwd"]);
        assert!(names("home:a/../b").unwrap_err().to_string().contains("no .. in it"));
    }

    fn any_pick() -> impl Strategy<Value = Pick> {
        prop_oneof![
            Just(Pick::Newest),
            any_moment().prop_map(Pick::At),
            r"[a-z:\\@%#~ é][a-z.:\\@%#~ é-]{0,20}".prop_map(Pick::Label),
            any::<u64>().prop_map(|id| Pick::Id(PointId(id))),
            any::<u64>().prop_map(Pick::Back),
        ]
    }

    proptest! {
        #[test]
        fn the_canonical_spelling_parses_back(
            source in "[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
            pick in any_pick(),
            path in proptest::option::of(proptest::collection::vec(1u8.., 0..40)),
        ) {
            let selector = Selector { source, pick, path };
            prop_assert_eq!(Selector::parse(&selector.to_bytes()), Ok(selector));
        }

        #[test]
        fn no_bytes_panic(text in proptest::collection::vec(any::<u8>(), 0..40), tail in "[@%#~:0-9a-z]{0,20}") {
            drop(Selector::parse(&text));
            drop(Selector::parse(format!("home{tail}").as_bytes()));
        }
    }
}
