//! Frames: compressed, hashed and back, as they are stored without encryption. What sealing adds shows in `reads` and `captures`.

use amberfs::format::frame::{self, FrameKind};
use bytes::Bytes;

use crate::fixture::{noise, words};
use crate::measure;

pub(crate) fn run() {
    for (content, bytes) in
        [("text", words as fn(usize, usize) -> Vec<u8>), ("noise", |seed, bytes| noise(seed as u64, bytes))]
    {
        for size in [64 << 10, 256 << 10, 1 << 20] {
            let raw = bytes(size, size);
            let encoded = frame::encode(FrameKind::Data, &raw, 1);
            let stored = Bytes::copy_from_slice(&encoded.bytes);
            let part = 100.0 * encoded.bytes.len() as f64 / size as f64;
            let what = format!("{content} frame of {} KiB ({part:.0} % stored)", size >> 10);
            measure(&format!("encode a {what}, each KiB"), size >> 10, || {
                std::hint::black_box(frame::encode(FrameKind::Data, &raw, 1));
            });
            measure(&format!("check and decode a {what}, each KiB"), size >> 10, || {
                let (head, _) = frame::check(&stored).expect("a whole frame");
                std::hint::black_box(frame::open(&head, frame::body_of(&stored)).expect("decode"));
            });
        }
    }
}
