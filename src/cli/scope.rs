//! What of a directory belongs to a source: the options that capture, rollback and the configuration share.

use std::path::PathBuf;

use super::context::absolute;
use super::failure::Failure;
use crate::capture::{Excludes, Options};
use crate::job::SourceConfig;

/// What is left out of a directory.
#[derive(Debug, clap::Args)]
pub struct ScopeArgs {
    /// Leave out what matches this pattern, in gitignore's syntax, relative to the directory (repeatable)
    #[arg(short, long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Leave out what matches a pattern in this file (repeatable)
    #[arg(long, value_name = "FILE")]
    pub exclude_file: Vec<PathBuf>,
    /// Leave out the content of directories that hold a CACHEDIR.TAG
    #[arg(long)]
    pub exclude_caches: bool,
    /// Also enter what is mounted below the directory
    #[arg(long)]
    pub cross_filesystems: bool,
}

impl ScopeArgs {
    /// Whether any of it was given.
    pub fn is_given(&self) -> bool {
        !self.exclude.is_empty() || !self.exclude_file.is_empty() || self.exclude_caches || self.cross_filesystems
    }

    /// Adds these to what is configured.
    ///
    /// # Errors
    /// When the working directory is gone to which a file's path is relative.
    pub fn add_to(&self, source: &mut SourceConfig) -> Result<(), Failure> {
        source.exclude.extend(self.exclude.iter().cloned());
        for file in &self.exclude_file {
            source.exclude_file.push(absolute(file.clone())?);
        }
        source.exclude_caches |= self.exclude_caches;
        source.one_file_system &= !self.cross_filesystems;
        Ok(())
    }
}

/// How a source is captured, as far as its configuration says.
///
/// # Errors
/// When a pattern has no meaning, or a file of patterns cannot be read.
pub fn capture_options(source: &SourceConfig) -> Result<Options, Failure> {
    Ok(Options {
        labels: source.labels.clone(),
        excludes: Excludes::new(&source.exclude, &source.exclude_file)?,
        exclude_caches: source.exclude_caches,
        cross_filesystems: !source.one_file_system,
        chain_max_points: source.chain_max_points,
        disk_chunk_bytes: source.chunk_kib.map(|kib| kib.saturating_mul(1024)),
        ..Options::default()
    })
}
