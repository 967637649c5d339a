//! Extended attributes of an inode: user attributes, ACLs, file capabilities, security labels, all
//! that the kernel lists for whoever captures.

use std::io;

use super::sys::{self, Attributes};
use crate::base::limits;
use crate::format::entry::Xattr;

/// All attributes, sorted by name, and the first failure to read one. An attribute that is removed
/// between the listing and the reading was not there.
pub(super) fn read(of: Attributes<'_>) -> (Vec<Xattr>, Option<io::Error>) {
    let names = match sys::list_attributes(of) {
        Ok(names) => names,
        Err(error) => return (Vec::new(), Some(error).filter(|error| !is_absence(error))),
    };
    let mut xattrs = Vec::new();
    let mut failed = None;
    let mut bytes = 0;
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match sys::c_name(name).and_then(|c_name| sys::attribute(of, &c_name)) {
            Ok(value) if bytes + name.len() + value.len() > limits::ENTRY_XATTR_BYTES_MAX => {
                failed = failed.or_else(|| Some(io::Error::from_raw_os_error(libc::E2BIG)));
            }
            Ok(value) => {
                bytes += name.len() + value.len();
                xattrs.push(Xattr { name: name.to_vec(), value });
            }
            Err(error) if is_absence(&error) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    xattrs.sort_by(|a, b| a.name.cmp(&b.name));
    // A filesystem may list a name twice.
    xattrs.dedup_by(|a, b| a.name == b.name);
    (xattrs, failed)
}

/// Errors that say "there is none".
fn is_absence(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP | libc::ENOSYS))
}
