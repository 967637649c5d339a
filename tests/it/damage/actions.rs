//! The ways in which an object can be damaged.

use std::sync::Arc;

use amberfs::format::frame;
use amberfs::format::object::{Object, ObjectName};
use amberfs::format::{pack, sealed};

use super::repository::Repository;
use crate::world;

/// Objects with other bytes, or none.
#[derive(Debug, Clone)]
pub(super) struct Damage {
    pub(super) label: String,
    /// The object and the part of it that is damaged.
    pub(super) region: String,
    pub(super) changes: Vec<(ObjectName, Option<Vec<u8>>)>,
}

impl Damage {
    pub(super) fn new(what: &str, changes: Vec<(ObjectName, Option<Vec<u8>>)>) -> Damage {
        let names: Vec<&str> = changes.iter().map(|(object, _)| object.as_str()).collect();
        Damage { label: format!("{what} {}", names.join(", ")), region: names.join(", "), changes }
    }

    pub(super) fn is_deletion(&self) -> bool {
        self.changes.iter().all(|(_, bytes)| bytes.is_none())
    }
}

/// What one object could be taken for: another of its kind.
fn siblings(repository: &Repository, object: &ObjectName) -> Vec<ObjectName> {
    let same = |other: &ObjectName| match (Object::parse(object), Object::parse(other)) {
        (Some(Object::Entry(a, _)), Some(Object::Entry(b, _))) => a == b,
        (Some(Object::Pack(..)), Some(Object::Pack(..))) => true,
        (Some(Object::Checkpoint(..)), Some(Object::Entry(..))) => true,
        _ => false,
    };
    repository.objects.keys().filter(|other| *other != object && same(other)).cloned().collect()
}

/// Whether the object is one of the many entries that say nothing of a point.
fn is_filler(repository: &Repository, object: &ObjectName) -> bool {
    match Object::parse(object) {
        Some(Object::Entry(log, number)) => {
            let covered = repository.checkpoint(log).is_some_and(|(_, covered)| number < covered);
            covered && number.0 > 12
        }
        _ => false,
    }
}

/// Every object deleted, cut, zeroed, doubled, swapped with a sibling, replaced by an older one.
pub(super) fn whole_object(repository: &Repository) -> Vec<Damage> {
    let mut cases = Vec::new();
    for (object, bytes) in &repository.objects {
        let mut case = |what: &str, changed: Option<Vec<u8>>| {
            cases.push(Damage::new(what, vec![(object.clone(), changed)]));
        };
        case("deleted", None);
        if is_filler(repository, object) && !object.as_str().ends_with('7') {
            continue;
        }
        case("empty", Some(Vec::new()));
        case("half of", Some(bytes[..bytes.len() / 2].to_vec()));
        case("all but a byte of", Some(bytes[..bytes.len() - 1].to_vec()));
        case("zeros in place of", Some(vec![0; bytes.len()]));
        case("twice", Some([bytes.as_slice(), bytes].concat()));
        case("one byte more than", Some([bytes.as_slice(), &[0]].concat()));
        let siblings = siblings(repository, object);
        if let Some(older) = siblings.iter().rev().find(|sibling| *sibling < object) {
            case("an older one in place of", Some(repository.objects[older].clone()));
        }
        if let Some(next) = siblings.iter().find(|sibling| *sibling > object) {
            let other = repository.objects[next].clone();
            let changes = vec![(object.clone(), Some(other)), (next.clone(), Some(bytes.clone()))];
            cases.push(Damage::new("swapped", changes));
        }
    }
    cases
}

/// One bit of an object. Kept as its place: a copy of the object for each bit would fill any memory.
#[derive(Debug, Clone)]
pub(super) struct Flip<'r> {
    object: &'r ObjectName,
    at: usize,
    bit: u8,
    region: Arc<str>,
}

impl Flip<'_> {
    pub(super) fn damage(&self, repository: &Repository) -> Damage {
        let mut changed = repository.objects[self.object].clone();
        changed[self.at] ^= 1 << self.bit;
        let what = format!("bit {} of byte {} of", self.bit, self.at);
        let damage = Damage::new(&what, vec![(self.object.clone(), Some(changed))]);
        Damage { region: format!("{} {}", self.object, self.region), ..damage }
    }
}

/// Single bits: one in every byte of small objects, one in every 64 bytes of packs; or all of them.
pub(super) fn flips(repository: &Repository, every_bit: bool) -> Vec<Flip<'_>> {
    let mut cases = Vec::new();
    for (object, bytes) in &repository.objects {
        let is_pack = matches!(Object::parse(object), Some(Object::Pack(..)));
        let step = match (every_bit, is_pack) {
            (true, _) => 1,
            (false, true) => 64,
            (false, false) if is_filler(repository, object) => 16,
            (false, false) => 1,
        };
        let regions = if is_pack { regions(repository, object, bytes) } else { vec![(bytes.len(), "all".into())] };
        for block in (0..bytes.len()).step_by(step) {
            // Not always the same place in a block, nor the same bit.
            let at = (block + (block / step * 29) % step).min(bytes.len() - 1);
            let region =
                regions.iter().find(|(end, _)| at < *end).map_or_else(|| "behind".into(), |(_, name)| name.clone());
            let some = (at % 8) as u8;
            let bits = if every_bit { 0..8 } else { some..some + 1 };
            cases.extend(bits.map(|bit| Flip { object, at, bit, region: Arc::clone(&region) }));
        }
        // Every frame is hit, however small.
        let mut start = 0;
        for (end, region) in &regions {
            cases.extend([start, end - 1].map(|at| Flip { object, at, bit: 5, region: Arc::clone(region) }));
            start = *end;
        }
    }
    cases
}

/// The parts of a pack: where each ends, and a name.
fn regions(repository: &Repository, object: &ObjectName, bytes: &[u8]) -> Vec<(usize, Arc<str>)> {
    let (start, footer) = world::footer(repository.repo(), object, bytes);
    let (header, trailer) = match world::is_encrypted() {
        true => (sealed::HEADER_BYTES, sealed::TRAILER_BYTES),
        false => (pack::HEADER_BYTES, pack::TRAILER_BYTES),
    };
    let mut regions = vec![(header, "header".into())];
    for packed in &footer.frames {
        let end = usize::try_from(packed.offset).unwrap() + frame::HEADER_BYTES + packed.stored_bytes as usize;
        regions.push((end, format!("{:?} frame {}", packed.kind, regions.len() - 1).into()));
    }
    assert_eq!(regions.last().unwrap().0, start, "frames lie one behind the other");
    regions.push((bytes.len() - trailer, "footer".into()));
    regions.push((bytes.len(), "trailer".into()));
    regions
}
