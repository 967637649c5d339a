//! The open directories from the target down to where the restore is.
//!
//! Only the last [`OPEN_MAX`] are kept open, so a path may be of any depth. One that was closed is
//! found again through `..` of the one below, and must then be the same inode.

use std::io;
use std::sync::Arc;

use super::directory::{Directory, Identity};

/// Directories of the current path that are held open.
const OPEN_MAX: usize = 48;

/// The open directories from the target down.
#[derive(Debug)]
pub(super) struct Trail {
    root: Arc<Directory>,
    below: Vec<(Identity, Option<Arc<Directory>>)>,
}

impl Trail {
    /// At the target.
    pub(super) fn new(root: Arc<Directory>) -> Trail {
        Trail { root, below: Vec::new() }
    }

    /// Where the restore is.
    pub(super) fn here(&self) -> &Arc<Directory> {
        // The last one is always open: `leave` sees to it.
        self.below.last().and_then(|(_, directory)| directory.as_ref()).unwrap_or(&self.root)
    }

    /// Goes down.
    pub(super) fn enter(&mut self, directory: Arc<Directory>) {
        self.below.push((directory.identity(), Some(directory)));
        if let Some(far) = self.below.len().checked_sub(OPEN_MAX + 1)
            && let Some((_, directory)) = self.below.get_mut(far)
        {
            drop(directory.take());
        }
    }

    /// Goes back up.
    ///
    /// # Errors
    /// When the directory above was closed and cannot be found any more.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        let Some((_, Some(left))) = self.below.pop() else { return Ok(()) };
        if let Some((identity, above @ None)) = self.below.last_mut() {
            *above = Some(Arc::new(left.parent(*identity)?));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::directory::Name;
    use super::*;

    #[test]
    fn a_path_of_any_depth_is_walked_down_and_up() {
        let scratch = tempfile::tempdir().unwrap();
        let root = Arc::new(Directory::at(scratch.path()).unwrap());
        let mut trail = Trail::new(Arc::clone(&root));
        let name = Name::new(&[b'd'; 200]).unwrap();
        let mut identities = vec![root.identity()];
        for _ in 0..3 * OPEN_MAX {
            let below = Arc::new(trail.here().make_dir(&name).unwrap());
            identities.push(below.identity());
            trail.enter(below);
        }
        assert!(trail.below.iter().filter(|(_, directory)| directory.is_some()).count() <= OPEN_MAX);
        while let Some(identity) = identities.pop() {
            assert_eq!(trail.here().identity(), identity);
            trail.leave().unwrap();
        }
    }

    #[test]
    fn a_directory_that_was_moved_away_is_noticed() {
        let scratch = tempfile::tempdir().unwrap();
        let root = Arc::new(Directory::at(scratch.path()).unwrap());
        let mut trail = Trail::new(Arc::clone(&root));
        let name = Name::new(b"d").unwrap();
        for _ in 0..OPEN_MAX + 2 {
            let below = Arc::new(trail.here().make_dir(&name).unwrap());
            trail.enter(below);
        }
        // The third of them now lies in the root, and the second one is not found through it.
        std::fs::rename(scratch.path().join("d/d/d"), scratch.path().join("moved")).unwrap();
        let error = std::iter::repeat_with(|| trail.leave()).take(OPEN_MAX + 2).find_map(Result::err).unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
    }
}
