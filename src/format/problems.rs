//! A point's list of problems, the payload of a frame of its own.

use super::codec;
use super::error::FormatError;
use super::log::Problem;
use crate::base::limits;

/// The payload that holds `problems`.
pub fn encode(problems: &[Problem]) -> Vec<u8> {
    codec::encode(&problems.to_vec())
}

/// The problems that `payload` holds.
///
/// # Errors
/// [`FormatError`] when it is no such list.
pub fn decode(payload: &[u8]) -> Result<Vec<Problem>, FormatError> {
    codec::decode("list of problems", payload, limits::FRAME_RAW_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::log::ProblemKind;

    #[test]
    fn a_list_comes_back_and_half_of_it_does_not() {
        let problem = Problem { path: b"a/\xff".to_vec(), kind: ProblemKind::Vanished, detail: "gone".to_owned() };
        let payload = encode(&[problem.clone(), problem.clone()]);
        assert_eq!(decode(&payload).unwrap(), [problem.clone(), problem]);
        decode(&payload[..payload.len() - 1]).unwrap_err();
    }
}
