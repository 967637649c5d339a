//! Generated files: bytes with a number that grows whenever they change, as the kernel's cache needs.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::Value;

use super::control::Content;
use crate::base::{Instant, limits};

/// One generated file. Invariant: the same version means the same bytes.
#[derive(Debug, Clone)]
pub(super) struct Page {
    content: Content,
}

impl Page {
    pub(super) fn new(now: Instant) -> Page {
        Page { content: Content { version: 1, bytes: Bytes::new(), gone: 0, changed: now } }
    }

    /// The content once it has become `bytes`.
    pub(super) fn become_bytes(&mut self, bytes: Vec<u8>, changed: Instant) -> Content {
        if self.content.bytes != bytes {
            self.content = Content { version: self.content.version + 1, bytes: bytes.into(), gone: 0, changed };
        }
        self.content.clone()
    }
}

/// A text that grows by lines. At its bound the older half goes; every byte keeps its place all the same, counted from
/// the first that ever was, so that whoever follows the text neither loses a line nor reads one twice.
#[derive(Debug)]
struct Tail {
    bytes: Vec<u8>,
    /// Bytes that went before them.
    gone: u64,
    lines_gone: u64,
    bound: usize,
}

impl Tail {
    fn new(bound: usize) -> Tail {
        Tail { bytes: Vec::new(), gone: 0, lines_gone: 0, bound }
    }

    /// Adds a line with its end; whether others went for it.
    fn add(&mut self, line: &[u8]) -> bool {
        self.bytes.extend_from_slice(line);
        if self.bytes.len() <= self.bound {
            return false;
        }
        let half = self.bytes.len() / 2;
        let end = self.bytes.iter().skip(half).position(|byte| *byte == b'\n');
        let end = end.map_or(self.bytes.len(), |at| half + at + 1);
        let dropped = self.bytes.drain(..end);
        self.lines_gone += dropped.filter(|byte| *byte == b'\n').count() as u64;
        self.gone += end as u64;
        true
    }
}

/// A file of JSON lines that grows; at its bound the older half goes.
#[derive(Debug)]
pub(super) struct Lines {
    tail: Tail,
    changed: Instant,
    page: Page,
}

impl Lines {
    pub(super) fn new(now: Instant) -> Lines {
        Lines { tail: Tail::new(limits::EVENTS_BYTES_MAX), changed: now, page: Page::new(now) }
    }

    /// Adds a line of `members`, with the time as its first; whether older ones went for it.
    pub(super) fn add(&mut self, now: Instant, members: Value) -> bool {
        let mut line = serde_json::Map::new();
        line.insert("time".into(), timestamp(now).into());
        if let Value::Object(members) = members {
            line.extend(members);
        }
        self.changed = now;
        self.tail.add(format!("{}\n", Value::Object(line)).as_bytes())
    }

    /// Lines that are no longer there.
    pub(super) fn lines_gone(&self) -> u64 {
        self.tail.lines_gone
    }

    pub(super) fn content(&mut self) -> Content {
        let content = self.page.become_bytes(self.tail.bytes.clone(), self.changed);
        Content { gone: self.tail.gone, ..content }
    }
}

/// `errors`: what readers of the mount met instead of data. A fault that repeats (a program that reads
/// one bad file in a loop) is told of again when it has occurred 10, 100, 1,000… times.
#[derive(Debug)]
pub(super) struct Faults {
    lines: Lines,
    /// How often each was met lately; forgotten when there are too many.
    times: HashMap<(u64, String), u64>,
    total: u64,
}

/// Longest message of a fault that is kept, in bytes.
const FAULT_BYTES_MAX: usize = 8 << 10;

impl Faults {
    pub(super) fn new(now: Instant) -> Faults {
        Faults { lines: Lines::new(now), times: HashMap::new(), total: 0 }
    }

    /// How often readers met a fault.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Adds one.
    pub(super) fn add(&mut self, now: Instant, node: u64, message: &str) {
        self.total += 1;
        let message = cut(message, FAULT_BYTES_MAX);
        let key = (node, message.to_owned());
        if self.times.len() >= limits::FAULTS_MAX && !self.times.contains_key(&key) {
            self.times.clear();
        }
        let times = self.times.entry(key).or_default();
        *times += 1;
        if *times == 10u64.pow(times.ilog10()) {
            let told = serde_json::json!({ "node": node, "message": message, "times": *times });
            if self.lines.add(now, told) {
                // What was told of may be gone with those lines: it is told of again.
                self.times.clear();
            }
        }
    }

    pub(super) fn content(&mut self) -> Content {
        self.lines.content()
    }

    /// Lines that are no longer there.
    pub(super) fn lines_gone(&self) -> u64 {
        self.lines.lines_gone()
    }
}

/// What a job said: its newest lines.
#[derive(Debug)]
pub(super) struct Log {
    tail: Tail,
}

impl Default for Log {
    fn default() -> Log {
        Log { tail: Tail::new(limits::JOB_LOG_BYTES_MAX) }
    }
}

impl Log {
    pub(super) fn of(text: &str) -> Log {
        let mut log = Log::default();
        log.tail.bytes = text.as_bytes().to_vec();
        log
    }

    /// Adds one line; control characters in it are replaced, so that a terminal shows it harmlessly.
    pub(super) fn add(&mut self, line: &str) {
        let line = cut(line, limits::JOB_LOG_BYTES_MAX / 4);
        let shown: String = line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
        self.tail.add(format!("{shown}\n").as_bytes());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tail.bytes.is_empty()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.tail.bytes.clone()
    }

    /// Bytes that went before those that are left.
    pub(super) fn gone(&self) -> u64 {
        self.tail.gone
    }

    /// Its last whole lines, as the journal keeps them.
    pub(super) fn tail(&self) -> String {
        let bytes = self.bytes();
        let surplus = bytes.len().saturating_sub(limits::JOB_LOG_KEPT_BYTES);
        let start = if surplus == 0 {
            0
        } else {
            bytes.iter().skip(surplus).position(|byte| *byte == b'\n').map_or(bytes.len(), |at| surplus + at + 1)
        };
        String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned()
    }
}

/// At most `bytes` of `text`, ending at a character.
fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or(text)
}

/// An instant as people and programs read it, in UTC.
pub(super) fn timestamp(at: Instant) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at.nanos()))
        .map_or_else(|_| at.nanos().to_string(), |t| format!("{t:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(seconds: i64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn the_version_grows_with_the_bytes_and_only_then() {
        let mut page = Page::new(now(0));
        let one = page.become_bytes(b"a".to_vec(), now(1));
        let two = page.become_bytes(b"a".to_vec(), now(2));
        let three = page.become_bytes(b"b".to_vec(), now(3));
        assert_eq!(one, two);
        assert!(three.version > two.version && three.changed == now(3));
    }

    fn read(content: &Content) -> Vec<Value> {
        std::str::from_utf8(&content.bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn lines_grow_and_lose_their_older_half_at_the_bound() {
        let mut lines = Lines::new(now(0));
        lines.add(now(0), serde_json::json!({"event": "job", "job": "a"}));
        let mut before = lines.content();
        assert_eq!(
            read(&before),
            [serde_json::json!({"event": "job", "job": "a", "time": "1970-01-01T00:00:00.000Z"})]
        );
        let mut turned = 0;
        for n in 0..2000 {
            lines.add(now(n), serde_json::json!({"text": "x".repeat(1000)}));
            if n % 100 == 0 {
                let content = lines.content();
                assert!(content.version > before.version);
                assert!(content.bytes.len() <= limits::EVENTS_BYTES_MAX + 100);
                turned += u32::from(!content.bytes.starts_with(&before.bytes));
                before = content;
            }
        }
        assert!((1..5).contains(&turned), "{turned}");
        let left = read(&lines.content()).len() as u64;
        assert!(lines.lines_gone() > 0);
        assert_eq!(lines.lines_gone() + left, 2001);
    }

    #[test]
    fn a_fault_that_repeats_is_told_of_ever_more_rarely() {
        let mut faults = Faults::new(now(0));
        for _ in 0..250 {
            faults.add(now(1), 7, "pack x is gone");
        }
        faults.add(now(2), 8, "pack x is gone");
        let told: Vec<(u64, u64)> = read(&faults.content())
            .iter()
            .map(|fault| (fault["node"].as_u64().unwrap(), fault["times"].as_u64().unwrap()))
            .collect();
        assert_eq!(told, [(7, 1), (7, 10), (7, 100), (8, 1)]);
        for node in 0..limits::FAULTS_MAX as u64 + 5 {
            faults.add(now(3), node + 100, &"gone".repeat(10_000));
        }
        assert!(faults.times.len() <= limits::FAULTS_MAX);
        assert!(faults.content().bytes.len() <= limits::EVENTS_BYTES_MAX + 100);
        assert_eq!(faults.total(), limits::FAULTS_MAX as u64 + 256);
    }

    #[test]
    fn every_byte_of_a_text_that_loses_its_older_half_keeps_its_place() {
        let mut lines = Lines::new(now(0));
        let (mut all, mut known) = (Vec::new(), 0);
        for n in 0..5000 {
            lines.add(now(n), serde_json::json!({"n": n, "text": "x".repeat(1000)}));
            if n % 50 == 0 {
                let content = lines.content();
                assert!(content.gone >= known && content.gone <= all.len() as u64, "nothing is lost to who follows");
                known = content.gone;
                let at = all.len() - usize::try_from(content.gone).unwrap();
                all.extend_from_slice(&content.bytes[at..]);
            }
        }
        let numbers: Vec<i64> = std::str::from_utf8(&all)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["n"].as_i64().unwrap())
            .collect();
        assert!(numbers.iter().copied().eq(0..=4950) && known > 0);
    }

    #[test]
    fn a_fault_whose_line_went_is_told_of_again() {
        let mut faults = Faults::new(now(0));
        faults.add(now(0), 7, "pack x is gone");
        let mut other = 100;
        while faults.lines_gone() == 0 {
            other += 1;
            faults.add(now(1), other, &"y".repeat(FAULT_BYTES_MAX));
        }
        faults.add(now(2), 7, "pack x is gone");
        assert!(String::from_utf8_lossy(&faults.content().bytes).contains("pack x is gone"));
    }

    #[test]
    fn a_log_keeps_its_newest_lines_whole() {
        let mut log = Log::default();
        for n in 0..10_000 {
            log.add(&format!("line {n} with a bell \u{7} and ü"));
        }
        let bytes = log.bytes();
        assert!(bytes.len() <= limits::JOB_LOG_BYTES_MAX);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("line ") && text.ends_with("and ü\n") && !text.contains('\u{7}'));
        let tail = log.tail();
        assert!(tail.len() <= limits::JOB_LOG_KEPT_BYTES && tail.starts_with("line ") && text.ends_with(&tail));
        assert_eq!(cut("aü", 2), "a");
    }
}
