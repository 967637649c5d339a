//! Which paths of a source are left out: patterns in the syntax of `.gitignore`, relative to its root.
//!
//! The last pattern that matches decides, `!` takes back, a trailing `/` means directories only, and
//! what lies in an excluded directory cannot be taken back: it is never looked at.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::error::CaptureError;

/// The file that marks a directory as a cache, and how it must begin (<https://bford.info/cachedir/>).
pub const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
pub(super) const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Whether the file of that name is a true tag.
pub fn is_cache_tag(file: &File) -> bool {
    let mut head = [0u8; CACHE_SIGNATURE.len()];
    file.read_exact_at(&mut head, 0).is_ok_and(|()| head == CACHE_SIGNATURE)
}

/// A set of patterns, compiled.
#[derive(Debug, Clone, Default)]
pub struct Excludes {
    patterns: Option<Gitignore>,
    /// The patterns, without comments.
    lines: Vec<String>,
}

impl Excludes {
    /// Nothing is left out.
    pub fn none() -> Excludes {
        Excludes::default()
    }

    /// `patterns` as given one by one, then all lines of `files`, in that order.
    ///
    /// # Errors
    /// [`CaptureError::Pattern`] for a pattern that has no meaning, [`CaptureError::PatternFile`] for a
    /// file that cannot be read.
    pub fn new(patterns: &[String], files: &[PathBuf]) -> Result<Excludes, CaptureError> {
        let mut lines = patterns.to_vec();
        for file in files {
            let text = std::fs::read_to_string(file)
                .map_err(|source| CaptureError::PatternFile { path: file.clone(), source })?;
            lines.extend(text.lines().map(str::to_owned));
        }
        Excludes::of_lines(lines)
    }

    /// These, and then `more`, which therefore have the last word.
    ///
    /// # Errors
    /// [`CaptureError::Pattern`] for a pattern that has no meaning.
    pub fn and(&self, more: &[String]) -> Result<Excludes, CaptureError> {
        Excludes::of_lines([&self.lines, more].concat())
    }

    fn of_lines(mut lines: Vec<String>) -> Result<Excludes, CaptureError> {
        lines.retain(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let mut builder = GitignoreBuilder::new("");
        for line in &lines {
            let wrong = |error: ignore::Error| CaptureError::Pattern { pattern: line.clone(), why: error.to_string() };
            builder.add_line(None, line).map_err(wrong)?;
        }
        let built = builder
            .build()
            .map_err(|error| CaptureError::Pattern { pattern: lines.join(" "), why: error.to_string() })?;
        Ok(Excludes { patterns: (!built.is_empty()).then_some(built), lines })
    }

    /// The patterns in order, without comments and empty lines.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Whether nothing is left out, so that no path needs to be put together to ask.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_none()
    }

    /// Whether `path`, relative to the source's root, is left out.
    pub fn exclude(&self, path: &[u8], directory: bool) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        self.patterns.as_ref().is_some_and(|patterns| patterns.matched(path, directory).is_ignore())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_git() {
        let excludes = |patterns: &[&str]| {
            Excludes::new(&patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>(), &[]).unwrap()
        };
        let set = excludes(&["*.o", "/build/", "!keep.o", "# a comment", "", "docs/**/*.tmp", r"\!bang"]);
        for (path, directory, out) in [
            (&b"a.o"[..], false, true),
            (b"deep/er/a.o", false, true),
            (b"keep.o", false, false),
            (b"build", true, true),
            (b"build", false, false),
            (b"sub/build", true, false),
            (b"docs/x/y/z.tmp", false, true),
            (b"x.tmp", false, false),
            (b"!bang", false, true),
            (b"not-utf8-\xff.o", false, true),
            (b"not-utf8-\xff.c", false, false),
        ] {
            assert_eq!(set.exclude(path, directory), out, "{}", path.escape_ascii());
        }
        assert!(excludes(&[]).is_empty() && excludes(&["# only a comment"]).is_empty());
    }

    #[test]
    fn patterns_come_from_files_too_and_errors_name_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("excludes");
        std::fs::write(&file, "*.tmp\n!x.tmp\r\n").unwrap();
        let set = Excludes::new(&["*.o".to_owned()], std::slice::from_ref(&file)).unwrap();
        assert!(set.exclude(b"a/b.tmp", false) && set.exclude(b"b.o", false) && !set.exclude(b"x.tmp", false));
        let missing = Excludes::new(&[], &[dir.path().join("none")]).unwrap_err().to_string();
        assert!(missing.contains("none"), "{missing}");
        let wrong = Excludes::new(&["{a".to_owned()], &[]).unwrap_err().to_string();
        assert!(wrong.contains("{a"), "{wrong}");
    }
}
