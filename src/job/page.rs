//! Generated files: bytes with a number that grows whenever they change, as the kernel's cache needs.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;
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

/// `events`: lines are added at the end; at its bound the older half goes, and the file's first line
/// then says how many lines went since the mount began.
#[derive(Debug)]
pub(super) struct Events {
    lines: Vec<u8>,
    gone: u64,
    changed: Instant,
    page: Page,
}

impl Events {
    pub(super) fn new(now: Instant) -> Events {
        Events { lines: Vec::new(), gone: 0, changed: now, page: Page::new(now) }
    }

    pub(super) fn add(&mut self, now: Instant, event: &str, members: Value) {
        let mut line = serde_json::Map::new();
        line.insert("time".into(), timestamp(now).into());
        line.insert("event".into(), event.into());
        if let Value::Object(members) = members {
            line.extend(members);
        }
        self.lines.extend_from_slice(Value::Object(line).to_string().as_bytes());
        self.lines.push(b'\n');
        self.changed = now;
        if self.lines.len() > limits::EVENTS_BYTES_MAX {
            let half = self.lines.len() / 2;
            let end = self
                .lines
                .iter()
                .skip(half)
                .position(|byte| *byte == b'\n')
                .map_or(self.lines.len(), |at| half + at + 1);
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

/// What readers of the mount met instead of data: the newest faults, the same one counted.
#[derive(Debug)]
pub(super) struct Faults {
    faults: VecDeque<Fault>,
    total: u64,
    changed: Instant,
    page: Page,
}

#[derive(Debug, Serialize)]
struct Fault {
    time: String,
    node: u64,
    message: String,
    times: u64,
}

/// Longest message of a fault that is kept, in bytes.
const FAULT_BYTES_MAX: usize = 8 << 10;

impl Faults {
    pub(super) fn new(now: Instant) -> Faults {
        Faults { faults: VecDeque::new(), total: 0, changed: now, page: Page::new(now) }
    }

    /// How often readers met a fault.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Adds one; true when it is not merely another occurrence of one that is listed.
    pub(super) fn add(&mut self, now: Instant, node: u64, message: &str) -> bool {
        self.total += 1;
        self.changed = now;
        let message = cut(message, FAULT_BYTES_MAX);
        let known = self.faults.iter().position(|fault| fault.node == node && fault.message == message);
        let times = known.and_then(|at| self.faults.remove(at)).map_or(0, |fault| fault.times);
        if self.faults.len() >= limits::FAULTS_MAX {
            self.faults.pop_front();
        }
        self.faults.push_back(Fault { time: timestamp(now), node, message: message.to_owned(), times: times + 1 });
        known.is_none()
    }

    pub(super) fn content(&mut self) -> Content {
        let mut bytes = Vec::new();
        for fault in &self.faults {
            bytes.extend(serde_json::to_vec(fault).expect("a fault has text and numbers only"));
            bytes.push(b'\n');
        }
        self.page.become_bytes(bytes, self.changed)
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

    #[test]
    fn events_grow_and_lose_their_older_half_at_the_bound() {
        let mut events = Events::new(now(0));
        events.add(now(0), "job", serde_json::json!({"job": "a"}));
        assert_eq!(
            String::from_utf8_lossy(&events.content().bytes),
            "{\"event\":\"job\",\"job\":\"a\",\"time\":\"1970-01-01T00:00:00.000Z\"}\n"
        );
        let mut before = events.content();
        let mut turned = 0;
        for n in 0..2000 {
            events.add(now(n), "job", serde_json::json!({"text": "x".repeat(1000)}));
            if n % 100 == 0 {
                let content = events.content();
                assert!(content.version > before.version);
                assert!(content.bytes.len() <= limits::EVENTS_BYTES_MAX + 100);
                turned += u32::from(content.bytes.len() < before.bytes.len());
                before = content;
            }
        }
        assert!(turned >= 1);
        let content = events.content();
        let text = std::str::from_utf8(&content.bytes).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["event"], "older-lines-dropped");
        assert_eq!(lines[0]["lines"].as_u64().unwrap() + lines.len() as u64 - 1, 2001);
    }

    #[test]
    fn a_fault_that_repeats_is_counted_and_the_list_is_bounded() {
        let mut faults = Faults::new(now(0));
        assert!(faults.add(now(1), 7, "pack x is gone"));
        assert!(!faults.add(now(2), 7, "pack x is gone"));
        assert!(faults.add(now(2), 8, "pack x is gone"));
        let text = String::from_utf8(faults.content().bytes.to_vec()).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("\"times\":2"), "{text}");
        for node in 0..limits::FAULTS_MAX as u64 + 5 {
            faults.add(now(3), node + 100, "gone");
        }
        assert_eq!(faults.faults.len(), limits::FAULTS_MAX);
        assert_eq!(faults.total(), limits::FAULTS_MAX as u64 + 8);
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
