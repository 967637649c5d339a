//! Seals bytes to a place and opens them again; keyed hashes and cuts. The only home of aws-lc-rs.

pub mod chunker;
pub mod padme;
