//! Every bound of the system, with the relations that must hold between them.
//!
//! A figure here is a promise: memory is bounded by these and by nothing that is captured or walked.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Longest file name that Linux has (`NAME_MAX`), in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest symbolic link target (`PATH_MAX`), in bytes.
pub const SYMLINK_BYTES_MAX: usize = 4096;
/// Longest extended attribute value (`XATTR_SIZE_MAX`), in bytes.
pub const XATTR_VALUE_BYTES_MAX: usize = 65536;
/// Bytes of all extended attributes that one entry holds, names included.
pub const ENTRY_XATTR_BYTES_MAX: usize = 1 << 20;
/// Longest list of attribute names that Linux returns (`XATTR_LIST_MAX`), in bytes.
pub const XATTR_LIST_BYTES_MAX: usize = 65536;

/// A file of at most this many bytes is stored inside its entry.
pub const INLINE_BYTES_MAX: usize = 128;
/// A file of at most this many bytes is one chunk; a longer one is cut.
pub const WHOLE_FILE_BYTES_MAX: u64 = 1 << 20;
/// Content-defined chunks: smallest, average and largest, in bytes.
pub const CDC_BYTES: (usize, usize, usize) = (64 << 10, 256 << 10, 1 << 20);
/// A file of at least this many bytes is taken to be updated in place and cut at fixed offsets.
pub const FIXED_FILE_BYTES_MIN: u64 = 256 << 20;
/// Fixed chunks, in bytes.
pub const FIXED_CHUNK_BYTES: usize = 64 << 10;
/// Bytes that a disk's chunk may have; a power of two.
pub const DISK_CHUNK_BYTES: RangeInclusive<u32> = 16 << 10..=1 << 20;
/// Chunks of at most this many bytes share frames with their neighbours.
pub const GROUPED_CHUNK_BYTES_MAX: usize = 64 << 10;
/// A frame of grouped chunks is closed when it holds this many raw bytes (`docs/decisions/001-sizes.md`).
pub const GROUP_FRAME_BYTES: usize = 128 << 10;
/// A frame of grouped chunks is closed when the walk has passed this many entries since its last
/// chunk: an incremental's frames then hold neighbours only, and stay cheap to read for ever.
pub const GROUP_GAP_ENTRIES: u64 = 64;
/// A grouped chunk that the chain has already is referred to only if the chunks of one window (what
/// would share a frame) use at least one part in this many of the old frame's raw bytes.
pub const DEDUP_FRAME_PARTS: u64 = 8;
/// Raw bytes of the largest frame that is ever written or accepted.
pub const FRAME_RAW_BYTES_MAX: usize = 4 << 20;
/// Stored bytes of the largest frame body that is ever accepted.
pub const FRAME_STORED_BYTES_MAX: usize = FRAME_RAW_BYTES_MAX + (64 << 10);

/// Raw bytes at which a leaf of a tree is split.
pub const LEAF_BYTES: usize = 16 << 10;
/// Neighbours in a leaf that stay where they are when others of it have changed; fewer are stored again. A reference to them takes as
/// much as a few entries, and is stored again whenever anything near them changes.
pub const PART_ITEMS_MIN: usize = 16;
/// Leaves that the items of an inner node may be scattered over, beside half as many again as they would fill.
pub const SPARE_LEAVES: usize = 2;
/// Children at which an inner node is split.
pub const INNER_CHILDREN_MAX: usize = 128;
/// Extents in one page of a chunk map.
pub const MAP_PAGE_EXTENTS: usize = 256;
/// Extents that an entry holds itself; a file with more has a chunk map.
pub const ENTRY_EXTENTS_MAX: usize = 8;
/// Levels of the deepest tree that is accepted, its leaves included.
pub const TREE_LEVELS_MAX: u8 = 12;

/// Bytes of a data pack, footer and padding included; a power of two, at which no padding is needed.
pub const DATA_PACK_BYTES: u64 = 64 << 20;
/// The same of a metadata pack.
pub const META_PACK_BYTES: u64 = 16 << 20;
/// A session that stays below this writes data and metadata into one pack.
pub const MIXED_PACK_BYTES: u64 = 8 << 20;
/// Frames and chunks of a pack, together, at which it is closed however few bytes they have: each takes about forty
/// bytes of memory and of the footer until then.
pub const PACK_ITEMS_MAX: usize = 1 << 17;
/// Bytes of a footer for a frame or a chunk in it, at most.
const FOOTER_ITEM_BYTES: usize = 64;
/// Bytes of one part of a multipart upload.
pub const UPLOAD_PART_BYTES: usize = 8 << 20;

/// Bytes of a key slot.
pub const KEY_SLOT_BYTES_MAX: usize = 256 << 10;
/// Bytes of a password file or a key file that are read.
pub const PASSPHRASE_BYTES_MAX: u64 = 64 << 10;
/// Bytes of the file in which a host that only captures keeps what opens its own trees: a hundred thousand captures.
pub const KEPT_SESSIONS_BYTES_MAX: usize = 16 << 20;
/// Generations of keys: all of them are in every slot.
pub const KEY_EPOCHS_MAX: usize = 1024;
/// Largest log entry, checkpoint and footer that are accepted, in raw bytes.
pub const LOG_ENTRY_BYTES_MAX: usize = 1 << 20;
/// Largest checkpoint that is accepted, in raw bytes.
pub const CHECKPOINT_BYTES_MAX: usize = 64 << 20;
/// Largest pack footer that is accepted, in raw bytes.
pub const FOOTER_BYTES_MAX: usize = 64 << 20;
/// Log entries between two checkpoints.
pub const CHECKPOINT_ENTRIES: u64 = 64;
/// How long a reader who can be shown what is known waits for what is new.
pub const REFRESH_PATIENCE: Duration = Duration::from_secs(1);
/// Logs that a mount asks at the same time what is new in them.
pub const REFRESHES_UNDER_WAY: usize = 16;
/// How old what a process knows of the repository's log may be when it asks the log of a source of an encrypted repository:
/// whom a pin shuts out can deceive it for so long.
pub const PINS_AGE: Duration = Duration::from_secs(60);
/// Logs that one entry of the repository's log pins; 56 bytes each, in an entry of at most [`LOG_ENTRY_BYTES_MAX`].
pub const PINS_PER_ENTRY: usize = 4096;
const _: () = assert!(PINS_PER_ENTRY * 128 < LOG_ENTRY_BYTES_MAX);
/// Entries that may be missing in a row before what stands behind them is taken for no part of the log.
pub const LOG_GAP_ENTRIES_MAX: u64 = 1024;
/// Problems (unreadable, vanished, changed files) that a point lists by name; more are counted only.
pub const PROBLEMS_MAX: usize = 10_000;
/// Bytes of paths and words in the list of problems.
pub const PROBLEMS_BYTES_MAX: usize = 2 << 20;
/// Bytes of exclude patterns that a point records; all of a log's points are in memory at once.
pub const SCOPE_BYTES_MAX: usize = 4 << 10;

/// Bytes of one set of marks, a bit for each frame of a chain, with which points are weighed (`chain::weight`): enough
/// for a disk of 16 TiB that is all data.
pub const WEIGHT_MARKS_BYTES: usize = 64 << 20;

/// Bytes of decoded frames that a reader keeps.
pub const FRAME_CACHE_BYTES: usize = 96 << 20;
/// Bytes of decoded tree nodes that a reader keeps.
pub const NODE_CACHE_BYTES: usize = 48 << 20;
/// Bytes of memory that a tree writer gives to changed leaves before it writes the coldest: some 100,000 entries, which
/// take a sixth of it when they are written.
pub const DIRTY_LEAF_BYTES: usize = 40 << 20;
/// Chunks that a writer's dedup index holds, newest packs first, in 64 MB, and 72 bytes for each frame that they are in; beyond
/// it, dedup is lost and nothing else.
pub const DEDUP_CHUNKS_MAX: usize = 1 << 20;
/// Points with small packs in which a capture looks for chunks, the newest: each pack is a request, and holds few chunks.
pub const DEDUP_SMALL_POINTS: usize = 128;
/// New content of a pack below which it is small.
pub const DEDUP_SMALL_PACK_BYTES: u64 = 1 << 20;
/// Packs in which a capture looks for chunks.
pub const DEDUP_PACKS_MAX: usize = 4096;
/// Packs that are looked into at the same time where a request is a journey: the footer of one with as many chunks as it can have takes
/// some ten megabytes of memory while it is taken in.
pub const DEDUP_PARALLEL_PACKS: usize = 4;

/// Bytes of files that a capture holds in memory while it reads, compresses and waits its turn.
pub const CAPTURE_UNITS_BYTES: usize = 48 << 20;
/// Heaps of the allocator, glibc's `M_ARENA_MAX`: measured on 2 cores, a mount under parallel reads peaks at 173 MiB with two
/// of them, 182 MiB with four and 217 to 284 MiB with one per thread, and is not slower.
pub const HEAP_ARENAS_MAX: i32 = 4;
/// Allocations from so many bytes on are mappings of their own, glibc's `M_MMAP_THRESHOLD`: larger than any frame or answer to a
/// read, smaller than packs and indexes. A capture of a million files peaks at 187 MiB with it, and at 229 MiB without.
pub const HEAP_MAPPED_BYTES: i32 = 4 << 20;
/// Free bytes at the end of a heap that go back to the system, glibc's `M_TRIM_THRESHOLD`.
pub const HEAP_TRIMMED_BYTES: i32 = 16 << 20;
/// Threads of a capture that read and compress, at most; as many as there are processors otherwise.
pub const CAPTURE_WORKERS_MAX: usize = 16;
/// Files that such a thread has open before it is their turn.
pub const CAPTURE_FILES_AHEAD: usize = 32;

/// Threads that look ahead of a capture's walk.
pub const CAPTURE_SCOUTS: usize = 4;

/// Deadline of one request for metadata to the store.
pub const METADATA_DEADLINE: Duration = Duration::from_secs(10);
/// Deadline of one request for data to the store.
pub const DATA_DEADLINE: Duration = Duration::from_secs(30);
/// Deadline of one request that ends with its object durable: a slow disk has a whole pack to sync.
pub const DURABLE_DEADLINE: Duration = Duration::from_secs(120);

/// How much longer a request over a network may take for each MiB that it writes: an uplink of 32 KiB/s suffices for one,
/// and two parts of an upload share it. A connection that is dead is noticed much earlier, by the kernel.
pub const WRITE_TIME_PER_MIB: Duration = Duration::from_secs(32);
/// How long a server that has never answered may be out of reach before requests give up: most likely its address is wrong.
pub const UNREACHED_DEADLINE: Duration = Duration::from_secs(4);
/// A request that is tried again for longer is told of, once.
pub const RETRY_TOLD_AFTER: Duration = Duration::from_secs(3);

/// Names in one listing over a network, at most: of a repository with packs of 256 TB.
pub const LISTING_NAMES_MAX: usize = 4 << 20;
/// Names in a page of a listing, as S3 has it.
pub const LISTING_PAGE_NAMES: usize = 1000;
/// How often a listing in no order is begun anew when it breaks off.
pub const LISTING_RESTARTS_MAX: u32 = 3;

/// The shortest pause before a request over a network is made again; it doubles with each failure.
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest of these pauses.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Repetitions that each answer earns for all requests of a store.
pub const RETRIES_PER_ANSWER: u64 = 2;
/// Repetitions that a store's requests begin with, and save up at most: all that a store gets while it is down.
pub const RETRIES_SAVED_MAX: u64 = 64;
/// A server that asks to be left alone for longer (`Retry-After`) is asked again after this.
pub const RESPITE_MAX: Duration = Duration::from_secs(300);
/// Parts of its deadline after which one attempt of a request counts as lost when nothing has come.
pub const ATTEMPTS_PER_DEADLINE: u32 = 3;
/// Answers to reads by whose times a slow one is told.
pub const HEDGE_SAMPLES: usize = 64;
/// Answers that must have been seen before any read counts as slow.
pub const HEDGE_SAMPLES_MIN: usize = 16;
/// Of a hundred answers so many come in the time after which a read is slow.
pub const HEDGE_PERCENTILE: usize = 95;
/// A read is not slow before this.
pub const HEDGE_DELAY_MIN: Duration = Duration::from_millis(10);
/// Of a hundred reads so many may be made a second time because they are slow.
pub const HEDGES_PER_HUNDRED: u64 = 5;

/// Bytes of a block, in which what is fetched over a network is kept.
pub const BLOCK_BYTES: usize = 16 << 10;
/// Bytes of fetched blocks that a repository's readers keep in memory.
pub const BLOCK_CACHE_BYTES: usize = 48 << 20;
/// Bytes around a node that are fetched with it: at this size a journey takes longer than its cargo, and the tree of a small
/// point comes in one or two.
pub const NODE_READ_BYTES: u64 = 1 << 20;
/// Bytes that are fetched ahead of reading in order at first, at most; each next time twice as many.
pub const AHEAD_BYTES_MIN: u64 = 1 << 20;
/// How often what has been read is fetched ahead at first: two small frames beside one another may be an accident.
pub const AHEAD_FIRST_TIMES: u64 = 16;
/// Bytes that are fetched ahead at once, at most: at 200 MB/s that takes longer than a journey.
pub const AHEAD_BYTES_MAX: u64 = 8 << 20;
/// Bytes that may be on their way ahead of all readers.
pub const AHEAD_IN_FLIGHT_BYTES_MAX: u64 = 24 << 20;
/// Requests that may be on their way ahead of all readers.
pub const AHEAD_REQUESTS_MAX: usize = 16;
/// Bytes that may lie between two frames that are fetched by one request.
pub const COALESCE_GAP_BYTES: u64 = 256 << 10;
/// Bytes of an object in a directory that the kernel is asked for ahead of whoever reads it in order.
pub const LOCAL_AHEAD_BYTES: u64 = 8 << 20;
/// Readings in order that are told apart.
pub const STREAMS_MAX: usize = 32;
/// Bytes that reading in order may skip, or go back, once it is known to be that.
pub const STREAM_SLACK_BYTES: u64 = 1 << 20;
/// Bytes that the second of two reads may skip for them to count as reading in order.
pub const STREAM_STEP_BYTES: u64 = 32 << 10;
/// Reading in order reads at least one part in so many of what it passes, but for [`COALESCE_GAP_BYTES`].
pub const STREAM_READ_PARTS: u64 = 4;
/// Bytes of blocks of one object that the disk cache keeps in one file.
pub const CACHE_SLAB_BYTES: u64 = 4 << 20;
/// Bytes of the disk cache, unless configured.
pub const DISK_CACHE_BYTES: u64 = 4 << 30;
/// Bytes of the smallest disk cache that can be configured.
pub const DISK_CACHE_BYTES_MIN: u64 = 64 << 20;
/// Bytes that a process writes into the disk cache between two looks at its size.
pub const DISK_CACHE_LOOK_BYTES: u64 = 16 << 20;
/// How long a reader waits for the disk cache's disk. Longer than a busy disk takes, and than fetching anew.
pub const CACHE_WAIT: Duration = Duration::from_secs(5);

/// How long it may take to reach a store's server; a request has its own deadline besides.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long a connection that nobody uses is kept.
pub const IDLE_CONNECTION: Duration = Duration::from_secs(55);
/// How often a client tries a request again by itself, within a request's deadline.
pub const CLIENT_RETRIES_MAX: usize = 2;
/// How long keys that a program gave out are used without asking it again, where it names no end.
pub const CREDENTIALS_KEPT: Duration = Duration::from_secs(300);
/// Bytes of the largest file with credentials, and of the largest answer of a program that gives some out.
pub const CREDENTIALS_BYTES_MAX: u64 = 1 << 20;

/// How long a store over a network is believed to honour conditional creation once it has shown it.
pub const REMOTE_PROOF_KEPT: Duration = Duration::from_secs(3600);

/// Between two signs of life of a writer in single-writer mode.
pub const LEASE_BEAT: Duration = Duration::from_secs(15);
/// So long after its last sign of life that was acknowledged such a writer writes nothing more.
pub const LEASE_VALID: Duration = Duration::from_secs(60);
/// Without a sign of life for so long a writer is believed to be gone.
pub const LEASE_STALE: Duration = Duration::from_secs(120);
/// How long a writer waits for another to end.
pub const LEASE_WAIT: Duration = Duration::from_secs(300);
/// Between two looks at another's signs of life.
pub const LEASE_LOOK: Duration = Duration::from_secs(2);
/// How old a mount's knowledge may be of whether its repository is in single-writer mode.
pub const SINGLE_WRITER_LOOK: Duration = Duration::from_secs(60);

/// How old what a mount shows of a local repository may be; what is committed through it shows at once.
pub const LOCAL_REFRESH_SECONDS: u64 = 2;
/// The same of a repository over a network, where each look costs a request.
pub const REMOTE_REFRESH_SECONDS: u64 = 10;
/// Largest configuration file that is read, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// What was fetched of the repository's log before its key counts for nothing when it is older: somebody may have been asked for
/// a passphrase meanwhile.
pub const SURVEY_AGE: Duration = Duration::from_secs(REMOTE_REFRESH_SECONDS);
/// A mount over a network reads the logs of so many sources before anybody looks; of a repository with more, none.
pub const MOUNT_SOURCES_AHEAD: usize = 4;
/// Requests of a mount for names and attributes in points that workers serve at the same time.
pub const MOUNT_METADATA_WORKERS_MAX: usize = 24;
/// Requests of a mount for contents that workers serve at the same time.
pub const MOUNT_DATA_WORKERS_MAX: usize = 24;
/// Requests of a mount for directories of sources and points that workers serve at the same time.
pub const MOUNT_POINTS_WORKERS_MAX: usize = 8;
/// Requests of a mount for `.amberfs` that workers serve at the same time.
pub const MOUNT_DESK_WORKERS_MAX: usize = 4;
/// Requests of each kind that may wait for a worker; one more is refused.
pub const MOUNT_QUEUE_MAX: usize = 4096;
/// Bytes of the largest read or write that the kernel may send at once.
pub const MOUNT_REQUEST_BYTES: u32 = 1 << 20;
/// Reads ahead that the kernel may have under way at once.
pub const MOUNT_BACKGROUND_MAX: u16 = 64;
/// Entries that are looked at for small files in the frame of one that has been read.
pub const MOUNT_BESIDE_ENTRIES_MAX: usize = 1024;
/// KiB that the kernel reads ahead, where we may set it.
pub const MOUNT_READ_AHEAD_KIB: u32 = 1024;
/// Bytes at which the log of a mount in the background begins anew; the one before is kept.
pub const MOUNT_LOG_BYTES_MAX: u64 = 1 << 20;
/// Bytes of the largest generated file that a mount keeps for whoever has it open.
pub const GENERATED_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a logical sector of a disk.
pub const DISK_SECTOR_BYTES: RangeInclusive<u32> = 512..=64 << 10;
/// Bytes of the largest disk: its qcow2 image, tables included, still has offsets that the kernel can express.
pub const DISK_BYTES_MAX: u64 = 1 << 60;
/// Bytes of a disk's `map.json`; a disk of more pieces is told in larger grains.
pub const DISK_MAP_BYTES_MAX: u64 = 16 << 20;
/// Generated contents of `.amberfs/` that are kept from their lookup to their opening.
pub const DESK_RECENT_CONTENTS: std::num::NonZeroUsize = std::num::NonZeroUsize::new(64).expect("not zero");

/// Longest line in the control file, in bytes.
pub const CONTROL_LINE_BYTES_MAX: usize = 4095;
/// A label's length, in bytes.
pub const LABEL_BYTES_MAX: usize = 128;
/// A source name's length, in bytes.
pub const SOURCE_NAME_BYTES_MAX: usize = 64;
/// Bytes of one write to the control file; a longer one would reach us in pieces.
pub const CONTROL_BATCH_BYTES_MAX: usize = 64 << 10;
/// A job id's length, in bytes.
pub const JOB_ID_BYTES_MAX: usize = 64;
/// After this a job is given up, unless its command says otherwise.
pub const JOB_TIMEOUT: Duration = Duration::from_secs(7 * 86400);
/// The longest time that a command may give a job.
pub const JOB_TIMEOUT_MAX: Duration = Duration::from_secs(365 * 86400);
/// Jobs that run at once for one mount.
pub const JOBS_AT_ONCE: usize = 2;
/// How much the priority of a job is lowered (`nice(1)`).
pub const JOB_NICENESS: i32 = 10;
/// How long a job's process may take to end when asked to.
pub const JOB_GRACE: Duration = Duration::from_secs(10);
/// Jobs that may wait for their turn.
pub const JOBS_QUEUED_MAX: usize = 256;
/// Ended jobs that are remembered, newest first.
pub const JOBS_ENDED_MAX: usize = 1000;
/// Bytes that a job's `log` keeps, newest lines first.
pub const JOB_LOG_BYTES_MAX: usize = 64 << 10;
/// Bytes of its `log` that an ended job keeps.
pub const JOB_LOG_KEPT_BYTES: usize = 4 << 10;
/// Bytes of one line that a job's process may say; the rest of a longer one is dropped.
pub const JOB_LINE_BYTES_MAX: usize = 64 << 10;
/// Bytes of a journal at which it is rewritten without what is past.
pub const JOURNAL_BYTES_MIN: u64 = 1 << 20;
/// Bytes of `events` and of `errors` at which the older half goes.
pub const EVENTS_BYTES_MAX: usize = 1 << 20;
/// Faults that are counted so as not to tell of each of their repeats.
pub const FAULTS_MAX: usize = 1000;

const _: () = {
    assert!(INLINE_BYTES_MAX < GROUPED_CHUNK_BYTES_MAX);
    assert!(2 * GROUPED_CHUNK_BYTES_MAX <= GROUP_FRAME_BYTES);
    assert!(GROUP_FRAME_BYTES + GROUPED_CHUNK_BYTES_MAX <= FRAME_RAW_BYTES_MAX);
    assert!(CDC_BYTES.0 <= CDC_BYTES.1 && CDC_BYTES.1 <= CDC_BYTES.2);
    assert!(CDC_BYTES.2 <= FRAME_RAW_BYTES_MAX);
    assert!(WHOLE_FILE_BYTES_MAX as usize <= FRAME_RAW_BYTES_MAX);
    assert!(WHOLE_FILE_BYTES_MAX < FIXED_FILE_BYTES_MIN);
    assert!(LEAF_BYTES + ENTRY_XATTR_BYTES_MAX < FRAME_RAW_BYTES_MAX);
    assert!(FRAME_RAW_BYTES_MAX < FRAME_STORED_BYTES_MAX);
    assert!(PROBLEMS_BYTES_MAX + 16 * PROBLEMS_MAX < FRAME_RAW_BYTES_MAX);
    assert!(MIXED_PACK_BYTES <= META_PACK_BYTES && META_PACK_BYTES <= DATA_PACK_BYTES);
    assert!(DATA_PACK_BYTES.is_power_of_two() && META_PACK_BYTES.is_power_of_two());
    // The last frame of a pack may be one of the smallest chunks only.
    // In an encrypted repository, chunks may be of one byte.
    assert!(
        (PACK_ITEMS_MAX + 1 + GROUP_FRAME_BYTES + GROUPED_CHUNK_BYTES_MAX) * FOOTER_ITEM_BYTES < FOOTER_BYTES_MAX / 2
    );
    assert!((PACK_ITEMS_MAX + 1 + FRAME_RAW_BYTES_MAX / INLINE_BYTES_MAX) * FOOTER_ITEM_BYTES < FOOTER_BYTES_MAX / 4);
    assert!(JOB_LOG_KEPT_BYTES <= JOB_LOG_BYTES_MAX);
    assert!(CONTROL_LINE_BYTES_MAX < CONTROL_BATCH_BYTES_MAX);
    assert!(2 * LEASE_BEAT.as_secs() < LEASE_VALID.as_secs() && LEASE_VALID.as_secs() < LEASE_STALE.as_secs());
    assert!(LEASE_STALE.as_secs() < LEASE_WAIT.as_secs());
    assert!(JOB_TIMEOUT.as_secs() <= JOB_TIMEOUT_MAX.as_secs());
    assert!(UPLOAD_PART_BYTES as u64 <= META_PACK_BYTES);
    assert!(CACHE_SLAB_BYTES.is_multiple_of(BLOCK_BYTES as u64) && NODE_READ_BYTES.is_multiple_of(BLOCK_BYTES as u64));
    // What is ahead of one reader stays until it is read, and a frame of the largest size beside it.
    assert!(
        AHEAD_IN_FLIGHT_BYTES_MAX >= 3 * AHEAD_BYTES_MAX && BLOCK_CACHE_BYTES as u64 >= 2 * AHEAD_IN_FLIGHT_BYTES_MAX
    );
    assert!(4 * DISK_CACHE_LOOK_BYTES <= DISK_CACHE_BYTES_MIN && DISK_CACHE_BYTES_MIN <= DISK_CACHE_BYTES);
    assert!(RETRY_PAUSE_MAX.as_secs() < METADATA_DEADLINE.as_secs());
    assert!(UNREACHED_DEADLINE.as_secs() < METADATA_DEADLINE.as_secs());
    // No request that has the time comes before the server wanted it, unless somebody has chosen longer deadlines.
    assert!(RESPITE_MAX.as_secs() > DURABLE_DEADLINE.as_secs());
    assert!(HEDGE_SAMPLES_MIN <= HEDGE_SAMPLES && HEDGE_PERCENTILE < 100);
};
