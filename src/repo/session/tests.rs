use super::*;
use crate::base::{Env, Instant};
use crate::format::frame;
use crate::format::{ChunkHash, LogNumber, Nonce};
use crate::repo::dedup::read_footer;
use crate::repo::{Credential, Repo, Session};
use crate::seal::derive::Cost;
use crate::store::Store;

const SOURCE: SourceId = SourceId(1);

fn begin(repo: &Arc<Repo>) -> Session {
    let id = SessionId { base: LogNumber(0), random: Nonce(repo.env().random()) };
    Session::begin(repo, SOURCE, ChainId(0), id).unwrap()
}

fn repo() -> Arc<Repo> {
    Repo::init(Store::memory(), Env::seeded(1, Instant::from_nanos(0))).unwrap()
}

/// Bytes that do not compress.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0u8; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
    data
}

/// Appends a frame of `count` chunks of one byte.
fn append(session: &Session, seed: u64, count: u32) -> FrameRef {
    let raw = noise(count as usize, seed);
    let chunk = |start: u32| {
        let hash = ChunkHash(*blake3::hash(&[seed.to_le_bytes(), u64::from(start).to_le_bytes()].concat()).as_bytes());
        PackedChunk { hash, start, bytes: 1 }
    };
    let chunks: Vec<PackedChunk> = (0..count).map(chunk).collect();
    session.append(frame::encode(FrameKind::Data, &raw, count), &chunks).unwrap()
}

#[test]
fn a_pack_is_closed_when_its_footer_would_grow_too_long() {
    let repo = repo();
    let session = begin(&repo).with_items_max(100);
    let (id, reader) = (session.id(), session.reader());
    let frames: Vec<FrameRef> = (0..40).map(|seed| append(&session, seed, 30)).collect();
    session.data_complete();
    for seed in 0..250 {
        session.append(frame::encode(FrameKind::Entries, &noise(9, seed), 0), &[]).unwrap();
    }
    let totals = session.finish().unwrap();
    assert_eq!(totals.packs, 10 + 3);
    let mut items = 0;
    for ordinal in 0..totals.packs {
        let pack = PackId { chain: ChainId(0), session: id, ordinal: PackOrdinal(ordinal) };
        let footer = read_footer(&reader, pack).unwrap();
        let here: usize = footer.frames.iter().map(|frame| 1 + frame.chunks.len()).sum();
        assert!(here <= 100 + 30, "{here} items in pack {ordinal}");
        items += here;
    }
    assert_eq!(items, 40 * 31 + 250);
    for (seed, frame) in (0..).zip(&frames) {
        assert_eq!(repo.reader(SOURCE).data(frame).unwrap(), noise(30, seed));
    }
}

#[test]
fn the_longest_footer_is_read_back() {
    let repo = repo();
    let session = begin(&repo);
    let (id, reader) = (session.id(), session.reader());
    // One short of full, and then the frame of the most chunks.
    let chunks = u32::try_from(limits::FRAME_RAW_BYTES_MAX / limits::INLINE_BYTES_MAX).unwrap();
    let mut left = limits::PACK_ITEMS_MAX - 1;
    for seed in 0.. {
        let count = left.saturating_sub(1).min(8191);
        append(&session, seed, u32::try_from(count).unwrap());
        left -= 1 + count;
        if left == 0 {
            break;
        }
    }
    append(&session, u64::MAX, chunks);
    let totals = session.finish().unwrap();
    assert_eq!(totals.packs, 1);
    let footer = read_footer(&reader, PackId { chain: ChainId(0), session: id, ordinal: PackOrdinal(0) }).unwrap();
    let items: usize = footer.frames.iter().map(|frame| 1 + frame.chunks.len()).sum();
    assert_eq!(items, limits::PACK_ITEMS_MAX + chunks as usize);
}

#[test]
fn metadata_beside_data_is_found_again_however_much_of_it_there_is() {
    let repo = repo();
    let session = begin(&repo);
    append(&session, 1, 30);
    session.data_complete();
    let reader = session.reader();
    let mut nodes: Vec<(u64, FrameRef)> = Vec::new();
    for seed in 0..18u64 {
        let raw = noise(1 << 20, seed);
        nodes.push((seed, session.append(frame::encode(FrameKind::Entries, &raw, 0), &[]).unwrap()));
        // The writer may need any node again that it has written.
        for (seed, node) in nodes.iter().step_by(5) {
            assert!(reader.fetch(node, FrameKind::Entries).unwrap() == noise(1 << 20, *seed), "node {seed}");
        }
    }
    session.finish().unwrap();
    for (seed, node) in &nodes {
        assert!(repo.reader(SOURCE).fetch(node, FrameKind::Entries).unwrap() == noise(1 << 20, *seed));
    }
}

fn encrypted() -> Arc<Repo> {
    let credential = Credential::KeyFile(Secret::new([7; 32]));
    let env = Env::seeded(1, Instant::from_nanos(0));
    Repo::init_encrypted(Store::memory(), env, &credential, "test", Cost::STANDARD).unwrap()
}

#[test]
fn a_pack_of_an_encrypted_repository_is_padded_whatever_its_footer_does() {
    let repo = encrypted();
    for seed in 0..32 {
        let session = begin(&repo);
        for frame in 0..2000 + 50 * seed {
            let seed = (seed << 32) + frame;
            let bytes = noise(1, seed)[0];
            let chunk = PackedChunk { hash: ChunkHash([bytes; 32]), start: 0, bytes: bytes.into() };
            session.append(frame::encode(FrameKind::Data, &noise(bytes.into(), seed), 1), &[chunk]).unwrap();
        }
        session.finish().unwrap();
    }
    let objects = repo.store().list("source/", None, None).unwrap();
    assert_eq!(objects.len(), 32);
    for object in objects {
        assert_eq!(padme::padded_len(object.bytes), object.bytes, "{object:?}");
    }
}

#[test]
fn a_full_pack_of_an_encrypted_repository_is_hardly_padded() {
    let repo = encrypted();
    let session = begin(&repo);
    let (mut data, mut meta) = (0, 0);
    while data < 5 * limits::DATA_PACK_BYTES / 2 {
        let frame = frame::encode(FrameKind::Data, &noise(limits::FIXED_CHUNK_BYTES, data), 1);
        data += frame.bytes.len() as u64;
        let chunk = PackedChunk { hash: ChunkHash([1; 32]), start: 0, bytes: frame.raw_bytes };
        session.append(frame, &[chunk]).unwrap();
    }
    session.data_complete();
    while meta < 5 * limits::META_PACK_BYTES / 2 {
        let frame = frame::encode(FrameKind::Entries, &noise(limits::LEAF_BYTES, meta), 0);
        meta += frame.bytes.len() as u64;
        session.append(frame, &[]).unwrap();
    }
    session.finish().unwrap();
    let mut packs = repo.store().list("", None, None).unwrap();
    packs.retain(|object| object.bytes > limits::MIXED_PACK_BYTES / 4);
    let full = |bytes| packs.iter().filter(|pack| pack.bytes == bytes).count();
    assert_eq!((full(limits::DATA_PACK_BYTES), full(limits::META_PACK_BYTES)), (2, 2), "{packs:?}");
    assert_eq!(packs.len(), 6);
}
