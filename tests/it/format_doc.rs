//! `docs/format.md` says what the code does: its constants are looked up in its text.

use amberfs::base::limits;
use amberfs::format::{envelope, frame, pack};

const DOC: &str = include_str!("../../docs/format.md");

/// The document with its line breaks as spaces, so that a sentence is found wherever it wraps.
fn text() -> String {
    DOC.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn says(sentence: &str) {
    assert!(text().contains(sentence), "docs/format.md does not say {sentence:?}");
}

#[test]
fn its_sizes_are_those_of_the_code() {
    let kib = |bytes: usize| format!("{} KiB", bytes >> 10);
    let mib = |bytes: usize| format!("{} MiB", bytes >> 20);
    says(&format!("Version {}: not frozen", envelope::FORMAT_VERSION));
    says(&format!("{} bytes of header, then the body, which is the codec's bytes", envelope::HEADER_BYTES));
    says(&format!("The smallest thing that is ever read: {} bytes of header", frame::HEADER_BYTES));
    says(&format!(
        "a body of at most {} raw (a footer: {})",
        mib(limits::FRAME_RAW_BYTES_MAX),
        mib(limits::FOOTER_BYTES_MAX)
    ));
    says(&format!("magic `{}`", frame::MAGIC.escape_ascii()));
    says(&format!("walking their headers from byte {}", pack::HEADER_BYTES));
    says(&format!("**Trailer**, the last {} bytes", pack::TRAILER_BYTES));
    says(&format!("about every {} entries", limits::CHECKPOINT_ENTRIES));
    says(&format!("| up to {} bytes | none: inside the entry |", limits::INLINE_BYTES_MAX));
    says(&format!("| up to {} | the whole file |", mib(usize::try_from(limits::WHOLE_FILE_BYTES_MAX).unwrap())));
    let (min, average, max) = limits::CDC_BYTES;
    says(&format!("FastCDC (2020), {} / {} / {}", kib(min), kib(average), mib(max)));
    let fixed = usize::try_from(limits::FIXED_FILE_BYTES_MIN).unwrap();
    says(&format!(
        "| from {} on, taken to be updated in place | fixed {} |",
        mib(fixed),
        kib(limits::FIXED_CHUNK_BYTES)
    ));
    says(&format!(
        "Chunks of up to {} share frames of about {}",
        kib(limits::GROUPED_CHUNK_BYTES_MAX),
        kib(limits::GROUP_FRAME_BYTES)
    ));
    says(&format!("none if they have more than {} bytes", limits::SCOPE_BYTES_MAX));
    says(&format!("page of up to {} extents", limits::MAP_PAGE_EXTENTS));
    says(&format!("| count, 1 to {} |", limits::ENTRY_EXTENTS_MAX));
    says(&format!("there are at most {} levels", limits::TREE_LEVELS_MAX));
    says(&format!("A name is 1 to {} bytes", limits::NAME_BYTES_MAX));
}

#[test]
fn its_kinds_are_those_of_the_code() {
    use amberfs::format::frame::FrameKind;
    let kinds = [
        (FrameKind::Data, "data"),
        (FrameKind::Entries, "entries node"),
        (FrameKind::Maps, "maps node"),
        (FrameKind::Usage, "usage node"),
        (FrameKind::Problems, "problems"),
        (FrameKind::Footer, "footer"),
        (FrameKind::Padding, "padding"),
    ];
    says(&kinds.map(|(kind, name)| format!("{} {name}", kind as u8)).join(", "));
    use envelope::Kind;
    let kinds = [
        (Kind::Marker, "marker"),
        (Kind::RepoEntry, "repository log entry"),
        (Kind::SourceEntry, "source log entry"),
        (Kind::RepoCheckpoint, "repository checkpoint"),
        (Kind::SourceCheckpoint, "source checkpoint"),
        (Kind::Slot, "key slot"),
        (Kind::Removal, "mark of a removal"),
    ];
    says(&kinds.map(|(kind, name)| format!("{} {name}", kind as u8)).join(", "));
}
