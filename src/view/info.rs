//! `info.json`: what a source's log says, for people and scripts.

use serde_json::{Value, json};

use crate::base::Instant;
use crate::chain::{Point, SourceState, origin};
use crate::format::log::{Deletion, SourceKind, SourceRecord};

/// An instant as RFC 3339 in UTC.
pub fn time(instant: Instant) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(instant.nanos())) {
        Ok(timestamp) => timestamp.to_string(),
        Err(_) => instant.nanos().to_string(),
    }
}

/// A point as JSON: the same object in `info.json` and in the output of `amberfs points --json`.
pub fn point(state: &SourceState, point: &Point) -> Value {
    let commit = &point.commit;
    let stats = &commit.stats;
    json!({
        "id": point.id.0,
        "name": commit.name,
        "kind": if point.is_full() { "full" } else { "incremental" },
        "chain": commit.chain.0,
        "position": point.position,
        "parent": state.parent(point).map(|parent| parent.id.0),
        "labels": commit.labels,
        "started": time(commit.started),
        "captured": time(commit.captured),
        "committed": time(point.committed),
        "host": commit.origin.host,
        "path": String::from_utf8_lossy(&commit.origin.path),
        "writer": commit.writer,
        "reason": commit.reason,
        "files": stats.files,
        "directories": stats.directories,
        "others": stats.others,
        "bytes": stats.bytes,
        "changed_files": stats.changed_files,
        "read_bytes": stats.read_bytes,
        "new_bytes": stats.new_bytes,
        "stored_bytes": stats.stored_bytes,
        "problems": stats.problems,
        "scope": commit.scope.as_ref().map(|scope| json!({
            "excludes": scope.excludes,
            "exclude_caches": scope.exclude_caches,
            "cross_filesystems": scope.cross_filesystems,
        })),
    })
}

/// A point in the trash: what `amberfs undelete` needs, and when it came there.
fn deleted(point: &Point, deletion: &Deletion) -> Value {
    json!({
        "id": point.id.0,
        "name": point.name(),
        "chain": point.chain().0,
        "labels": point.commit.labels,
        "captured": time(point.commit.captured),
        "deleted": time(deletion.written),
    })
}

/// A source's `info.json`.
pub(super) fn render(record: &SourceRecord, state: &SourceState) -> String {
    let points: Vec<Value> = state.points().iter().map(|p| point(state, p)).collect();
    let trash: Vec<Value> = state.trash().map(|(point, deletion)| deleted(point, deletion)).collect();
    let ranges: Vec<Value> = state
        .points()
        .iter()
        .map(|point| json!({ "from": time(point.commit.captured), "to": time(point.commit.captured) }))
        .collect();
    let info = json!({
        "source": record.name,
        "id": record.id.0,
        "kind": match record.kind {
            SourceKind::Tree => "tree",
            SourceKind::Stream => "stream",
            SourceKind::Disk => "disk",
        },
        "origin": origin::describe(&record.origin),
        "chains": state.chains().map(|chain| chain.id.0).collect::<Vec<_>>(),
        "head": state.head().map(|head| head.id.0),
        "points": points,
        "trash": trash,
        "recoverable": ranges,
    });
    let mut text = serde_json::to_string_pretty(&info).unwrap_or_default();
    text.push('\n');
    text
}
