//! Which paths of a source are left out: patterns in the syntax of `.gitignore`, relative to its root.
//!
//! The last pattern that matches decides, `!` takes back, a trailing `/` means directories only, and
//! what lies in an excluded directory cannot be taken back: it is never looked at.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::error::CaptureError;

/// A set of patterns, compiled.
#[derive(Debug, Clone, Default)]
pub struct Excludes {
    patterns: Option<Gitignore>,
}

impl Excludes {
    /// Nothing is left out.
    pub fn none() -> Excludes {
        Excludes { patterns: None }
    }

    /// `patterns` as given one by one, then all lines of `files`, in that order.
    ///
    /// # Errors
    /// [`CaptureError::Pattern`] for a pattern that has no meaning, [`CaptureError::PatternFile`] for a
    /// file that cannot be read.
    pub fn new(patterns: &[String], files: &[PathBuf]) -> Result<Excludes, CaptureError> {
        let mut builder = GitignoreBuilder::new("");
        for pattern in patterns {
            add(&mut builder, pattern)?;
        }
        for file in files {
            let text = std::fs::read_to_string(file)
                .map_err(|source| CaptureError::PatternFile { path: file.clone(), source })?;
            for line in text.lines() {
                add(&mut builder, line)?;
            }
        }
        let built = builder
            .build()
            .map_err(|error| CaptureError::Pattern { pattern: patterns.join(" "), why: error.to_string() })?;
        Ok(Excludes { patterns: (!built.is_empty()).then_some(built) })
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

fn add(builder: &mut GitignoreBuilder, pattern: &str) -> Result<(), CaptureError> {
    builder
        .add_line(None, pattern)
        .map(drop)
        .map_err(|error| CaptureError::Pattern { pattern: pattern.to_owned(), why: error.to_string() })
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
