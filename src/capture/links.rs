//! Which names of the source lead to one inode, and under which identity the point keeps it.
//!
//! Memory follows the inodes with several names of which some have yet to be met: one that all its
//! names have been met of is forgotten. The parent's identities are kept, found by inode number, so
//! that an unchanged link changes nothing. Inode numbers of two filesystems may be equal: the second
//! to come gets a new identity.

use std::collections::{HashMap, HashSet};

use super::identities::Identities;
use super::stat::{Identity, Stat};
use crate::format::FileId;

/// The hard links of a capture.
#[derive(Debug, Default)]
pub(super) struct Links {
    met: HashMap<Identity, Met>,
    /// The parent's identities by inode number, as long as nobody has claimed them.
    parent: HashMap<u64, FileId>,
    claimed: HashSet<FileId>,
}

#[derive(Debug, Clone, Copy)]
struct Met {
    file: FileId,
    names_left: u32,
    read: bool,
}

/// What is known of an inode when one of its names is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// For the first time; the parent may have it.
    First {
        /// Its identity.
        file: FileId,
        /// Whether the identity is the parent's.
        in_parent: bool,
    },
    /// Before.
    Again {
        /// Its identity.
        file: FileId,
        /// Whether its record is read in this capture.
        read: bool,
    },
}

impl Links {
    /// With the parent's identities.
    pub(super) fn new(parent: HashMap<u64, FileId>) -> Links {
        Links { met: HashMap::new(), parent, claimed: HashSet::new() }
    }

    /// A name of the inode that `stat` tells of.
    pub(super) fn see(&mut self, stat: &Stat, identities: &Identities) -> Seen {
        if let Some(met) = self.met.get_mut(&stat.identity) {
            let seen = Seen::Again { file: met.file, read: met.read };
            met.names_left -= 1;
            if met.names_left == 0 {
                self.met.remove(&stat.identity);
            }
            return seen;
        }
        match self.parent.remove(&stat.identity.inode) {
            Some(file) => {
                self.claimed.insert(file);
                Seen::First { file, in_parent: true }
            }
            None => Seen::First { file: identities.fresh(), in_parent: false },
        }
    }

    /// Remembers an inode that was met for the first time, for its other names.
    pub(super) fn remember(&mut self, stat: &Stat, file: FileId, read: bool) {
        let names_left = stat.meta.links.saturating_sub(1);
        if names_left > 0 {
            self.met.insert(stat.identity, Met { file, names_left, read });
        }
    }

    /// Whether a name led to this identity of the parent; if none did, its record goes.
    pub(super) fn is_claimed(&self, file: FileId) -> bool {
        self.claimed.contains(&file)
    }
}

#[cfg(test)]
mod tests {
    use super::super::stat::Kind;
    use super::*;
    use crate::format::entry::Meta;

    fn stat(device: u32, inode: u64, links: u32) -> Stat {
        let meta = Meta { links, inode, ..Meta::default() };
        Stat { kind: Kind::File, identity: Identity { device: (8, device), inode }, node: (0, 0), meta }
    }

    #[test]
    fn names_of_one_inode_share_an_identity_and_the_parents_is_kept() {
        let identities = Identities::from(FileId(100));
        let mut links = Links::new(HashMap::from([(5, FileId(7)), (6, FileId(8))]));
        let five = stat(1, 5, 3);
        assert_eq!(links.see(&five, &identities), Seen::First { file: FileId(7), in_parent: true });
        links.remember(&five, FileId(7), true);
        // The same number on another filesystem is another inode.
        let other = stat(2, 5, 2);
        assert_eq!(links.see(&other, &identities), Seen::First { file: FileId(100), in_parent: false });
        links.remember(&other, FileId(100), false);
        assert_eq!(links.see(&five, &identities), Seen::Again { file: FileId(7), read: true });
        assert_eq!(links.see(&five, &identities), Seen::Again { file: FileId(7), read: true });
        assert_eq!(links.see(&other, &identities), Seen::Again { file: FileId(100), read: false });
        assert!(links.met.is_empty(), "all names met");
        assert!(links.is_claimed(FileId(7)) && !links.is_claimed(FileId(8)) && !links.is_claimed(FileId(100)));
        assert_eq!(identities.next(), FileId(101));
    }
}
