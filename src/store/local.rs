//! A local store's directory, read without a detour and kept private and durable.
//!
//! `object_store` opens a file, moves to a blocking thread and back for every request. Frames of 64 KiB from
//! memory are then ten times slower than the `pread` that they are, so reads go straight to files that stay
//! open. What is not in memory may wait for a disk for ever, and is read on a thread that can be left at the
//! deadline (`docs/decisions/010-local-reads.md`).
//!
//! **Nothing leads out.** Names, which the caller has checked for `..` and its like, are walked from the
//! directory opened at the start, one component at a time, following no symbolic link.
//!
//! **A lost disk is not an empty store.** Every "no such object" is believed only while the path still
//! names the directory that was opened; otherwise it is [`StoreError::RootGone`].
//!
//! **Open files do not go stale.** Objects never change, but a collector deletes them and a repair may
//! replace them. A file that has lost its last name is opened anew.
//!
//! **Durable to the root.** A file's own `fsync` promises nothing about the directories above it, and a
//! directory made by a process that died may never have been synced. Before the first write into a directory,
//! this process syncs the whole way down to it.
//!
//! **Built upon means durable.** What another process has made may be visible and not durable, for ever if that
//! process died. Before a write, the directories are synced from which whole objects were read since the last:
//! whatever this process writes because of them never outlives them.
//!
//! **Seen again means durable.** A creation that failed may have made its object visible and not durable, and
//! whoever reads it back would take it for acknowledged. Such objects are synced before they are read.

use std::collections::BTreeSet;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use crate::base::sys::effective_uid;
use crate::format::object::{Object, ObjectName, PROBES_PREFIX};

use super::ahead::Ahead;
use super::error::StoreError;
use super::meter::Operation;
use super::store::Listed;
use super::sys::{self, Kind};

/// Files kept open for reading.
const OPEN_FILES_MAX: NonZeroUsize = NonZeroUsize::new(128).expect("128 is not zero");
/// Directories remembered as durable; forgetting one costs a few syncs.
const DURABLE_DIRECTORIES_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("1024 is not zero");
/// Objects remembered as doubtful; only failed creations make one.
const DOUBTFUL_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("1024 is not zero");
/// Components of the deepest name that is listed; ours have five.
const DEPTH_MAX: usize = 8;

/// The directory of a local store.
#[derive(Debug)]
pub(super) struct LocalDir {
    root: PathBuf,
    directory: OwnedFd,
    device: u64,
    inode: u64,
    open: Mutex<LruCache<ObjectName, Arc<Opened>>>,
    durable: Mutex<LruCache<String, ()>>,
    doubtful: Mutex<LruCache<ObjectName, ()>>,
    /// Directories from which whole objects were read since they were last synced.
    read: Mutex<BTreeSet<String>>,
    settling: Mutex<()>,
}

/// An object's file, kept open, and how far it has been read in order.
#[derive(Debug)]
struct Opened {
    file: OwnedFd,
    ahead: Ahead,
}

impl Opened {
    /// `range` of the object if all of it is in memory. Never waits for the disk.
    fn at_hand(&self, range: &Range<u64>) -> Option<Bytes> {
        let bytes = usize::try_from(range.end - range.start).ok()?;
        let mut buffer = Vec::new();
        // Not at hand, or a real error: the way that may wait finds out which.
        sys::read_at(self.file.as_fd(), &mut buffer, bytes, range.start, true).ok()?;
        if buffer.len() < bytes {
            return None;
        }
        self.ahead.note(range);
        Some(Bytes::from(buffer))
    }
}

/// What the disk is to be asked for next, for whoever may wait for it meanwhile.
#[derive(Debug)]
pub(super) struct Onward {
    opened: Arc<Opened>,
    range: Range<u64>,
}

impl Onward {
    /// Asks for it. That may take as long as the disk does.
    pub(super) fn ask(self) {
        sys::will_need(self.opened.file.as_fd(), self.range);
    }
}

impl LocalDir {
    /// Opens the existing directory `root`.
    pub(super) fn open(root: &Path) -> Result<LocalDir, StoreError> {
        let failed = |source| StoreError::Root { what: "open the directory", root: root.to_owned(), source };
        let root = root.canonicalize().map_err(failed)?;
        let directory = OwnedFd::from(std::fs::File::open(&root).map_err(failed)?);
        let status = sys::status(directory.as_fd()).map_err(failed)?;
        if status.kind != Kind::Directory {
            return Err(failed(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        Ok(LocalDir {
            root,
            directory,
            device: status.device,
            inode: status.inode,
            open: Mutex::new(LruCache::new(OPEN_FILES_MAX)),
            durable: Mutex::new(LruCache::new(DURABLE_DIRECTORIES_MAX)),
            doubtful: Mutex::new(LruCache::new(DOUBTFUL_MAX)),
            read: Mutex::new(BTreeSet::new()),
            settling: Mutex::new(()),
        })
    }

    /// Makes `root` for its owner alone, or takes it when it exists, is empty and nobody else can write to it; durably, for
    /// whoever made it may not have synced it. The `lost+found` of a filesystem's root does not count, and what trials of
    /// the store have left.
    pub(super) fn create(root: &Path) -> Result<LocalDir, StoreError> {
        let failed = |what, source| StoreError::Root { what, root: root.to_owned(), source };
        match std::fs::DirBuilder::new().mode(0o700).create(root) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                for entry in std::fs::read_dir(root).map_err(|source| failed("list the directory", source))? {
                    let entry = entry.map_err(|source| failed("list the directory", source))?;
                    if !belongs_to_nobody(root, &entry.file_name()) {
                        return Err(StoreError::NotEmpty { root: root.to_owned() });
                    }
                }
            }
            Err(source) => return Err(failed("make the directory", source)),
        }
        let local = LocalDir::open(root)?;
        local.shut_others_out()?;
        local.settle_root().map_err(|source| failed("make the directory durable", source))?;
        Ok(local)
    }

    /// Sees that nobody but the owner can write to the directory, which somebody may have made for others.
    fn shut_others_out(&self) -> Result<(), StoreError> {
        let failed = |source| StoreError::Root { what: "look at the directory", root: self.root.clone(), source };
        let status = sys::status(self.directory.as_fd()).map_err(failed)?;
        if status.mode & 0o022 == 0 {
            return Ok(());
        }
        let (root, mode, owner) = (self.root.clone(), status.mode, status.owner);
        if owner != effective_uid() {
            return Err(StoreError::OpenToOthers { root, mode, owner });
        }
        let directory = std::fs::File::from(self.directory.try_clone().map_err(failed)?);
        directory.set_permissions(std::fs::Permissions::from_mode(0o700)).map_err(|source| StoreError::Root {
            what: "keep others out of the directory",
            root,
            source,
        })?;
        tracing::warn!(
            directory = %self.root.display(),
            was = %format_args!("{mode:04o}"),
            "others could write to this directory: it is its owner's alone from now on (mode 0700)"
        );
        Ok(())
    }

    /// Takes the object away from everybody but its owner.
    pub(super) fn make_private(&self, operation: Operation, name: &ObjectName) -> Result<(), StoreError> {
        let file = std::fs::File::from(self.fresh(operation, name)?.0);
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
            .and_then(|()| file.sync_all())
            .map_err(|error| self.failed(operation, name.as_str(), error))
    }

    /// Removes the directory `path` and those below it, as far as nothing is in them but, further below, what killed writers had
    /// not completed.
    pub(super) fn remove_empty(&self, path: &str) -> io::Result<()> {
        let below = format!("{path}/");
        let mut durable = self.durable.lock();
        let known: Vec<String> =
            durable.iter().map(|(at, ())| at.clone()).filter(|at| at == path || at.starts_with(&below)).collect();
        for at in known {
            durable.pop(&at);
        }
        drop(durable);
        let (parent, last) = self.parent(path)?;
        remove_empty(parent.as_fd(), last, DEPTH_MAX)
    }

    /// Syncs the directory above the root, unless the root is that of a filesystem.
    fn settle_root(&self) -> io::Result<()> {
        let Some(above) = self.root.parent() else { return Ok(()) };
        if std::fs::metadata(above)?.dev() != self.device {
            return Ok(());
        }
        match std::fs::File::open(above) {
            Ok(above) => above.sync_all(),
            // A directory may be entered and not be read.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                sys::sync_filesystem(self.directory.as_fd())
            }
            Err(error) => Err(error),
        }
    }

    /// Where it is, without symbolic links.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory as this machine tells it from others until it starts anew, in words.
    pub(super) fn identity(&self) -> Option<String> {
        let kind = sys::filesystem(self.directory.as_fd()).ok()?;
        Some(format!("{} {} {kind:x}", self.device, self.inode))
    }

    /// The range, if it is in memory and its file open, and what is to be asked for then. `None` says nothing about the object.
    pub(super) fn range_at_hand(&self, name: &ObjectName, range: &Range<u64>) -> Option<(Bytes, Option<Onward>)> {
        let (opened, size) = self.opened(name)?;
        let bytes = opened.at_hand(range)?;
        let next = opened.ahead.going_on(size);
        Some((bytes, next.map(|range| Onward { opened, range })))
    }

    /// Exactly `range`.
    pub(super) fn range(&self, name: &ObjectName, range: &Range<u64>) -> Result<Bytes, StoreError> {
        let operation = Operation::Range;
        let (opened, size) = self.file(operation, name)?;
        if range.end > size {
            return Err(truncated(operation, name, range.end, size));
        }
        // That its file was not open says nothing of where it is; or it has come meanwhile.
        if let Some(bytes) = opened.at_hand(range) {
            return Ok(bytes);
        }
        opened.ahead.note(range);
        if let Some(range) = opened.ahead.wanted(size) {
            Onward { opened: Arc::clone(&opened), range }.ask();
        }
        read(operation, name, &opened.file, range)
    }

    /// The last `bytes` bytes, or all, and the whole size.
    pub(super) fn tail(&self, name: &ObjectName, bytes: u64) -> Result<(Bytes, u64), StoreError> {
        let (opened, size) = self.file(Operation::Tail, name)?;
        let tail = read(Operation::Tail, name, &opened.file, &(size.saturating_sub(bytes)..size))?;
        Ok((tail, size))
    }

    /// The whole object, unless it is larger than `most` bytes. Its file is not kept open: what is read whole
    /// is read once.
    pub(super) fn whole(&self, name: &ObjectName, most: u64) -> Result<Bytes, StoreError> {
        let operation = Operation::Get;
        let (file, size) = self.fresh(operation, name)?;
        if size > most {
            return Err(StoreError::Oversized { operation, object: name.to_string(), most, actual: size });
        }
        if self.doubtful.lock().contains(name) {
            self.settle(operation, name)?;
        }
        let above = name.as_str().rsplit_once('/').map_or("", |(above, _)| above);
        self.read.lock().insert(above.to_owned());
        read(operation, name, &file, &(0..size))
    }

    /// The object's size in bytes.
    pub(super) fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        let operation = Operation::Size;
        let found = self.parent(name.as_str()).and_then(|(parent, last)| sys::status_of(parent.as_fd(), last));
        let status = found.map_err(|error| self.failed(operation, name.as_str(), error))?;
        regular(operation, name, status).map(|status| status.bytes)
    }

    /// The objects whose names begin with `prefix` and come behind `after`, in order, at most `most`.
    /// Files that are still being written, and whatever else is no plain file, are passed over.
    pub(super) fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectName>,
        most: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        let (above, _) = prefix.rsplit_once('/').unwrap_or(("", prefix));
        let mut walk = Walk { prefix, after: after.map_or("", ObjectName::as_str), most, found: Vec::new() };
        let start = match self.directory(above) {
            Ok(start) => start,
            // Directories come with their first object.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                self.check_root()?;
                return Ok(Vec::new());
            }
            Err(error) => return Err(self.failed(Operation::List, prefix, error)),
        };
        let at = if above.is_empty() { String::new() } else { format!("{above}/") };
        walk.enter(start, &at).map_err(|(place, error)| self.failed(Operation::List, &place, error))?;
        Ok(walk.found)
    }

    /// Makes and syncs the directories above `name`, and syncs those that were read from; to be called before anything is
    /// written there.
    pub(super) fn prepare(&self, operation: Operation, name: &ObjectName) -> Result<(), StoreError> {
        // The object goes in by path, so the path must still lead here.
        self.check_root()?;
        self.settle_read().map_err(|(above, error)| self.failed(operation, &above, error))?;
        let Some((above, _)) = name.as_str().rsplit_once('/') else { return Ok(()) };
        if self.durable.lock().get(above).is_some() {
            return Ok(());
        }
        let make = || -> io::Result<()> {
            let mut parent = self.directory("")?;
            for part in above.split('/') {
                sys::make_directory(parent.as_fd(), part)?;
                let child = sys::open_directory(parent.as_fd(), part)?;
                std::fs::File::from(parent).sync_all()?;
                parent = child;
            }
            Ok(())
        };
        make().map_err(|error| self.failed(operation, name.as_str(), error))?;
        self.durable.lock().put(above.to_owned(), ());
        Ok(())
    }

    /// Syncs the directories that were read from; an error comes with the place that it is about.
    fn settle_read(&self) -> Result<(), (String, io::Error)> {
        // Whoever comes while another syncs waits for that, too.
        let _turn = self.settling.lock();
        let read = std::mem::take(&mut *self.read.lock());
        for above in &read {
            let synced = self.directory(above).and_then(|directory| std::fs::File::from(directory).sync_all());
            if let Err(error) = synced {
                self.read.lock().extend(read.iter().cloned());
                return Err((above.clone(), error));
            }
        }
        Ok(())
    }

    /// Syncs the directory that holds `name`: another writer may have made the name visible and not yet
    /// durable.
    pub(super) fn settle(&self, operation: Operation, name: &ObjectName) -> Result<(), StoreError> {
        self.parent(name.as_str())
            .and_then(|(parent, _)| std::fs::File::from(parent).sync_all())
            .map_err(|error| self.failed(operation, name.as_str(), error))?;
        self.doubtful.lock().pop(name);
        Ok(())
    }

    /// Notes that a creation of `name` failed, and may have happened all the same.
    pub(super) fn doubt(&self, name: &ObjectName) {
        self.doubtful.lock().put(name.clone(), ());
    }

    /// Removes what a failed upload of `name` left behind. Only for names that nobody else writes.
    pub(super) fn sweep(&self, name: &ObjectName) -> io::Result<()> {
        let (parent, last) = self.parent(name.as_str())?;
        for found in sys::names(sys::open_directory(parent.as_fd(), ".")?)? {
            if found.text.strip_prefix(last).is_some_and(|rest| rest.starts_with('#')) && is_staged(&found.text) {
                sys::remove_file(parent.as_fd(), &found.text)?;
            }
        }
        Ok(())
    }

    /// How many files there are of objects that were never completed, and their bytes.
    pub(super) fn unfinished(&self) -> io::Result<(u64, u64)> {
        let (mut files, mut bytes) = (0, 0u64);
        let mut left = vec![(self.directory("")?, 0)];
        while let Some((directory, depth)) = left.pop() {
            let parent = sys::open_directory(directory.as_fd(), ".")?;
            for name in sys::names(directory)? {
                // Of what vanishes meanwhile there is nothing to count.
                let Some(status) = present(sys::status_of(parent.as_fd(), &name.text))? else { continue };
                match status.kind {
                    Kind::File if is_staged(&name.text) => {
                        files += 1;
                        bytes = bytes.saturating_add(status.bytes);
                    }
                    Kind::Directory if depth < DEPTH_MAX && (depth, name.text.as_str()) != (0, "lost+found") => {
                        if let Some(child) = present(sys::open_directory(parent.as_fd(), &name.text))? {
                            left.push((child, depth + 1));
                        }
                    }
                    Kind::File | Kind::Directory | Kind::Other => {}
                }
            }
        }
        Ok((files, bytes))
    }

    /// Closes the file of an object that is to be deleted.
    pub(super) fn forget(&self, name: &ObjectName) {
        // Taken out under the lock, closed after it.
        let closed = self.open.lock().pop(name);
        drop(closed);
    }

    /// The open file of `name` and its size, if it still has a name.
    fn opened(&self, name: &ObjectName) -> Option<(Arc<Opened>, u64)> {
        let opened = self.open.lock().get(name).cloned()?;
        match sys::status(opened.file.as_fd()) {
            Ok(status) if status.links > 0 => Some((opened, status.bytes)),
            _ => {
                self.forget(name);
                None
            }
        }
    }

    fn file(&self, operation: Operation, name: &ObjectName) -> Result<(Arc<Opened>, u64), StoreError> {
        if let Some(opened) = self.opened(name) {
            return Ok(opened);
        }
        let (file, size) = self.fresh(operation, name)?;
        let opened = Arc::new(Opened { file, ahead: Ahead::default() });
        let closed = self.open.lock().push(name.clone(), Arc::clone(&opened));
        drop(closed);
        Ok((opened, size))
    }

    fn fresh(&self, operation: Operation, name: &ObjectName) -> Result<(OwnedFd, u64), StoreError> {
        let opened = self.parent(name.as_str()).and_then(|(parent, last)| {
            let file = sys::open_file(parent.as_fd(), last)?;
            let status = sys::status(file.as_fd())?;
            Ok((file, status))
        });
        let (file, status) = opened.map_err(|error| self.failed(operation, name.as_str(), error))?;
        let status = regular(operation, name, status)?;
        Ok((file, status.bytes))
    }

    /// The directory above `name`, and the last component.
    fn parent<'n>(&self, name: &'n str) -> io::Result<(OwnedFd, &'n str)> {
        let (above, last) = name.rsplit_once('/').unwrap_or(("", name));
        Ok((self.directory(above)?, last))
    }

    /// Opens a directory. Never a duplicate of a descriptor that others have: they would share its place in a
    /// listing.
    fn directory(&self, path: &str) -> io::Result<OwnedFd> {
        let mut parts = path.split('/');
        let first = parts.next().filter(|part| !part.is_empty()).unwrap_or(".");
        let mut directory = sys::open_directory(self.directory.as_fd(), first)?;
        for part in parts {
            directory = sys::open_directory(directory.as_fd(), part)?;
        }
        Ok(directory)
    }

    fn failed(&self, operation: Operation, object: &str, error: io::Error) -> StoreError {
        match self.check_root() {
            Ok(()) => StoreError::io(operation, object, error),
            Err(gone) => gone,
        }
    }

    fn check_root(&self) -> Result<(), StoreError> {
        match std::fs::metadata(&self.root) {
            Ok(now) if (now.dev(), now.ino()) == (self.device, self.inode) => Ok(()),
            _ => Err(StoreError::RootGone { root: self.root.clone() }),
        }
    }
}

/// A listing under way: names are met in order, so it can stop.
struct Walk<'a> {
    prefix: &'a str,
    after: &'a str,
    most: Option<usize>,
    found: Vec<Listed>,
}

impl Walk<'_> {
    fn full(&self) -> bool {
        self.most.is_some_and(|most| self.found.len() >= most)
    }

    /// Lists `directory`, whose names begin with `at`; an error comes with the place that it is about.
    fn enter(&mut self, directory: OwnedFd, at: &str) -> Result<(), (String, io::Error)> {
        let here = |error| (at.to_owned(), error);
        let parent = sys::open_directory(directory.as_fd(), ".").map_err(here)?;
        // What names begin with here, and come behind: of a long log few are wanted, and no other is worth a copy.
        let prefix = self.prefix.strip_prefix(at).unwrap_or_default();
        let after = match self.after.strip_prefix(at) {
            Some(after) => after,
            None if at > self.after => "",
            None => return Ok(()),
        };
        let mut children = Vec::new();
        for name in sys::names(directory).map_err(here)? {
            let mut text = name.text;
            let kind = match name.kind {
                Some(kind) => kind,
                None => match present(sys::status_of(parent.as_fd(), &text)).map_err(|e| (format!("{at}{text}"), e))? {
                    Some(status) => status.kind,
                    None => continue,
                },
            };
            match kind {
                Kind::File if text.starts_with(prefix) && *text > *after && !is_staged(&text) => {
                    children.push((text, false));
                }
                Kind::Directory if at.matches('/').count() < DEPTH_MAX && !(at.is_empty() && text == "lost+found") => {
                    // With its `/`, so that it sorts where its objects' names do.
                    text.push('/');
                    let wanted = text.starts_with(prefix) || prefix.starts_with(&text);
                    if wanted && (*text > *after || after.starts_with(&text)) {
                        children.push((text, true));
                    }
                }
                Kind::File | Kind::Directory | Kind::Other => {}
            }
        }
        children.sort_unstable();
        for (name, is_directory) in children {
            if self.full() {
                break;
            }
            let full = format!("{at}{name}");
            if is_directory {
                let child = sys::open_directory(parent.as_fd(), name.trim_end_matches('/'));
                if let Some(child) = present(child).map_err(|error| (full.clone(), error))? {
                    self.enter(child, &full)?;
                }
            } else if let Some(status) = self.stat(parent.as_fd(), &name, &full)? {
                self.found.push(Listed { name: ObjectName::listed(&full), bytes: status.bytes });
            }
        }
        Ok(())
    }

    fn stat(&self, parent: BorrowedFd<'_>, name: &str, full: &str) -> Result<Option<sys::Status>, (String, io::Error)> {
        let status = present(sys::status_of(parent, name)).map_err(|error| (full.to_owned(), error))?;
        Ok(status.filter(|status| status.kind == Kind::File))
    }
}

/// Removes `name` from `parent` if nothing is in it but such directories, and in those what killed writers had not completed.
fn remove_empty(parent: BorrowedFd<'_>, name: &str, depth: usize) -> io::Result<()> {
    let Some(directory) = present(sys::open_directory(parent, name))? else { return Ok(()) };
    let here = sys::open_directory(directory.as_fd(), ".")?;
    if depth > 0 {
        for child in sys::names(directory)? {
            match child.kind {
                Some(Kind::Directory) => remove_empty(here.as_fd(), &child.text, depth - 1)?,
                Some(Kind::File) if depth < DEPTH_MAX && is_staged(&child.text) => {
                    present(sys::remove_file(here.as_fd(), &child.text))?;
                }
                _ => {}
            }
        }
    }
    match sys::remove_directory(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => present(removed).map(drop),
    }
}

/// Whether what is called `name` in the directory of a store may be there before the store is.
fn belongs_to_nobody(root: &Path, name: &std::ffi::OsStr) -> bool {
    let is_trial = |name: &str| {
        let whole = if is_staged(name) { name.split('#').next().unwrap_or(name) } else { name };
        Object::parse(&ObjectName::listed(&format!("{PROBES_PREFIX}{whole}"))).is_some()
    };
    if name == PROBES_PREFIX.trim_end_matches('/') {
        let left = std::fs::read_dir(root.join(name));
        return left.is_ok_and(|mut left| {
            left.all(|entry| entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(is_trial)))
        });
    }
    name == "lost+found"
}

/// `None` for what has vanished since its name was read.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `object_store` would write an object under this name before it is complete: `<name>#<digits>`.
fn is_staged(name: &str) -> bool {
    name.split_once('#').is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

fn regular(operation: Operation, name: &ObjectName, status: sys::Status) -> Result<sys::Status, StoreError> {
    let found = match status.kind {
        Kind::File => return Ok(status),
        Kind::Directory => "a directory",
        Kind::Other => "a link or a special file",
    };
    Err(StoreError::Irregular { operation, object: name.to_string(), found })
}

fn read(operation: Operation, name: &ObjectName, file: &OwnedFd, range: &Range<u64>) -> Result<Bytes, StoreError> {
    let failed = |error| StoreError::Failed {
        operation,
        object: name.to_string(),
        class: crate::base::Class::of_io(&error),
        source: Box::new(error),
    };
    let bytes = usize::try_from(range.end - range.start).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
    let mut buffer = Vec::new();
    sys::read_at(file.as_fd(), &mut buffer, bytes, range.start, false).map_err(failed)?;
    if buffer.len() < bytes {
        return Err(truncated(operation, name, range.end, range.start + buffer.len() as u64));
    }
    Ok(Bytes::from(buffer))
}

fn truncated(operation: Operation, name: &ObjectName, expected: u64, actual: u64) -> StoreError {
    StoreError::Truncated { operation, object: name.to_string(), expected, actual }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubtful_object_is_synced_when_it_is_found_and_not_before() {
        let guard = tempfile::tempdir().unwrap();
        let local = LocalDir::create(&guard.path().join("store")).unwrap();
        let name = ObjectName::listed("object");
        let doubtful = || local.doubtful.lock().contains(&name);
        local.doubt(&name);
        assert!(local.whole(&name, 9).is_err());
        assert!(doubtful(), "the creation may still happen");
        std::fs::write(guard.path().join("store/object"), "late").unwrap();
        assert_eq!(local.whole(&name, 9).unwrap(), "late");
        assert!(!doubtful());
    }
}
