//! Leaves of the usage tree: how often a point's leaves refer to each data frame.

use bincode::{Decode, Encode};

use crate::base::limits;
use crate::format::codec;
use crate::format::error::{FormatError, malformed};
use crate::format::frame::FrameKind;
use crate::format::key::Key;
use crate::format::node::{KeyColumn, TreeKind};

/// The usage tree: [`Key::usage`] to a count of references, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage;

#[derive(Encode, Decode)]
struct Columns {
    keys: KeyColumn,
    references: Vec<u64>,
}

impl TreeKind for Usage {
    type Value = u64;
    const FRAME: FrameKind = FrameKind::Usage;
    const WHAT: &'static str = "usage node";

    fn weight(_key: &Key, _value: &u64) -> usize {
        // Front-coded, little but the frame's number and its count remains.
        12
    }

    fn behind(_value: &u64) -> usize {
        0
    }

    fn encode_leaf(items: &[(Key, u64)]) -> Vec<u8> {
        codec::encode(&Columns {
            keys: KeyColumn::new(items.iter().map(|(key, _)| key)),
            references: items.iter().map(|(_, references)| *references).collect(),
        })
    }

    fn decode_leaf(columns: &[u8]) -> Result<Vec<(Key, u64)>, FormatError> {
        let columns: Columns = codec::decode(Self::WHAT, columns, limits::FRAME_RAW_BYTES_MAX)?;
        let keys = columns.keys.keys(Self::WHAT)?;
        if keys.len() != columns.references.len() || columns.references.contains(&0) {
            return Err(malformed(Self::WHAT, "references do not match keys"));
        }
        for key in &keys {
            key.split_usage()?;
        }
        Ok(keys.into_iter().zip(columns.references).collect())
    }
}
