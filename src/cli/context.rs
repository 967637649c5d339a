//! What every command knows: the global options, the configuration, the clock.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::Global;
use super::exit::Exit;
use super::failure::Failure;
use crate::base::{Class, Env};
use crate::job::{ConfigFile, Places};

/// What every command knows.
pub struct Context {
    /// The options that all commands take.
    pub global: Global,
    /// Clock and randomness.
    pub env: Env,
    /// Where things are on this machine.
    pub places: Places,
}

impl Context {
    /// The configuration file that applies.
    ///
    /// # Errors
    /// When nothing says where it is.
    pub fn config(&self) -> Result<ConfigFile, Failure> {
        match &self.global.config {
            Some(path) => Ok(ConfigFile::at(absolute(path.clone())?)),
            None => Ok(ConfigFile::of(&self.places)?),
        }
    }

    /// The directory of the repository: `-r`, else `AMBERFS_REPOSITORY`, else the configuration.
    ///
    /// # Errors
    /// When none of them names one, or a kind of store that this build does not have.
    pub fn repository(&self) -> Result<PathBuf, Failure> {
        if let Some(text) = self.global.repository.as_deref().filter(|text| !text.is_empty()) {
            return absolute(directory(text)?);
        }
        let config = self.config()?;
        match &config.current()?.repository {
            Some(repository) => {
                let path = directory(OsStr::new(&repository.url))?;
                if path.is_absolute() {
                    return Ok(path);
                }
                Err(Failure::usage(format!("{:?}: the repository {path:?} must be an absolute path", config.path())))
            }
            None => Err(Failure::usage("no repository is given").ending(Exit::NoRepository).hint(format!(
                "name one with -r REPO, AMBERFS_REPOSITORY, or url under [repository] in {:?}",
                config.path()
            ))),
        }
    }
}

/// A path that means the same whatever the working directory becomes.
///
/// # Errors
/// When the working directory is gone or the path empty.
pub fn absolute(path: PathBuf) -> Result<PathBuf, Failure> {
    std::path::absolute(&path).map_err(|error| Failure::io(format!("make {path:?} absolute"), &error))
}

/// The directory that a repository's name stands for: a path, or `file://` and an absolute path with `%` escapes.
fn directory(text: &OsStr) -> Result<PathBuf, Failure> {
    let bytes = text.as_bytes();
    if let Some(path) = bytes.strip_prefix(b"file://") {
        let path = unescape(path).filter(|path| path.starts_with(b"/")).ok_or_else(|| {
            Failure::usage(format!(
                "repository {text:?}: file:// is followed by an absolute path, with %20 for a space"
            ))
        })?;
        return Ok(PathBuf::from(OsStr::from_bytes(&path)));
    }
    let scheme = bytes.split(|byte| !byte.is_ascii_alphanumeric()).next().unwrap_or_default();
    if scheme.len() > 1 && bytes.get(scheme.len()..).is_some_and(|rest| rest.starts_with(b"://")) {
        return Err(Failure::new(
            Class::Unsupported,
            format!("repository {text:?}: this amberfs keeps repositories in local directories only"),
        )
        .hint("give a path, or file:///and/a/path"));
    }
    Ok(PathBuf::from(text))
}

fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = behind;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn repositories_are_paths_or_file_urls() {
        for (text, path) in [
            ("/srv/backup", "/srv/backup"),
            ("backup", "backup"),
            ("./a:b", "./a:b"),
            ("file:///srv/a%20b", "/srv/a b"),
            ("file:///srv/%2f", "/srv//"),
        ] {
            assert_eq!(directory(OsStr::new(text)).unwrap(), Path::new(path), "{text}");
        }
        for text in ["file://host/srv", "file:///a%2", "file:///a%+f", "file://"] {
            assert_eq!(directory(OsStr::new(text)).unwrap_err().exit(), Exit::Usage, "{text}");
        }
        for text in ["s3://bucket/prefix", "https://x"] {
            assert_eq!(directory(OsStr::new(text)).unwrap_err().class(), Class::Unsupported, "{text}");
        }
    }
}
