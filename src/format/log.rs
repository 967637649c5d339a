//! Log entries and checkpoints: what the repository's history consists of.
//!
//! An entry is written once, at the next number, and never again. Its `previous` is the hash of the
//! entry below, so the log is a chain that can be checked end to end. Numbers of enum variants are
//! part of the format: new ones are appended, none is ever reused.

use std::sync::Arc;

use bincode::{Decode, Encode};

use super::author::{Author, Signed};
use super::envelope;
use super::error::FormatError;
use super::ids::{ChainId, Epoch, FileId, FrameRef, KeyId, LogNumber, Nonce, PointId, SessionId, SourceId};
use super::keyring::SessionSeal;
use super::object::{LogId, Object};
use super::realm::Realm;
use super::{codec, object::ObjectName};
use crate::base::{Instant, limits};

/// First 16 bytes of BLAKE3 over an entry's object as stored; all zero before the first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode)]
pub struct EntryHash(pub [u8; 16]);

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct LogEntry<B> {
    /// Its place in the log.
    pub number: LogNumber,
    /// Tells the writer of a Create whose answer was lost whether the entry is its own.
    pub nonce: Nonce,
    /// The entry below.
    pub previous: EntryHash,
    /// When it was written, by the writer's clock. For people; no decision uses it.
    pub written: Instant,
    /// By whom. Read back as [`Author::NOBODY`] unless the signature bears it out.
    pub author: Author,
    /// What it says.
    pub body: B,
}

/// Which kind of thing a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum SourceKind {
    /// A directory tree.
    Tree,
    /// A stream, stored as one file.
    Stream,
    /// A disk: a block device, or an image of one. Stored as one file.
    Disk,
}

/// Where a source is captured from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Origin {
    /// The machine's identity (`/etc/machine-id`), or its host name where it has none.
    pub machine: String,
    /// Host name, for people.
    pub host: String,
    /// Absolute path in bytes; of a stream, its file name.
    pub path: Vec<u8>,
}

/// What the repository's log knows of a source's: which entry stands at a number, and what holds behind it. A log from which
/// that entry is missing, or in which another stands there, is found out by whoever reads both, and gives nobody back what he
/// has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Pin {
    /// The entry.
    pub number: LogNumber,
    /// Its hash.
    pub hash: EntryHash,
    /// The one writer key that may add points behind it.
    pub writer: Option<KeyId>,
    /// Behind it, older generations of keys count for nothing.
    pub epoch: Epoch,
}

/// What an entry of the repository log says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub enum RepoBody {
    /// A source now exists; its id is the entry's number.
    AddSource {
        /// Its name, unique among the sources that are not removed.
        name: String,
        /// Its kind.
        kind: SourceKind,
        /// Where it comes from.
        origin: Origin,
    },
    /// The source is captured from here henceforth (`--adopt`).
    MoveSource {
        /// The source.
        source: SourceId,
        /// Its new origin.
        origin: Origin,
    },
    /// The source is gone; its name is free. Its log ends in a seal.
    RemoveSource {
        /// The source.
        source: SourceId,
    },
    /// What this key writes into this log is void from here on.
    RevokeKey {
        /// The signing key of a writer or a collector.
        key: KeyId,
    },
    /// What is signed under older generations of keys is void from here on.
    Epoch {
        /// The generation.
        epoch: Epoch,
    },
    /// In the logs of these sources stand these entries.
    Pin {
        /// By source, ascending.
        pins: Vec<(SourceId, Pin)>,
    },
}

/// What an entry of a source's log says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub enum SourceBody {
    /// A chain may now be written. Its id is the count of such entries below.
    OpenChain {
        /// The id, for checking.
        chain: ChainId,
    },
    /// A point exists, unless its session is void.
    Commit(Arc<Commit>),
    /// Commits of this session are void from here on.
    Abort {
        /// The session.
        session: SessionId,
    },
    /// Commits of sessions whose base is below this are void from here on; never falls.
    Floor {
        /// The new floor.
        floor: LogNumber,
    },
    /// The log ends here for ever: whatever stands behind this is void.
    Seal,
    /// These points are in the trash: out of sight, and no longer in the way of whoever collects space.
    Delete {
        /// The points, ascending.
        points: Vec<PointId>,
    },
    /// These points are out of the trash again.
    Undelete {
        /// The points, ascending.
        points: Vec<PointId>,
    },
    /// The next incremental builds on this point: the source was rolled back to it.
    Head {
        /// The point.
        point: PointId,
    },
    /// Of all writer keys, this one alone may add points from here on; none: no writer key may.
    Writer {
        /// The signing key.
        key: Option<KeyId>,
    },
    /// What is signed under older generations of keys is void from here on.
    Epoch {
        /// The generation.
        epoch: Epoch,
    },
}

/// A node of a tree: where it is and what hangs below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct NodeRef {
    /// Its frame.
    pub frame: FrameRef,
    /// 0 for a leaf.
    pub level: u8,
    /// Items in all leaves below.
    pub items: u64,
}

/// The trees of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Roots {
    /// Names and inodes.
    pub entries: NodeRef,
    /// Chunk maps of large files, if any.
    pub maps: Option<NodeRef>,
    /// References to data frames, if any.
    pub usage: Option<NodeRef>,
}

/// A point.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Commit {
    /// The session that wrote it.
    pub session: SessionId,
    /// The chain it belongs to.
    pub chain: ChainId,
    /// The point that it was compared with; none for a full point.
    pub parent: Option<PointId>,
    /// Its name in the mount, fixed for ever; unique in the source.
    pub name: String,
    /// Labels, as given.
    pub labels: Vec<String>,
    /// When the capture began.
    pub started: Instant,
    /// From when on the source was free to change again.
    pub captured: Instant,
    /// Where it was captured.
    pub origin: Origin,
    /// The amberfs that wrote it.
    pub writer: String,
    /// Why it is full, or incremental, in words.
    pub reason: String,
    /// The job that asked for it, if one did: tells whether an interrupted job reached its commit.
    pub job: Option<String>,
    /// Its trees.
    pub roots: Roots,
    /// The first file identity that this point has not used.
    pub next_file: FileId,
    /// Packs that the session wrote, ordinals 0 up to this.
    pub packs: u32,
    /// What it holds and what it cost.
    pub stats: Stats,
    /// A frame with the list of problems, if there were any.
    pub problems: Option<FrameRef>,
    /// Of a disk: what its one file does not say.
    pub disk: Option<DiskFacts>,
    /// Of a tree: what was not wanted in it, and is therefore no evidence that it was not there.
    pub scope: Option<Scope>,
    /// Of an encrypted repository: from what the secrets of its session follow.
    pub seal: Option<SessionSeal>,
}

/// What a capture of a tree was told to leave out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Scope {
    /// Patterns in the syntax of `.gitignore`, in order; none if they have more than [`limits::SCOPE_BYTES_MAX`].
    pub excludes: Option<Vec<String>>,
    /// Of directories with a valid `CACHEDIR.TAG`, all but the tag was left out.
    pub exclude_caches: bool,
    /// Other filesystems below the root were entered.
    pub cross_filesystems: bool,
}

/// The name of a disk in its point's directory, where nothing else stands.
pub const DISK_NAME: &str = "disk.raw";

/// What a point records of a disk besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct DiskFacts {
    /// Bytes of the disk.
    pub bytes: u64,
    /// Bytes of a chunk: a power of two.
    pub chunk_bytes: u32,
    /// Bytes of a logical sector; 512 for an image.
    pub sector_bytes: u32,
    /// How it was found out what had changed.
    pub method: Method,
    /// What could write to the disk meanwhile.
    pub stillness: Stillness,
    /// Bytes of chunks that are not as the parent has them; of a full point, all data.
    pub changed_bytes: u64,
}

impl DiskFacts {
    /// Whether there can be such a disk. Whoever computes with its chunks and sectors asks first.
    pub fn is_possible(&self) -> bool {
        let sizes = [(limits::DISK_CHUNK_BYTES, self.chunk_bytes), (limits::DISK_SECTOR_BYTES, self.sector_bytes)];
        self.bytes <= limits::DISK_BYTES_MAX
            && sizes.iter().all(|(allowed, bytes)| allowed.contains(bytes) && bytes.is_power_of_two())
    }
}

/// How a capture of a disk found out what had changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Method {
    /// There was nothing to compare with: all data was read.
    Everything,
    /// All data was read, and its hashes compared with the parent's.
    Compared,
    /// The image's inode says that nothing was written since the parent: nothing was read.
    Untouched,
}

/// What could write to a disk while it was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Stillness {
    /// Nothing that could be seen: it was not mounted, and an image's inode did not change.
    Still,
    /// It, or a partition of it, was mounted read-only.
    MountedReadOnly,
    /// It, or a partition of it, was mounted for writing: the point may mix states of different instants.
    MountedReadWrite,
    /// The image was written to: the point mixes states of different instants.
    Changed,
}

/// Counts of a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode)]
pub struct Stats {
    /// Regular files, each name of a hard link counted.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// All other entries.
    pub others: u64,
    /// Sum of `st_size` of regular files, each inode once.
    pub bytes: u64,
    /// Regular files that were read because they are new or changed.
    pub changed_files: u64,
    /// Bytes read from the source.
    pub read_bytes: u64,
    /// Bytes of chunks that were stored because the chain did not have them.
    pub new_bytes: u64,
    /// Bytes written to the repository, metadata included.
    pub stored_bytes: u64,
    /// Files that could not be read, vanished or changed while being read.
    pub problems: u64,
}

/// What went wrong with one path of a capture.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Problem {
    /// Relative to the source, in bytes.
    pub path: Vec<u8>,
    /// What happened.
    pub kind: ProblemKind,
    /// In words, for people.
    pub detail: String,
}

/// The ways in which a file can fail to be captured exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum ProblemKind {
    /// It could not be read; the point has no such entry, or the parent's.
    Unreadable,
    /// It was listed and then gone.
    Vanished,
    /// It changed while it was read; the point has what was read.
    Changed,
    /// Its name or an attribute exceeds what the format holds.
    Unsupported,
}

/// The state of a log after all entries up to [`Checkpoint::number`], to spare readers the entries.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Checkpoint<S> {
    /// The newest entry that it covers.
    pub number: LogNumber,
    /// That entry's hash.
    pub hash: EntryHash,
    /// The state.
    pub state: S,
}

/// What a repository log amounts to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Encode, Decode)]
pub struct RepoSnapshot {
    /// All sources that were ever added, in that order.
    pub sources: Vec<SourceRecord>,
    /// Keys that may write here no more, ascending.
    pub revoked: Vec<KeyId>,
    /// What is signed under older generations of keys is void.
    pub epoch: Epoch,
}

/// A source, as the repository log tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct SourceRecord {
    /// Its identity.
    pub id: SourceId,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: SourceKind,
    /// Where it is captured from now.
    pub origin: Origin,
    /// Whether it has been removed.
    pub removed: bool,
    /// The writer key that added it, if one did.
    pub owner: Option<KeyId>,
    /// The generation of keys from which on entries of its log count, when it was added.
    pub epoch: Epoch,
    /// The newest entry of its log that is pinned.
    pub pin: Option<Pin>,
}

/// What a source's log amounts to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Encode, Decode)]
pub struct SourceSnapshot {
    /// Chains opened so far.
    pub chains: u32,
    /// Commits of sessions with a base below this are void.
    pub floor: LogNumber,
    /// Aborted sessions at or above the floor.
    pub aborted: Vec<SessionId>,
    /// Whether the log is sealed.
    pub sealed: bool,
    /// The points, in log order, each with its number and the instant of its commit entry.
    pub points: Vec<(PointId, Instant, Arc<Commit>)>,
    /// Those of them that are in the trash, ascending.
    pub trash: Vec<Deletion>,
    /// The point that was committed last, or was made the head since.
    pub head: Option<PointId>,
    /// The writer key that may add points, if one may.
    pub writer: Option<KeyId>,
    /// What is signed under older generations of keys is void.
    pub epoch: Epoch,
}

/// A point in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Deletion {
    /// The point.
    pub point: PointId,
    /// The entry that deleted it.
    pub entry: LogNumber,
    /// When that was written, by the writer's clock.
    pub written: Instant,
}

/// Lets entries and checkpoints of both logs share their envelope code.
pub trait LogBody: Encode + Decode<()> + Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// The entries' kind.
    const ENTRY: envelope::Kind;
    /// The checkpoints' kind.
    const CHECKPOINT: envelope::Kind;
    /// The state that a checkpoint holds.
    type Snapshot: Encode + Decode<()> + Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static;
}

impl LogBody for RepoBody {
    const ENTRY: envelope::Kind = envelope::Kind::RepoEntry;
    const CHECKPOINT: envelope::Kind = envelope::Kind::RepoCheckpoint;
    type Snapshot = RepoSnapshot;
}

impl LogBody for SourceBody {
    const ENTRY: envelope::Kind = envelope::Kind::SourceEntry;
    const CHECKPOINT: envelope::Kind = envelope::Kind::SourceCheckpoint;
    type Snapshot = SourceSnapshot;
}

/// The object of `entry` in `log`: its name, its bytes, and the hash that the next entry will name.
pub fn encode_entry<B: LogBody>(realm: &Realm, log: LogId, entry: &LogEntry<B>) -> (ObjectName, Vec<u8>, EntryHash) {
    let name = Object::Entry(log, entry.number).name();
    let bytes = seal(realm, &name, B::ENTRY, codec::encode(entry));
    let hash = hash_entry(&bytes);
    (name, bytes, hash)
}

/// The entry that was read as entry `number` of `log`, and its hash. An entry whose signature does not bear out who it
/// says has written it is nobody's.
///
/// # Errors
/// [`FormatError`] when the bytes are not that entry.
pub fn decode_entry<B: LogBody>(
    realm: &Realm,
    log: LogId,
    number: LogNumber,
    bytes: &[u8],
) -> Result<(LogEntry<B>, EntryHash), FormatError> {
    const WHAT: &str = "log entry";
    let name = Object::Entry(log, number).name();
    let limit = limits::LOG_ENTRY_BYTES_MAX;
    let (mut entry, author): (LogEntry<B>, Author) = open(realm, &name, B::ENTRY, WHAT, bytes, limit)?;
    if entry.number != number {
        return Err(FormatError::Misplaced {
            what: WHAT,
            expected: number.to_string(),
            actual: entry.number.to_string(),
        });
    }
    if entry.author != author {
        entry.author = Author::NOBODY;
    }
    Ok((entry, hash_entry(bytes)))
}

/// The object of a checkpoint of `log`: its name and its bytes.
pub fn encode_checkpoint<B: LogBody>(
    realm: &Realm,
    log: LogId,
    checkpoint: &Checkpoint<B::Snapshot>,
) -> (ObjectName, Vec<u8>) {
    let name = Object::Checkpoint(log, checkpoint.number).name();
    let bytes = seal(realm, &name, B::CHECKPOINT, codec::encode(checkpoint));
    (name, bytes)
}

/// The checkpoint that was read as the one that covers `number` of `log`, and by whom it is.
///
/// # Errors
/// [`FormatError`] when the bytes are not that checkpoint.
pub fn decode_checkpoint<B: LogBody>(
    realm: &Realm,
    log: LogId,
    number: LogNumber,
    bytes: &[u8],
) -> Result<(Checkpoint<B::Snapshot>, Author), FormatError> {
    const WHAT: &str = "checkpoint";
    let name = Object::Checkpoint(log, number).name();
    let limit = limits::CHECKPOINT_BYTES_MAX;
    let (checkpoint, author): (Checkpoint<B::Snapshot>, Author) =
        open(realm, &name, B::CHECKPOINT, WHAT, bytes, limit)?;
    if checkpoint.number != number {
        return Err(FormatError::Misplaced {
            what: WHAT,
            expected: number.to_string(),
            actual: checkpoint.number.to_string(),
        });
    }
    Ok((checkpoint, author))
}

/// The object at `name` that holds `payload`: in an encrypted repository signed, then sealed.
fn seal(realm: &Realm, name: &ObjectName, kind: envelope::Kind, payload: Vec<u8>) -> Vec<u8> {
    let Some(keys) = realm.keys() else { return envelope::seal(realm.id(), name, kind, &payload, None) };
    let signed = codec::encode(&keys.sign(kind, name, &payload));
    let with = envelope::With { epoch: keys.current(), key: &keys.newest().log };
    envelope::seal(realm.id(), name, kind, &signed, Some(with))
}

/// What the object at `name` holds, and who wrote it.
fn open<T: Encode + Decode<()>>(
    realm: &Realm,
    name: &ObjectName,
    kind: envelope::Kind,
    what: &'static str,
    bytes: &[u8],
    limit: usize,
) -> Result<(T, Author), FormatError> {
    let Some(keys) = realm.keys() else {
        let body = envelope::open(realm.id(), name, kind, what, bytes, limit, None)?;
        return Ok((codec::decode(what, &body, limit)?, Author::default()));
    };
    let key = |epoch: Epoch| keys.epoch(epoch).map(|keys| keys.log.clone());
    let body = envelope::open(realm.id(), name, kind, what, bytes, limit + SIGNED_BYTES_MAX, Some(&key))?;
    let signed: Signed<'_> = codec::decode_borrowed(what, &body, limit + SIGNED_BYTES_MAX)?;
    let author = keys.author_of(&signed, &Signed::message(realm.id(), kind as u8, name.as_str(), signed.payload));
    Ok((codec::decode(what, signed.payload, limit)?, author))
}

/// Bytes that a signature, and the certificate of its key, may add.
const SIGNED_BYTES_MAX: usize = 4 << 10;

/// The hash of an entry's object as stored.
pub fn hash_entry(bytes: &[u8]) -> EntryHash {
    let mut short = [0u8; 16];
    blake3::Hasher::new().update(bytes).finalize_xof().fill(&mut short);
    EntryHash(short)
}
