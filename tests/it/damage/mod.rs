//! Damage to every object of small repositories: reads fail on exactly the files that need what was
//! damaged and are right on all others, and a verification names the same objects and paths.
//!
//! ```text
//!  subjects    what is damaged: three small repositories
//!  repository  a repository, what its points must hold, and copies
//!  predict     which files need which bytes, from the tree's pointers alone
//!  judge       what a mount shows and a verification says, held against that
//!  actions     the ways in which an object can be damaged
//! ```
//! Every damaged object is read frame by frame and log by log. The reading of every file of every point
//! through a mount's view, and a verification, are repeated for every whole-object action and once for
//! each region of an object (a frame, a header, a footer): within one, the prediction is the same.
//! `AMBERFS_DAMAGE=2000` flips so many single bits, from all over each repository, and reads and verifies each time;
//! `AMBERFS_DAMAGE=full` every bit. These many are flipped in memory: the same bytes, and no files and threads of a directory's for each.
//! Failures are told at once, so a campaign that is ended early has shown something.

mod actions;
mod judge;
mod predict;
mod repository;
mod subjects;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use actions::{Damage, flips, whole_object};
use amberfs::base::Class;
use judge::{Names, complaints_of_frames, complaints_of_reading, complaints_of_verification, read_all, verified};
use predict::{Model, Prediction};
use repository::{Copy, Repository};
use subjects::Subject;

/// How many single bits of each repository are to be flipped, and each time everything read; none: of some bits, once for each region.
fn wanted_bits() -> Option<usize> {
    match std::env::var("AMBERFS_DAMAGE").ok()?.as_str() {
        "some" => None,
        "full" => Some(usize::MAX),
        bits => Some(bits.parse().expect("AMBERFS_DAMAGE: some, full, or a number of bits")),
    }
}

/// One repository of each subject for all tests of this module that run together: it is never changed, only copies are.
fn repository(subject: Subject) -> Arc<(Repository, Model)> {
    static BUILT: [Mutex<Weak<(Repository, Model)>>; Subject::ALL.len()] = [const { Mutex::new(Weak::new()) }; _];
    let mut built = BUILT[subject as usize].lock().unwrap();
    // The last test to end takes its directory away.
    built.upgrade().unwrap_or_else(|| {
        let repository = subject.build();
        let model = Model::of(&repository);
        let both = Arc::new((repository, model));
        *built = Arc::downgrade(&both);
        both
    })
}

/// Judges each case on one of a few copies of the repository, which `copy` makes.
fn run<C: Sync>(
    (repository, model): &(Repository, Model),
    cases: Vec<C>,
    most: usize,
    copy: fn(&Repository) -> Copy,
    damage: impl Fn(&C) -> Damage + Sync,
    thorough: impl Fn(&Damage) -> bool + Sync,
) {
    let (next, read) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failed = Mutex::new(Vec::new());
    let work = || {
        let copy = copy(repository);
        let taken = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|nth| *nth < most);
        while let Some(damage) = taken().and_then(|nth| in_turn(&cases, nth)).map(&damage) {
            let damage = &damage;
            copy.apply(damage);
            let prediction = model.predict(repository, damage);
            let mut found = complaints_of_frames(repository, model, damage, &prediction, &copy);
            if thorough(damage) {
                read.fetch_add(1, Ordering::Relaxed);
                found.extend(complaints_of_reading(repository, &prediction, &read_all(repository, &copy)));
                found.extend(complaints_of_verification(repository, &prediction, &verified(&copy)));
            }
            copy.restore(repository, damage);
            if !found.is_empty() {
                let told = format!("{}:\n  {}", damage.label, found.join("\n  "));
                let mut failed = failed.lock().unwrap();
                if failed.len() < FAILURES_TOLD {
                    eprintln!("{told}");
                }
                failed.push(told);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from).min(8) {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().unwrap();
    let (tried, read) = (cases.len().min(most), read.into_inner());
    eprintln!("{tried} of {} cases of damage, {read} of them read through and verified", cases.len());
    assert!(failed.is_empty(), "{} of {tried} cases, first:\n{}", failed.len(), first(&failed));
}

/// Failures that are told as they are met.
const FAILURES_TOLD: usize = 20;

/// All cases, one after the other from places far apart.
fn in_turn<C>(cases: &[C], nth: usize) -> Option<&C> {
    // No length of ours is a multiple of it, so each comes once.
    const STRIDE: usize = 1_000_003;
    assert!(!cases.len().is_multiple_of(STRIDE));
    let at = (nth < cases.len()).then(|| nth * STRIDE % cases.len())?;
    cases.get(at)
}

fn first(failed: &[String]) -> String {
    failed.iter().take(5).cloned().collect::<Vec<_>>().join("\n")
}

#[test]
fn the_repositories_are_sound_before_they_are_damaged() {
    for subject in Subject::ALL {
        let both = repository(subject);
        let (repository, _) = &*both;
        let copy = Copy::in_directory(repository);
        let nothing = Prediction::nothing();
        let found = complaints_of_reading(repository, &nothing, &read_all(repository, &copy));
        assert_eq!(found, Vec::<String>::new());
        assert_eq!(complaints_of_verification(repository, &nothing, &verified(&copy)), Vec::<String>::new());
        subject.assert_varied(repository);
    }
}

fn damage_whole_objects(subject: Subject) {
    let both = repository(subject);
    run(&both, whole_object(&both.0), usize::MAX, Copy::in_directory, Damage::clone, |_| true);
}

fn flip_single_bits(subject: Subject) {
    let both = repository(subject);
    let (repository, _) = &*both;
    let seen = Mutex::new(HashSet::new());
    let wanted = wanted_bits();
    run(
        &both,
        flips(repository, wanted.is_some()),
        wanted.unwrap_or(usize::MAX),
        if wanted.is_some() { Copy::in_memory } else { Copy::in_directory },
        |flip| flip.damage(repository),
        |damage| wanted.is_some() || seen.lock().unwrap().insert(damage.region.clone()),
    );
}

#[test]
fn objects_of_names_gone_cut_zeroed_doubled_and_swapped() {
    damage_whole_objects(Subject::Names);
}

#[test]
fn objects_of_contents_gone_cut_zeroed_doubled_and_swapped() {
    damage_whole_objects(Subject::Contents);
}

#[test]
fn objects_of_logs_gone_cut_zeroed_doubled_and_swapped() {
    damage_whole_objects(Subject::Logs);
}

#[test]
fn single_bits_of_names() {
    flip_single_bits(Subject::Names);
}

#[test]
fn single_bits_of_contents() {
    flip_single_bits(Subject::Contents);
}

#[test]
fn single_bits_of_logs() {
    flip_single_bits(Subject::Logs);
}

/// The newest entry of a log cannot be told from one that was never written, unless a checkpoint covers it.
/// This is where the limit lies, and not a byte further.
#[test]
fn only_the_deletion_of_a_logs_newest_entry_goes_unnoticed() {
    for both in Subject::ALL.map(repository) {
        let (repository, model) = &*both;
        for damage in whole_object(repository) {
            let prediction = model.predict(repository, &damage);
            let unnoticed = prediction.opens && prediction.objects.is_empty();
            let of_newest = damage.changes.iter().all(|(object, _)| repository.is_newest_entry(object));
            let of_checkpoint = damage.changes.iter().all(|(object, _)| object.as_str().contains("checkpoint"));
            assert!(!unnoticed || (damage.is_deletion() && (of_newest || of_checkpoint)), "{}", damage.label);
        }
    }
}

/// A campaign that cannot fail proves nothing: each lie that a reader could tell is told once.
#[test]
fn every_lie_is_noticed() {
    let both = repository(Subject::Contents);
    let (repository, model) = &*both;
    let copy = Copy::in_directory(repository);
    // Elsewhere is `alone`: no file shares its frame.
    let file = b"plain/grouped-3".as_slice();
    let damage = model.damage_to_content_of(repository, 0, file);
    let prediction = model.predict(repository, &damage);
    assert!(prediction.points[0].unreadable.contains(file));

    let sound = read_all(repository, &copy);
    copy.apply(&damage);
    let broken = read_all(repository, &copy);
    let report = verified(&copy).unwrap();
    assert_eq!(complaints_of_reading(repository, &prediction, &broken), Vec::<String>::new());
    assert_eq!(complaints_of_verification(repository, &prediction, &Ok(report.clone())), Vec::<String>::new());

    let noticed = |what: &str, complaints: Vec<String>| assert!(!complaints.is_empty(), "not noticed: {what}");
    noticed("damage that nobody meets", complaints_of_reading(repository, &prediction, &sound));
    noticed("a fault without damage", complaints_of_reading(repository, &Prediction::nothing(), &broken));
    let lie = |change: &dyn Fn(&mut judge::Reading)| {
        let mut reading = broken.clone();
        change(reading.as_mut().unwrap()[0].as_mut().unwrap().files.get_mut(file).unwrap());
        complaints_of_reading(repository, &prediction, &reading)
    };
    noticed("absence in place of a fault", lie(&|reading| reading.content = Err(Class::NotFound)));
    noticed("a refusal in place of a fault", lie(&|reading| reading.content = Err(Class::Denied)));
    noticed("zeros in place of a fault", lie(&|reading| reading.content = Ok(vec![0; 600])));
    noticed("a fault of attributes that were not damaged", lie(&|reading| reading.attributes = Err(Class::Corrupt)));
    let mut reading = broken.clone();
    let other = reading.as_mut().unwrap()[0].as_mut().unwrap().files.get_mut(b"alone".as_slice()).unwrap();
    other.content.as_mut().unwrap()[0] ^= 1;
    noticed("a wrong byte elsewhere", complaints_of_reading(repository, &prediction, &reading));
    let mut reading = broken.clone();
    reading.as_mut().unwrap()[0].as_mut().unwrap().files.remove(b"alone".as_slice());
    noticed("a file that is missing elsewhere", complaints_of_reading(repository, &prediction, &reading));

    let told = |change: &dyn Fn(&mut amberfs::verify::Report)| {
        let mut report = report.clone();
        change(&mut report);
        complaints_of_verification(repository, &prediction, &Ok(report))
    };
    noticed("no finding", told(&|report| report.findings.clear()));
    noticed("a finding without paths", told(&|report| report.findings[0].touches.clear()));
    noticed("one path too few", told(&|report| drop(report.findings[0].touches[0].paths.pop())));
    noticed("one point too few", told(&|report| drop(report.findings[0].touches[0].points.pop())));
    noticed("a point that passes for sound", told(&|report| drop(report.sources[0].touched.pop())));
    let extra = amberfs::verify::Touched::Path(b"alone".to_vec());
    noticed("one path too many", told(&|report| report.findings[0].touches[0].paths.push(extra.clone())));
}

/// A hard link's name stands beside the others, its inode elsewhere: what is lost with the one hides none of the other.
#[test]
fn a_lost_inode_takes_no_name_from_a_listing() {
    let both = repository(Subject::Names);
    let (repository, model) = &*both;
    let copy = Copy::in_directory(repository);
    let (root, name) = (b"".as_slice(), b"linked-file".as_slice());
    let damage = model.damage_to_inode_of(repository, 0, name);
    let prediction = model.predict(repository, &damage);
    assert!(prediction.points[0].unreachable.contains(name));
    assert!(!prediction.points[0].unlistable.contains(root));
    copy.apply(&damage);
    let broken = read_all(repository, &copy);
    assert_eq!(complaints_of_reading(repository, &prediction, &broken), Vec::<String>::new());

    let noticed = |what: &str, listing: &dyn Fn(&mut Names)| {
        let mut reading = broken.clone();
        let root = reading.as_mut().unwrap()[0].as_mut().unwrap().files.get_mut(root).unwrap();
        listing(root.listing.as_mut().unwrap());
        assert!(!complaints_of_reading(repository, &prediction, &reading).is_empty(), "not noticed: {what}");
    };
    noticed("a name that is missing", &|names| names.retain(|other, _| other != name));
    noticed("a name that passes for known", &|names| *names.get_mut(name).unwrap() = true);
    noticed("a name that passes for unknown", &|names| *names.get_mut(b"symlink".as_slice()).unwrap() = false);
    let mut reading = broken.clone();
    reading.as_mut().unwrap()[0].as_mut().unwrap().files.get_mut(root).unwrap().listing = Err(Class::Corrupt);
    assert!(!complaints_of_reading(repository, &prediction, &reading).is_empty(), "not noticed: a listing that ends");
}
