//! Captures a stream, such as the output of a dump, as the one file of a point.
//!
//! The stream is cut by content while it is read, with memory for a few slices, and compared with the
//! chain's chunks: a dump that resembles the previous one costs little. The parent's trees, which are
//! small beside a stream, are read before it: a damaged parent is then found while all of the stream is
//! still to come. A stream that fails before its
//! end yields no point, because half a dump looks like a whole one.

use std::io::Read;
use std::sync::Arc;

use super::attempt::{Capture, Outcome, Plan};
use super::error::CaptureError;
use super::options::Options;
use super::planner::Halt;
use super::progress::Progress;
use super::recorder::mapped;
use super::single;
use super::stat::Kind;
use super::unit::{BeginJob, Change, EndJob, Job, SliceJob};
use crate::base::limits;
use crate::chain::SourceLog;
use crate::format::entry::{Body, Content, Entry};
use crate::format::log::{SourceKind, SourceRecord};
use crate::format::{FileId, Key};
use crate::repo::Repo;
use parking_lot::Mutex;

/// Captures what `stream` yields as the file `name` of a point of `source`.
///
/// # Errors
/// As `capture_tree`; [`CaptureError::Stream`] when the stream fails.
pub fn capture_stream(
    repo: &Arc<Repo>,
    log: &SourceLog,
    source: &SourceRecord,
    name: &str,
    stream: &mut (dyn Read + Send),
    options: &Options,
    progress: &Progress,
) -> Result<Outcome, CaptureError> {
    super::must_be(source, SourceKind::Stream)?;
    let fits = (1..=limits::NAME_BYTES_MAX).contains(&name.len());
    if !fits || name.contains(['/', '\0']) || name == "." || name == ".." {
        return Err(CaptureError::StreamName { name: name.to_owned() });
    }
    let capture = Capture { repo, log, source, place: name.as_bytes(), options, progress };
    let stream = Mutex::new(Some(stream));
    capture.run(&|plan: Plan<'_>| {
        // A tree is read again beside no parent when its parent proves damaged. A stream is gone by then.
        plan.parent.prove()?;
        match stream.lock().take() {
            Some(stream) => read_stream(plan, name, stream),
            None => {
                let why = plan.reason.strip_prefix("full: ").unwrap_or(plan.reason).to_owned();
                Err(CaptureError::StreamSpent { why }.into())
            }
        }
    })
}

fn read_stream(mut plan: Plan<'_>, name: &str, stream: &mut (dyn Read + Send)) -> Result<(), Halt> {
    let key = Key::entry(FileId::ROOT, name.as_bytes());
    single::root(&mut plan, &key)?;
    let old = plan.parent.get(&key)?;
    plan.counts.add_name(Kind::File);
    plan.progress.at(name.as_bytes());

    let kept = old.as_ref().and_then(mapped);
    let map = kept.unwrap_or_else(|| plan.identities.fresh());
    let begin = BeginJob { map, grid: None, mapped: kept.is_some() };
    let mut begun = false;
    let mut slicer = plan.planner.slicer();
    let Plan { planner, progress, .. } = &mut plan;
    let ran = slicer.run(
        0,
        u64::MAX,
        |_, space| loop {
            match stream.read(space) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(bytes) => {
                    progress.add_files(0, bytes as u64);
                    return Ok(bytes);
                }
                other => return other,
            }
        },
        |data, cuts| {
            if !begun {
                begun = true;
                planner.send_alone(vec![Job::Begin(begin)], 0)?;
            }
            let weight = data.len();
            planner.send_alone(vec![Job::Slice(SliceJob::Cut { data, cuts })], weight)
        },
    )?;
    if let Some(source) = ran.failed {
        return Err(CaptureError::Stream { source }.into());
    }
    plan.progress.add_files(1, 0);
    let stat = single::made(plan.started, ran.bytes);
    plan.counts.add_bytes(&stat);
    let (data, cuts) = slicer.finish();
    if !begun && data.len() <= plan.planner.inline_bytes_max() {
        let content = if data.is_empty() { Content::Hole } else { Content::Inline(data) };
        let new = Entry { meta: stat.meta, xattrs: Vec::new(), body: Body::File(content) };
        plan.planner.add(Job::Change(Change { key, old, new: Some(new) }))?;
        return plan.planner.flush();
    }
    plan.planner.flush()?;
    if !begun {
        plan.planner.send_alone(vec![Job::Begin(begin)], 0)?;
    }
    let weight = data.len();
    plan.planner.send_alone(vec![Job::Slice(SliceJob::Cut { data, cuts })], weight)?;
    let end = EndJob {
        key,
        old,
        file: None,
        stat,
        xattrs: Vec::new(),
        path: name.as_bytes().to_vec(),
        failed: None,
        inode: None,
        touched: false,
        only_content: false,
    };
    plan.planner.send_alone(vec![Job::End(Box::new(end))], 0)
}
