//! Chunks that are found twice while units are under way side by side.

use std::collections::HashMap;

use crate::capture::counts::Counts;
use crate::capture::identities::Identities;
use crate::capture::pipeline::Pipeline;
use crate::capture::planner::Planner;
use crate::capture::stat::{Identity, Kind, Stat};
use crate::capture::testing::{World, noise};
use crate::capture::unit::{BeginJob, Cut, EndJob, Job, SliceJob};
use crate::capture::{CaptureError, Progress};
use crate::format::entry::Meta;
use crate::format::leaf::Maps;
use crate::format::{FileId, Key};
use crate::repo::tree::Tree;
use crate::repo::{Dedup, RepoError, Session};

const CHUNK: usize = 300;

/// One file of a chunk for each of `contents`, each in a unit of its own.
fn plan(planner: &mut Planner<'_>, contents: &[u64]) -> Result<(), crate::capture::planner::Halt> {
    let begin = BeginJob { map: FileId(77), grid: None, mapped: false };
    planner.send_alone(vec![Job::Begin(begin)], 0)?;
    for (index, content) in contents.iter().enumerate() {
        let cuts = vec![Cut { offset: (index * CHUNK) as u64, place: 0..CHUNK }];
        planner.send_alone(vec![Job::Slice(SliceJob::Cut { data: noise(CHUNK, *content), cuts })], CHUNK)?;
    }
    let meta = Meta { size: (contents.len() * CHUNK) as u64, links: 1, ..Meta::default() };
    let stat = Stat { kind: Kind::File, identity: Identity { device: (0, 0), inode: 0 }, node: (0, 0), meta };
    let end = EndJob {
        key: Key::entry(FileId::ROOT, b"file"),
        old: None,
        file: None,
        stat,
        xattrs: Vec::new(),
        path: b"file".to_vec(),
        failed: None,
        inode: None,
        touched: false,
        only_content: false,
    };
    planner.send_alone(vec![Job::End(Box::new(end))], 0)
}

/// What is stored with an index of at most `chunks_max` chunks, and how many chunks that took.
fn stored(contents: &[u64], workers: usize, chunks_max: usize) -> Result<(Vec<u8>, usize), CaptureError> {
    let world = World::new();
    let session = world.log.begin()?;
    let chain = world.log.open_chain(&session)?;
    let session = Session::begin(&world.repo, world.source.id, chain, session).unwrap();
    let reader = session.reader();
    let dedup = Dedup::over_at_most(world.repo.reader(world.source.id), Vec::new(), chunks_max);
    let (identities, counts, progress) = (Identities::from(FileId::FIRST), Counts::default(), Progress::new());
    let pipeline = Pipeline {
        session: &session,
        parent: None,
        dedup: &dedup,
        counts: &counts,
        identities: &identities,
        progress: &progress,
        workers,
    };
    let (recorded, _) = pipeline.run(|mut planner| plan(&mut planner, contents), || world.env.now())?;
    let mut bytes = Vec::new();
    for item in Tree::<Maps>::new(reader.clone(), recorded.roots.and_then(|roots| roots.maps)).scan(0) {
        for extent in &item?.value().extents {
            let frame = reader.data(&extent.chunk.frame)?;
            bytes.extend_from_slice(&frame[extent.chunk.start as usize..][..extent.chunk.bytes as usize]);
        }
    }
    Ok((bytes, usize::try_from(recorded.stats.new_bytes).unwrap() / CHUNK))
}

#[test]
fn twins_at_every_distance_are_captured_with_an_index_that_is_full() {
    let mut contents: Vec<u64> = Vec::new();
    let mut seen: HashMap<u64, usize> = HashMap::new();
    for index in 0..6000u64 {
        // Every other chunk is the twin of one up to 120 units before it.
        let distance = index / 2 % 120 + 1;
        let twin = (index % 2 == 1).then(|| index.checked_sub(distance)).flatten();
        let content = twin.and_then(|twin| contents.get(usize::try_from(twin).unwrap())).copied().unwrap_or(index);
        *seen.entry(content).or_default() += 1;
        contents.push(content);
    }
    let expected: Vec<u8> = contents.iter().flat_map(|content| noise(CHUNK, *content)).collect();
    for workers in [2, 4, 16] {
        for chunks_max in [0, 4, 1000, 1 << 20] {
            let (bytes, chunks) = stored(&contents, workers, chunks_max).unwrap();
            assert!(bytes == expected, "{workers} workers, {chunks_max} chunks");
            assert!((seen.len()..=contents.len()).contains(&chunks));
        }
    }
}

#[test]
fn a_contradiction_of_the_writer_itself_is_not_taken_for_damage_of_what_is_stored() {
    let defect = RepoError::Defect { what: "on purpose".to_owned() };
    assert!(!crate::capture::attempt::is_damage(&CaptureError::Repo(defect)));
    let damage = RepoError::Inconsistent { what: "on purpose".to_owned() };
    assert!(crate::capture::attempt::is_damage(&CaptureError::Repo(damage)));
}
