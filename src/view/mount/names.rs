//! What generated names and links of a mount say.

use crate::chain::Point;

/// A point's name in its chain's directory: place and kind, so that the order shows lineage.
pub(super) fn chain_name(point: &Point) -> String {
    let kind = if point.is_full() { "full" } else { "incremental" };
    format!("{:03}-{kind}", point.position)
}

pub(super) fn link_target(name: &str, depth: u8) -> String {
    format!("{}points/{name}", "../".repeat(usize::from(depth)))
}
