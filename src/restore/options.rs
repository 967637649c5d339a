//! How a restore is wanted, and what the caller may have of it.

use crate::base::sys::{effective_gid, effective_uid};
use crate::format::entry::Meta;

/// How a restore is wanted. [`Options::default`] is what the caller may safely have: root gets owners,
/// set-id bits and devices as they were, anybody else gets their own files without set-id bits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Restore into a directory that is not empty; what has the same names is replaced, all else is left alone.
    pub force: bool,
    /// Count only, change nothing.
    pub dry_run: bool,
    /// Read back what was written and compare it with the point.
    pub verify: bool,
    /// Set owner and group; none: if the caller is root.
    pub owner: Option<bool>,
    /// Keep set-id bits and file capabilities of files whose owner is set; none: if the caller is root.
    pub set_id: Option<bool>,
    /// Leave out device nodes.
    pub no_devices: bool,
    /// Leave out device nodes, FIFOs and sockets.
    pub no_special: bool,
    /// Threads that decode and write; none lets the machine's size decide.
    pub workers: Option<usize>,
}

/// What the options come to for this caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    /// Owner and group are set.
    pub(super) owner: bool,
    /// Set-id bits and capabilities are kept.
    pub(super) set_id: bool,
    /// Attributes that only the system's administrator may set are set.
    pub(super) system_attributes: bool,
    /// Device nodes are made.
    pub(super) devices: bool,
    /// FIFOs and sockets are made.
    pub(super) special: bool,
    uid: u32,
    gid: u32,
}

impl Policy {
    /// Of this process.
    pub(super) fn of_process(options: &Options) -> Policy {
        Policy::of(options, effective_uid(), effective_gid())
    }

    fn of(options: &Options, uid: u32, gid: u32) -> Policy {
        let root = uid == 0;
        Policy {
            owner: options.owner.unwrap_or(root),
            set_id: options.set_id.unwrap_or(root),
            system_attributes: root,
            devices: !options.no_devices && !options.no_special,
            special: !options.no_special,
            uid,
            gid,
        }
    }

    /// Whether a file will belong to whom it belonged at the source.
    pub(super) fn keeps_owner(&self, meta: &Meta) -> bool {
        self.owner || (meta.uid == self.uid && meta.gid == self.gid)
    }

    /// The permissions that a file gets that belongs to whom it belonged, or does not. Set-id bits would lend
    /// the wrong owner's rights, and of files are kept on request only; of a directory they say whose new files are.
    pub(super) fn permissions(&self, meta: &Meta, directory: bool, owned: bool) -> u32 {
        let all = u32::from(meta.permissions);
        if owned && (directory || self.set_id) { all } else { all & !0o6000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(permissions: u16, uid: u32) -> Meta {
        Meta { permissions, uid, gid: uid, ..Meta::default() }
    }

    #[test]
    fn root_restores_what_was_there_unless_told_otherwise() {
        let policy = Policy::of(&Options::default(), 0, 0);
        assert!(policy.owner && policy.set_id && policy.devices && policy.special && policy.system_attributes);
        assert_eq!(policy.permissions(&meta(0o6755, 1000), false, true), 0o6755);
        // A set-id bit without its owner would make the program run as root.
        let policy = Policy::of(&Options { owner: Some(false), ..Options::default() }, 0, 0);
        let file = meta(0o4755, 1000);
        assert!(!policy.keeps_owner(&file));
        assert_eq!(policy.permissions(&file, false, policy.keeps_owner(&file)), 0o755);
    }

    #[test]
    fn others_get_no_set_id_bits_unless_they_ask_for_their_own() {
        let policy = Policy::of(&Options::default(), 1000, 1000);
        assert!(!policy.owner && !policy.system_attributes);
        assert_eq!(policy.permissions(&meta(0o4755, 1000), false, true), 0o755);
        assert_eq!(policy.permissions(&meta(0o2775, 1000), true, true), 0o2775);
        assert_eq!(policy.permissions(&meta(0o3775, 7), true, false), 0o1775);
        let asked = Policy::of(&Options { set_id: Some(true), ..Options::default() }, 1000, 1000);
        assert!(asked.keeps_owner(&meta(0o4755, 1000)) && !asked.keeps_owner(&meta(0o4755, 7)));
        assert_eq!(asked.permissions(&meta(0o4755, 1000), false, true), 0o4755);
    }

    #[test]
    fn special_files_can_be_left_out() {
        let policy = Policy::of(&Options { no_devices: true, ..Options::default() }, 0, 0);
        assert!(!policy.devices && policy.special);
        let policy = Policy::of(&Options { no_special: true, ..Options::default() }, 0, 0);
        assert!(!policy.devices && !policy.special);
    }
}
