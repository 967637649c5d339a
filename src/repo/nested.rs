//! Keeps repositories from lying inside one another: what collects or checks the outer one would find a stranger's objects, and
//! whoever deletes it deletes both.
//!
//! A repository is found by its marker, in the places above, and below by any object that no repository begins with. Two that are
//! made at the same moment do not see one another.

use crate::base::{Class, Classed, limits};
use crate::format::marker::Marker;
use crate::format::object::{Object, ObjectName, PROBES_PREFIX};
use crate::store::Store;

use super::RepoError;

/// Names in one listing.
const LISTED: usize = 1000;

/// Whether a repository is behind `store`. What cannot be read or understood is none: above a place there may be anything.
///
/// # Errors
/// When a store over a network does not answer: then nothing is known.
pub fn is_repository(store: &Store) -> Result<bool, RepoError> {
    match store.get(&Object::Marker.name(), limits::LOG_ENTRY_BYTES_MAX as u64) {
        Ok(bytes) => Ok(Marker::decode(&bytes).is_ok()),
        Err(error) if store.is_remote() && matches!(error.class(), Class::Transient | Class::Timeout) => {
            Err(RepoError::store("look for a repository above this place")(error))
        }
        Err(_) => Ok(false),
    }
}

/// An object behind `store` that is there before a repository is made, and that no attempt to make one leaves; none as well
/// when there is a repository.
///
/// # Errors
/// The store.
pub fn stranger(store: &Store) -> Result<Option<ObjectName>, RepoError> {
    let (mut found, mut after) = (None, None);
    loop {
        let listed = store.list("", after.as_ref(), Some(LISTED)).map_err(RepoError::store("look what is there"))?;
        for name in listed.iter().map(|listed| &listed.name) {
            match Object::parse(name) {
                Some(Object::Marker) => return Ok(None),
                Some(
                    Object::Slot(..)
                    | Object::Removal(..)
                    | Object::Probe(_)
                    | Object::Lease(..)
                    | Object::SingleWriter,
                ) => {}
                None if name.as_str().starts_with(PROBES_PREFIX) => {}
                Some(Object::Entry(..) | Object::Checkpoint(..) | Object::Pack(..)) | None => {
                    found.get_or_insert_with(|| name.clone());
                }
            }
        }
        // The marker's name sorts before those of all other objects of ours.
        match listed.last().filter(|_| found.is_none() && listed.len() >= LISTED) {
            Some(last) => after = Some(last.name.clone()),
            None => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Env, Instant};
    use crate::format::ids::Nonce;
    use crate::repo::Repo;

    #[test]
    fn what_a_repository_does_not_begin_with_is_found() {
        let store = Store::memory();
        let name = ObjectName::listed;
        assert_eq!(stranger(&store).unwrap(), None);
        for number in 0..1200 {
            store.create(&name(&format!("probe/{}/many/{number}", Nonce([1; 16]))), b"x".to_vec()).unwrap();
        }
        store.create(&Object::SingleWriter.name(), b"x".to_vec()).unwrap();
        assert_eq!(stranger(&store).unwrap(), None);
        store.create(&name("zebra/amberfs"), b"x".to_vec()).unwrap();
        assert_eq!(stranger(&store).unwrap(), Some(name("zebra/amberfs")));
        store.create(&Object::Marker.name(), b"no marker".to_vec()).unwrap();
        assert_eq!(stranger(&store).unwrap(), None, "its name is taken, which says more");
        assert!(!is_repository(&store).unwrap());
        let store = Store::memory();
        assert!(!is_repository(&store).unwrap());
        Repo::init(store.clone(), Env::seeded(1, Instant::from_nanos(0))).unwrap();
        assert!(is_repository(&store).unwrap());
    }
}
