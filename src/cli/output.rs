//! What commands print: text for people, JSON for programs, and nothing that could steer a terminal.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use serde::Serialize;

use super::failure::Failure;
use crate::base::Instant;

/// Standard output, buffered; [`Output::close`] must be called, because a failed last write is a failure.
pub struct Output {
    out: BufWriter<StdoutLock<'static>>,
    /// Whether a person reads it.
    terminal: bool,
}

impl Output {
    /// Takes standard output until closed.
    pub fn open() -> Output {
        let out = io::stdout().lock();
        let terminal = out.is_terminal();
        Output { out: BufWriter::with_capacity(64 << 10, out), terminal }
    }

    /// Bytes as they are.
    ///
    /// # Errors
    /// [`Failure::output`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|error| Failure::output(&error))
    }

    /// A line of text.
    ///
    /// # Errors
    /// [`Failure::output`].
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        self.bytes(text.as_ref().as_bytes())?;
        self.bytes(b"\n")
    }

    /// A value as a line of JSON.
    ///
    /// # Errors
    /// [`Failure::output`].
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(value)
            .map_err(|error| Failure::new(crate::base::Class::Invalid, format!("write JSON: {error}")))?;
        self.line(line)
    }

    /// A file name or path: byte by byte into a file or pipe; on a terminal, where its bytes could be
    /// commands, with everything unprintable escaped as in a Rust string.
    ///
    /// # Errors
    /// [`Failure::output`].
    pub fn name(&mut self, name: &[u8]) -> Result<(), Failure> {
        if self.terminal { self.bytes(printable(name).as_bytes()) } else { self.bytes(name) }
    }

    /// Rows below their headings, columns aligned; those whose heading ends in `>` to the right.
    ///
    /// # Errors
    /// [`Failure::output`].
    pub fn table(&mut self, headings: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
        let head: Vec<String> = headings.iter().map(|heading| heading.trim_end_matches('>').to_owned()).collect();
        let all = || std::iter::once(&head).chain(rows);
        let width =
            |column: usize| all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..headings.len()).map(width).collect();
        for row in all() {
            let mut line = String::new();
            for ((cell, width), heading) in row.iter().zip(&widths).zip(headings) {
                let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
                let cell = if heading.ends_with('>') { format!("{gap}{cell}  ") } else { format!("{cell}{gap}  ") };
                line.push_str(&cell);
            }
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// Shows what has been printed so far.
    ///
    /// # Errors
    /// [`Failure::output`].
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| Failure::output(&error))
    }

    /// Writes out what is still held.
    ///
    /// # Errors
    /// [`Failure::output`].
    pub fn close(mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| Failure::output(&error))
    }
}

/// Text in which nothing can move a cursor, ring a bell or pass for something else.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str(r"\\"),
                // Marks that reorder what is shown would let one name pass for another.
                '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    text.extend(character.escape_unicode());
                }
                c if c.is_control() => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// A number of bytes with a binary unit: `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would round to 1024.0 of the same unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// An instant in UTC, to the nanosecond, as RFC 3339 writes it.
pub fn timestamp(instant: Instant) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(instant.nanos())).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// A count with its thousands apart: `78,579`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (78_579, "78,579"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(printable(b"plain name \xc3\xa9"), "plain name \u{e9}");
        assert_eq!(printable(b"\x1b[2J\n\\\xff"), r"\u{1b}[2J\n\\\xff");
        assert_eq!(printable("a\u{202e}txt.exe".as_bytes()), r"a\u{202e}txt.exe");
    }
}
