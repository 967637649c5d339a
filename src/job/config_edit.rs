//! Changes to the configuration file that leave the user's own text alone.
//!
//! A source is added as text behind what is there, and removed by cutting out its table, from the
//! comment that stands directly above it up to the comment above the next one. The result is parsed
//! before it is written and must be the old configuration with exactly this change; otherwise nothing
//! is written and the user is asked to edit by hand.
//!
//! The file is replaced in one rename, synced before and after: a crash leaves the old file or the new
//! one. A lock on its directory orders concurrent changes. It does not guard against an editor that
//! has the old text open.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Spanned, Value};

use super::config::{Config, ConfigError, ConfigFile, SourceConfig};
use crate::base::suggest;

impl ConfigFile {
    /// Appends a source, creating the file (0600) and its directory (0700) if need be.
    ///
    /// # Errors
    /// [`ConfigError`]; then the file is as it was.
    pub fn add_source(&self, source: &SourceConfig) -> Result<(), ConfigError> {
        self.change(|text, config| {
            if let Some(before) = config.source(&source.name) {
                return Err(ConfigError::Exists {
                    path: self.path().to_owned(),
                    name: source.name.clone(),
                    at: before.path.clone(),
                });
            }
            source.check().map_err(|why| ConfigError::Value { path: self.path().to_owned(), why })?;
            let table = table(source).ok_or_else(|| ConfigError::Value {
                path: self.path().to_owned(),
                why: format!("{:?} is not UTF-8, which a TOML file must be", source.path),
            })?;
            let mut text = text.to_owned();
            if !text.is_empty() {
                text.push_str(if text.ends_with('\n') { "\n" } else { "\n\n" });
            }
            text.push_str(&table);
            config.sources.push(source.clone());
            Ok(text)
        })
    }

    /// Removes a source from the configuration; the repository keeps its points.
    ///
    /// # Errors
    /// [`ConfigError`]; then the file is as it was.
    pub fn remove_source(&self, name: &str) -> Result<(), ConfigError> {
        self.change(|text, config| {
            let Some(place) = config.sources.iter().position(|source| source.name == name) else {
                let suggestion = suggest::did_you_mean(name, config.sources.iter().map(|s| s.name.as_str()));
                return Err(ConfigError::NoSource { path: self.path().to_owned(), name: name.to_owned(), suggestion });
            };
            config.sources.remove(place);
            let cut = extent(text, place).unwrap_or(0..0);
            let mut rest = text.to_owned();
            rest.replace_range(cut, "");
            Ok(rest)
        })
    }

    /// Writes what `edit` makes of the text, if it says what `edit` makes of the configuration.
    fn change(&self, edit: impl FnOnce(&str, &mut Config) -> Result<String, ConfigError>) -> Result<(), ConfigError> {
        // A link is kept and the file it leads to is replaced.
        let path = self.path().canonicalize().unwrap_or_else(|_| self.path().to_owned());
        let failed = |action, path: &Path, cause| ConfigError::Io { action, path: path.to_owned(), cause };
        let directory = match path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory.to_owned(),
            _ => PathBuf::from("."),
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|e| failed("create", &directory, e))?;
        let lock = File::open(&directory).map_err(|e| failed("open", &directory, e))?;
        lock.lock().map_err(|e| failed("lock", &directory, e))?;

        let before = self.read()?.unwrap_or_default();
        let mut expected = Config::parse(&before, self.path())?;
        let after = edit(&before, &mut expected)?;
        if Config::parse(&after, self.path()).ok().as_ref() != Some(&expected) {
            let why = "its text cannot be changed without disturbing the rest; edit it by hand".to_owned();
            return Err(ConfigError::Edit { path: self.path().to_owned(), why });
        }
        replace(&path, &directory, &after).map_err(|e| failed("write", &path, e))?;
        lock.sync_all().map_err(|e| failed("sync", &directory, e))
    }
}

/// Puts `text` in the place of the file at `path`, keeping its mode; owner-only where there is none.
fn replace(path: &Path, directory: &Path, text: &str) -> io::Result<()> {
    let mut staged = path.file_name().unwrap_or_default().to_owned();
    staged.push(format!(".new-{}", std::process::id()));
    let staged = directory.join(staged);
    let mode = fs::metadata(path).map_or(0o600, |meta| meta.permissions().mode() & 0o7777);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&staged, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&staged)))
}

/// The source as a table; none when its paths are not UTF-8.
fn table(source: &SourceConfig) -> Option<String> {
    fn strings<'a>(items: impl Iterator<Item = Option<&'a str>>) -> Option<Value> {
        items.map(|item| item.map(Value::from)).collect::<Option<Vec<Value>>>().map(Value::from)
    }
    let SourceConfig {
        name,
        path,
        disk,
        chunk_kib,
        chain_max_points,
        stop,
        start,
        exclude,
        exclude_file,
        exclude_caches,
        one_file_system,
        labels,
    } = source;
    let mut text =
        format!("[[source]]\nname = {}\npath = {}\n", Value::from(name.as_str()), Value::from(path.to_str()?));
    if *disk {
        text += "disk = true\n";
    }
    if let Some(kib) = chunk_kib {
        text += &format!("chunk_kib = {kib}\n");
    }
    if let Some(points) = chain_max_points {
        text += &format!("chain_max_points = {points}\n");
    }
    for (key, command) in [("stop", stop), ("start", start)] {
        if !command.is_empty() {
            text += &format!("{key} = {}\n", strings(command.iter().map(|word| Some(word.as_str())))?);
        }
    }
    if !exclude.is_empty() {
        text += &format!("exclude = {}\n", strings(exclude.iter().map(|pattern| Some(pattern.as_str())))?);
    }
    if !exclude_file.is_empty() {
        text += &format!("exclude_file = {}\n", strings(exclude_file.iter().map(|file| file.to_str()))?);
    }
    if *exclude_caches {
        text += "exclude_caches = true\n";
    }
    if !one_file_system {
        text += "one_file_system = false\n";
    }
    if !labels.is_empty() {
        text += &format!("labels = {}\n", strings(labels.iter().map(|label| Some(label.as_str())))?);
    }
    Some(text)
}

/// The bytes of the `place`th source's table with the comment directly above it.
fn extent(text: &str, place: usize) -> Option<Range<usize>> {
    /// Only where the tables begin.
    #[derive(Deserialize)]
    struct Headers {
        repository: Option<Spanned<toml::Table>>,
        source: Vec<Spanned<toml::Table>>,
    }
    let headers: Headers = toml::from_str(text).ok()?;
    let start = headers.source.get(place)?.span().start;
    let end = (headers.source.iter().chain(&headers.repository).map(|table| table.span().start))
        .filter(|other| *other > start)
        .min()
        .unwrap_or(text.len());
    let start = with_comment(text, start, false);
    Some(start..with_comment(text, end, true).max(start))
}

/// The start of the lines directly above `at` that are comments; with `blank`, of those and empty ones.
fn with_comment(text: &str, at: usize, blank: bool) -> usize {
    let mut start = at;
    while let Some(above) = text.get(..start).and_then(|above| above.strip_suffix('\n')) {
        let line = above.rfind('\n').map_or(0, |end| end + 1);
        let content = above.get(line..).unwrap_or_default().trim();
        let goes_along = content.starts_with('#') || (blank && content.is_empty());
        if !goes_along {
            break;
        }
        start = line;
    }
    start
}
