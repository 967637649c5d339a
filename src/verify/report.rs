//! What a verification found: damaged objects, the points and paths they touch, and what to do.

use std::collections::BTreeMap;

use crate::format::object::ObjectName;

/// Names of leftovers that a report lists.
const NAMES_MAX: usize = 100;

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Whether file contents were read too.
    pub read_data: bool,
    /// The sources that were checked, in the order in which they were added.
    pub sources: Vec<SourceReport>,
    /// Objects checked.
    pub objects: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is damaged, by object name.
    pub findings: Vec<Finding>,
    /// Damaged objects beyond those listed.
    pub more_findings: u64,
    /// Packs that no point owns: captures under way, or those that never came to their end. No damage.
    pub orphans: Leftovers,
    /// Objects whose names are none of ours. No damage.
    pub unknown: Leftovers,
    /// Listed objects that were opened with the repository's keys, each at its own place.
    pub authenticated: u64,
    /// All others that were listed, by why. No damage, except as findings say.
    pub doubtful: BTreeMap<Doubt, Leftovers>,
    /// What is worth knowing and no damage, in words.
    pub notes: Vec<String>,
    /// What to do about the damage, in words.
    pub advice: Vec<String>,
}

impl Report {
    /// Damaged objects.
    pub fn damaged(&self) -> u64 {
        self.findings.len() as u64 + self.more_findings
    }

    /// Points checked.
    pub fn points(&self) -> u64 {
        self.sources.iter().map(|source| source.points).sum()
    }

    /// Points of which every file that was checked can be had.
    pub fn sound_points(&self) -> u64 {
        self.sources.iter().map(|source| source.points - source.touched.len() as u64).sum()
    }
}

/// Why nothing shows that a holder of the repository's keys has made an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Doubt {
    /// Nothing is sealed in this repository; what was read agrees with its own hashes.
    Unencrypted,
    /// The marker, which is read before there is a key.
    Marker,
    /// A slot of another key.
    Slot,
    /// A lease, or the notice of single-writer mode.
    Lease,
    /// An entry by somebody who may not say what it says.
    Void,
    /// A pack of no point that cannot be opened.
    Unopened,
    /// A log's object that was not read: behind a gap, or written meanwhile.
    Unread,
    /// An object of no kind or no source.
    Foreign,
    /// Among the findings.
    Damaged,
}

impl Doubt {
    /// In words, behind a number.
    pub fn words(self) -> &'static str {
        match self {
            Doubt::Unencrypted => "not sealed, since the repository is not encrypted",
            Doubt::Marker => "marker, which is never sealed",
            Doubt::Slot => "of key slots that only their own keys open",
            Doubt::Lease => "of single-writer mode, which anybody could have written",
            Doubt::Void => "entries that count for nothing",
            Doubt::Unopened => "packs of no point that do not open",
            Doubt::Unread => "of logs, which were not read",
            Doubt::Foreign => "that are not this repository's",
            Doubt::Damaged => "damaged",
        }
    }

    /// In one word, for programs.
    pub fn word(self) -> &'static str {
        match self {
            Doubt::Unencrypted => "unencrypted",
            Doubt::Marker => "marker",
            Doubt::Slot => "slot",
            Doubt::Lease => "lease",
            Doubt::Void => "void",
            Doubt::Unopened => "unopened",
            Doubt::Unread => "unread",
            Doubt::Foreign => "foreign",
            Doubt::Damaged => "damaged",
        }
    }
}

/// A source that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReport {
    /// Its name.
    pub name: String,
    /// Its points.
    pub points: u64,
    /// The names of its points that damage touches, in log order.
    pub touched: Vec<String>,
}

/// The ways in which an object can be wrong, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// It is well-formed and contradicts what else is stored.
    Contradiction,
    /// The store does not give its bytes.
    Unreadable,
    /// Its bytes are not what they must be.
    Damaged,
    /// It does not exist.
    Missing,
}

impl Harm {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Harm::Contradiction => "contradictory",
            Harm::Unreadable => "unreadable",
            Harm::Damaged => "damaged",
            Harm::Missing => "missing",
        }
    }
}

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where in the object, in bytes.
    pub offset: Option<u64>,
    /// In words.
    pub what: String,
}

/// A damaged object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The object.
    pub object: ObjectName,
    /// How it is wrong, at worst.
    pub harm: Harm,
    /// What is wrong with it; the first ones.
    pub faults: Vec<Fault>,
    /// Faults beyond those listed.
    pub more_faults: u64,
    /// What cannot be had because of it; empty when nothing needs what is damaged.
    pub touches: Vec<Touch>,
}

/// What cannot be had, because of one object, in points that are alike in that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touch {
    /// The source.
    pub source: String,
    /// The points' names, in log order.
    pub points: Vec<String>,
    /// What cannot be had in them; the first ones. Empty when it is something that has no path.
    pub paths: Vec<Touched>,
    /// Paths and ranges beyond those listed.
    pub more_paths: u64,
    /// Entries that can be read, but not reached, because the name of a directory above them is lost.
    pub unreachable: u64,
    /// What else of the points is touched, in words.
    pub also: Vec<String>,
}

/// Something that cannot be had. Paths are relative to the source, in bytes; the source itself is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touched {
    /// Nothing of the point can be had.
    Everything,
    /// A file, at least in part.
    Path(Vec<u8>),
    /// Whatever the directory holds under names in this range; which names there are is lost.
    Names {
        /// The directory.
        directory: Vec<u8>,
        /// From this name on; none: from the first.
        from: Option<Vec<u8>>,
        /// Up to before this name; none: to the last.
        before: Option<Vec<u8>>,
    },
}

/// Objects that are there and that nothing needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leftovers {
    /// How many.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The names of the first.
    pub names: Vec<ObjectName>,
}

impl Leftovers {
    pub(super) fn add(&mut self, name: ObjectName, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
        if self.names.len() < NAMES_MAX {
            self.names.push(name);
        }
    }
}
