//! Where a mount goes: finds the real place, clears a dead mount of ours that still lies there, and
//! refuses places where a mount would hide or devour something.
//!
//! A dead mount answers ENOTCONN to everything, also to the question what its real path is. So paths are
//! resolved by their parent, and the table of mounts says whose it is. Only mounts of ours are cleared.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::detach::detach;
use super::error::MountError;
use super::mountinfo;

/// Dead mounts that may lie on top of each other.
const LAYERS_MAX: usize = 16;
/// Symbolic links on the way to a mountpoint, as the kernel has it.
const LINKS_MAX: usize = 40;

/// Makes sure that a mount can be made at `mountpoint`, and says where that really is.
/// `repository` is the directory of a local repository, if that is what the mount will show.
///
/// # Errors
/// [`MountError`], when the place will not do.
pub fn prepare(mountpoint: &Path, repository: Option<&Path>, nonempty: bool) -> Result<PathBuf, MountError> {
    let wrong = |cause| MountError::Place { path: mountpoint.to_owned(), cause };
    let place = resolve(mountpoint).map_err(wrong)?;
    clear_dead(&place)?;
    check_free(&place)?;
    let metadata = std::fs::metadata(&place).map_err(wrong)?;
    if !metadata.is_dir() {
        return Err(MountError::NotDirectory { path: place });
    }
    if let Some(repository) = repository.and_then(|repository| repository.canonicalize().ok()) {
        if encloses(&repository, &place) {
            return Err(MountError::InsideRepository { path: place, repository });
        }
        if encloses(&place, &repository) {
            return Err(MountError::HidesRepository { path: place, repository });
        }
    }
    if !nonempty && std::fs::read_dir(&place).map_err(wrong)?.next().is_some() {
        return Err(MountError::NotEmpty { path: place });
    }
    Ok(place)
}

/// The canonical path of `path`, also if a dead mount lies there.
pub(crate) fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    for _ in 0..LINKS_MAX {
        match path.canonicalize() {
            Err(error) if is_dead(&error) => {}
            other => return other,
        }
        let (Some(parent), Some(Component::Normal(name))) = (path.parent(), path.components().next_back()) else {
            return path.canonicalize();
        };
        let real = parent.canonicalize()?.join::<&OsStr>(name);
        match std::fs::read_link(&real) {
            Ok(target) => path = real.parent().unwrap_or(&real).join(target),
            Err(_) => return Ok(real),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

/// Whether an error is what a mount without a server answers.
pub(crate) fn is_dead(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

/// Takes away dead mounts of ours that lie at `place`, on top of each other.
pub(crate) fn clear_dead(place: &Path) -> Result<(), MountError> {
    let wrong = |cause| MountError::Place { path: place.to_owned(), cause };
    for _ in 0..LAYERS_MAX {
        let Some(entry) = mountinfo::topmost(place).map_err(wrong)? else { return Ok(()) };
        if !entry.is_ours() || !std::fs::metadata(place).is_err_and(|error| is_dead(&error)) {
            return Ok(());
        }
        tracing::info!(place = %place.display(), "clearing a mount whose server is gone");
        detach(place, entry.device)?;
    }
    Err(wrong(io::Error::from_raw_os_error(libc::ELOOP)))
}

/// Refuses a place where a mount of ours is alive, or another's is dead.
fn check_free(place: &Path) -> Result<(), MountError> {
    let wrong = |cause| MountError::Place { path: place.to_owned(), cause };
    match mountinfo::topmost(place).map_err(wrong)? {
        Some(entry) if entry.is_ours() => {
            Err(MountError::Mounted { path: place.to_owned(), source_name: entry.source })
        }
        Some(entry) if std::fs::metadata(place).is_err_and(|error| is_dead(&error)) => {
            Err(MountError::DeadMount { path: place.to_owned(), filesystem: entry.filesystem })
        }
        _ => Ok(()),
    }
}

/// Whether `inner` is `outer` or lies in it, by name or, through bind mounts, by identity.
fn encloses(outer: &Path, inner: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let outer_identity = identity(outer);
    inner.ancestors().any(|above| above == outer || (outer_identity.is_some() && identity(above) == outer_identity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_directory_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        let place = dir.path().join("place");
        std::fs::create_dir(&place).unwrap();
        std::os::unix::fs::symlink("place", &link).unwrap();
        assert_eq!(prepare(&link, None, false).unwrap(), place.canonicalize().unwrap());
        assert_eq!(prepare(&place.join("../place/."), None, false).unwrap(), place.canonicalize().unwrap());
    }

    #[test]
    fn other_places_are_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(path("repo/data")).unwrap();
        std::fs::create_dir_all(path("repo/empty")).unwrap();
        std::fs::write(path("file"), b"").unwrap();
        let refused = |place: &str, repository: Option<&Path>| prepare(&path(place), repository, false).unwrap_err();
        assert!(matches!(refused("file", None), MountError::NotDirectory { .. }));
        assert!(matches!(refused("repo", None), MountError::NotEmpty { .. }));
        assert!(prepare(&path("repo"), None, true).is_ok());
        assert!(matches!(refused("missing", None), MountError::Place { .. }));
        let repository = path("repo");
        assert!(matches!(refused("repo/empty", Some(&repository)), MountError::InsideRepository { .. }));
        assert!(matches!(refused("repo", Some(&repository)), MountError::InsideRepository { .. }));
        assert!(matches!(refused(".", Some(&repository)), MountError::HidesRepository { .. }));
    }
}
