//! Generated files: bytes with a number that grows whenever they change, as the kernel's cache needs.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

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
        Page { content: Content { version: 1, bytes: Arc::new(Vec::new()), changed: now } }
    }

    /// The content once it has become `bytes`.
    pub(super) fn become_bytes(&mut self, bytes: Vec<u8>, changed: Instant) -> Content {
        if *self.content.bytes != bytes {
            self.content = Content { version: self.content.version + 1, bytes: Arc::new(bytes), changed };
        }
        self.content.clone()
    }
}

/// A file of JSON lines that grows; at its bound the older half goes, and the file's first line then
/// says how many lines went since the mount began.
#[derive(Debug)]
pub(super) struct Lines {
    lines: Vec<u8>,
    gone: u64,
    changed: Instant,
    page: Page,
}

impl Lines {
    pub(super) fn new(now: Instant) -> Lines {
        Lines { lines: Vec::new(), gone: 0, changed: now, page: Page::new(now) }
    }

    /// Adds a line of `members`, with the time as its first.
    pub(super) fn add(&mut self, now: Instant, members: Value) {
        let mut line = serde_json::Map::new();
        line.insert("time".into(), timestamp(now).into());
        if let Value::Object(members) = members {
            line.extend(members);
        }
        self.lines.extend_from_slice(Value::Object(line).to_string().as_bytes());
        self.lines.push(b'\n');
        self.changed = now;
        if self.lines.len() > limits::EVENTS_BYTES_MAX {
            let half = self.lines.len() / 2;
            let end = self.lines.iter().skip(half).position(|byte| *byte == b'\n');
            let end = end.map_or(self.lines.len(), |at| half + at + 1);
            let dropped: Vec<u8> = self.lines.drain(..end).collect();
            self.gone += dropped.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
    }

    pub(super) fn content(&mut self) -> Content {
        let mut bytes = Vec::new();
        if self.gone > 0 {
            let first = serde_json::json!({ "event": "older-lines-dropped", "lines": self.gone });
            bytes.extend_from_slice(first.to_string().as_bytes());
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(&self.lines);
        self.page.become_bytes(bytes, self.changed)
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
            self.lines.add(now, serde_json::json!({ "node": node, "message": message, "times": *times }));
        }
    }

    pub(super) fn content(&mut self) -> Content {
        self.lines.content()
    }
}

/// What a job said: its newest lines.
#[derive(Debug, Default)]
pub(super) struct Log {
    bytes: VecDeque<u8>,
}

impl Log {
    pub(super) fn of(text: &str) -> Log {
        Log { bytes: text.bytes().collect() }
    }

    /// Adds one line; control characters in it are replaced, so that a terminal shows it harmlessly.
    pub(super) fn add(&mut self, line: &str) {
        let line = cut(line, limits::JOB_LOG_BYTES_MAX / 4);
        let shown: String = line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
        self.bytes.extend(shown.bytes());
        self.bytes.push_back(b'\n');
        while self.bytes.len() > limits::JOB_LOG_BYTES_MAX {
            while self.bytes.pop_front().is_some_and(|byte| byte != b'\n') {}
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.bytes.iter().copied().collect()
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
        let lines = read(&lines.content());
        assert_eq!(lines[0]["event"], "older-lines-dropped");
        assert_eq!(lines[0]["lines"].as_u64().unwrap() + lines.len() as u64 - 1, 2001);
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
