//! The demo's tree: a bounded copy of a real one, changes to it, and what differs between two states of it.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::super::failure::Failure;
use super::super::output::printable;
use crate::base::Class;

/// Bounds of the copy, so that the demo takes seconds and little space wherever it runs.
const FILES_MAX: u64 = 10_000;
const BYTES_MAX: u64 = 128 << 20;
/// Lines that are shown of a long list.
const SHOWN: usize = 12;

/// What was copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Whether there was more.
    pub(super) cut: bool,
}

/// Copies directories, regular files and symbolic links of `from` into the directory `to`, as many as the bounds allow.
/// What cannot be read is left out: the demo is no backup.
pub(super) fn copy(from: &Path, to: &Path) -> Result<Copied, Failure> {
    let mut copied = Copied::default();
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        let failed = |error: io::Error| Failure::io(format!("copy {}", from.join(&directory).display()), &error);
        let items = match fs::read_dir(from.join(&directory)) {
            Ok(items) => items,
            Err(error) if directory.as_os_str().is_empty() => return Err(failed(error)),
            Err(_) => continue,
        };
        let mut names: Vec<_> = items.filter_map(Result::ok).map(|item| item.file_name()).collect();
        names.sort();
        for name in names.iter().rev() {
            let path = directory.join(name);
            let Ok(meta) = from.join(&path).symlink_metadata() else { continue };
            if meta.is_dir() {
                fs::create_dir(to.join(&path)).map_err(failed)?;
                open.push(path);
            } else if meta.is_symlink() {
                let target = fs::read_link(from.join(&path)).map_err(failed)?;
                symlink(target, to.join(&path)).map_err(failed)?;
            } else if meta.is_file() {
                if copied.files >= FILES_MAX || copied.bytes + meta.len() > BYTES_MAX {
                    copied.cut = true;
                    continue;
                }
                if copy_file(&from.join(&path), &to.join(&path), &meta).map_err(failed)? {
                    copied.files += 1;
                    copied.bytes += meta.len();
                }
            }
        }
    }
    if copied.files < 3 {
        let text = format!("{} has too few readable files for a demo; choose another with --tree", from.display());
        return Err(Failure::new(Class::Invalid, text));
    }
    Ok(copied)
}

/// False when the file cannot be read.
fn copy_file(from: &Path, to: &Path, meta: &fs::Metadata) -> io::Result<bool> {
    let Ok(mut source) = File::open(from) else { return Ok(false) };
    let mut target = OpenOptions::new().write(true).create_new(true).open(to)?;
    io::copy(&mut source, &mut target)?;
    target.set_permissions(Permissions::from_mode(meta.mode() & 0o777))?;
    if let Ok(modified) = meta.modified() {
        target.set_times(FileTimes::new().set_modified(modified))?;
    }
    Ok(true)
}

/// What was done to the tree, as paths in it.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) deleted: PathBuf,
    appended: PathBuf,
    added: PathBuf,
    renamed: Option<(PathBuf, PathBuf)>,
}

impl Changes {
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("appended a line to {}", show(&self.appended)),
            format!("deleted {}", show(&self.deleted)),
            format!("wrote a new file {}", show(&self.added)),
        ];
        lines.extend(self.renamed.iter().map(|(from, to)| format!("renamed {} to {}", show(from), show(to))));
        lines
    }
}

/// Appends to a file, deletes one, writes one and renames a directory.
pub(super) fn change(root: &Path) -> Result<Changes, Failure> {
    let failed = |error: io::Error| Failure::io(format!("change {}", root.display()), &error);
    let states = states(root)?;
    let files = || states.iter().filter(|(_, state)| state.is_file && state.size > 0).map(|(path, _)| path);
    // Text shows better what became of it; where there is none, anything does.
    let text = |path: &&PathBuf| is_text(&root.join(path));
    let first = files().find(text).or_else(|| files().next());
    let last = files().rev().find(text).or_else(|| files().next_back());
    let (Some(first), Some(last)) = (first, last) else {
        return Err(Failure::new(Class::Invalid, "the tree has too few files that are not empty"));
    };
    let changes = Changes {
        appended: first.to_path_buf(),
        deleted: last.to_path_buf(),
        added: PathBuf::from("amberfs-demo.txt"),
        renamed: states
            .iter()
            .filter(|(path, state)| !state.is_file && !first.starts_with(path) && !last.starts_with(path))
            .find(|(path, _)| !path.as_os_str().is_empty() && root.join(path).is_dir() && !root.join(path).is_symlink())
            .map(|(path, _)| (path.clone(), path.with_file_name("renamed-by-the-demo"))),
    };
    let append = || {
        // A file may have been copied without the permission to write.
        let path = root.join(&changes.appended);
        let mode = path.metadata()?.mode();
        fs::set_permissions(&path, Permissions::from_mode(mode | 0o200))?;
        OpenOptions::new().append(true).open(&path)?.write_all(b"A line from the demo.\n")
    };
    append().map_err(failed)?;
    fs::remove_file(root.join(&changes.deleted)).map_err(failed)?;
    fs::write(root.join(&changes.added), "This file was not there before.\n").map_err(failed)?;
    if let Some((from, to)) = &changes.renamed {
        fs::rename(root.join(from), root.join(to)).map_err(failed)?;
    }
    Ok(changes)
}

/// Whether a file begins like text.
fn is_text(path: &Path) -> bool {
    let mut start = [0; 256];
    let bytes = File::open(path).and_then(|mut file| file.read(&mut start)).unwrap_or(0);
    start
        .get(..bytes)
        .is_some_and(|start| !start.is_empty() && start.iter().all(|b| matches!(b, b'\n' | b'\t' | b' '..=b'~')))
}

/// What is compared of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    is_file: bool,
    size: u64,
    mode: u32,
    modified: (i64, i64),
}

/// Everything below `root`, by its path in it.
fn states(root: &Path) -> Result<BTreeMap<PathBuf, State>, Failure> {
    let mut states = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        let failed = |error: io::Error| Failure::io(format!("walk {}", root.join(&directory).display()), &error);
        for item in fs::read_dir(root.join(&directory)).map_err(failed)? {
            let path = directory.join(item.map_err(failed)?.file_name());
            let meta = root.join(&path).symlink_metadata().map_err(failed)?;
            let modified = if meta.is_file() { (meta.mtime(), meta.mtime_nsec()) } else { (0, 0) };
            let size = if meta.is_dir() { 0 } else { meta.len() };
            states.insert(path.clone(), State { is_file: meta.is_file(), size, mode: meta.mode(), modified });
            if meta.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(states)
}

/// What differs between two states of a tree.
#[derive(Debug)]
pub(super) struct Difference {
    marks: Vec<(char, PathBuf)>,
    /// Regular files in the newer one, and their bytes.
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Difference {
    /// By walking both.
    pub(super) fn between(before: &Path, after: &Path) -> Result<Difference, Failure> {
        let (before, after) = (states(before)?, states(after)?);
        let mut marks: Vec<(char, PathBuf)> = Vec::new();
        marks.extend(before.keys().filter(|path| !after.contains_key(*path)).map(|path| ('-', path.clone())));
        marks.extend(after.iter().filter_map(|(path, state)| match before.get(path) {
            None => Some(('+', path.clone())),
            Some(old) if old != state => Some(('M', path.clone())),
            Some(_) => None,
        }));
        marks.sort_by(|a, b| a.1.cmp(&b.1));
        let files = || after.values().filter(|state| state.is_file);
        Ok(Difference { marks, files: files().count() as u64, bytes: files().map(|state| state.size).sum() })
    }

    /// One line for each, the first ones of many; a directory that came or went stands for what is in it.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut tops: Vec<(char, &Path, u64)> = Vec::new();
        for (mark, path) in &self.marks {
            match tops.last_mut() {
                Some((top, above, below)) if *top == *mark && path.starts_with(&**above) => *below += 1,
                _ => tops.push((*mark, path, 0)),
            }
        }
        let line = |(mark, path, below): &(char, &Path, u64)| match below {
            0 => format!("{mark} {}", show(path)),
            below => format!("{mark} {}/ with {below} in it", show(path)),
        };
        let mut lines: Vec<String> = tops.iter().take(SHOWN).map(line).collect();
        if tops.len() > SHOWN {
            lines.push(format!("… and {} more", tops.len() - SHOWN));
        }
        lines
    }
}

fn show(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_those_that_a_walk_finds() {
        let directory = tempfile::tempdir().unwrap();
        let root = |name: &str| directory.path().join(name);
        for name in ["from/a", "from/b", "from/c"] {
            fs::create_dir_all(root(name)).unwrap();
            fs::write(root(name).join("file"), name).unwrap();
        }
        symlink("a/file", root("from/link")).unwrap();
        for name in ["before", "after"] {
            fs::create_dir(root(name)).unwrap();
            let copied = copy(&root("from"), &root(name)).unwrap();
            assert_eq!((copied.files, copied.cut), (3, false));
        }
        assert_eq!(Difference::between(&root("from"), &root("before")).unwrap().lines(), [""; 0]);
        let changes = change(&root("after")).unwrap();
        assert_eq!(changes.lines().len(), 4, "{changes:?}");
        assert_eq!(
            Difference::between(&root("before"), &root("after")).unwrap().lines(),
            ["M a/file", "+ amberfs-demo.txt", "- b/ with 1 in it", "- c/file", "+ renamed-by-the-demo/ with 1 in it"]
        );
    }

    #[test]
    fn a_tree_without_files_is_no_demo() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("from/x")).unwrap();
        fs::create_dir(directory.path().join("to")).unwrap();
        let failure = copy(&directory.path().join("from"), &directory.path().join("to")).unwrap_err();
        assert!(failure.text().contains("--tree"), "{failure}");
    }
}
