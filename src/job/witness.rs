//! What a job's process writes into its point, so that the point is known to be this job's.
//!
//! A client may use a job id again: when the journal has forgotten it, on another machine, after the
//! state directory was lost. The id alone would then lead to a point of long ago. So the instant at
//! which the job was accepted goes with it: not to be compared with a clock, but to tell jobs apart.

use std::fmt;

use super::control::JobId;
use super::request::{BadName, check_job};

/// Between the id and the instant; no id contains it.
const SEPARATOR: char = '@';

/// A job as its point names it: `<id>@<nanoseconds since 1970>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness(String);

impl Witness {
    /// The job `job` that was accepted at `accepted`, in nanoseconds since 1970.
    pub fn new(job: &JobId, accepted: i64) -> Witness {
        Witness(format!("{job}{SEPARATOR}{accepted}"))
    }

    /// Reads what [`Witness::new`] wrote.
    ///
    /// # Errors
    /// [`BadName`] for anything else.
    pub fn parse(text: &str) -> Result<Witness, BadName> {
        let bad = || BadName(format!("{text:?} names no job: it is ID{SEPARATOR}INSTANT"));
        let (job, accepted) = text.split_once(SEPARATOR).ok_or_else(bad)?;
        check_job(job)?;
        let accepted = accepted.parse().map_err(|_| bad())?;
        let witness = Witness::new(&JobId(job.to_owned()), accepted);
        if witness.0 == text { Ok(witness) } else { Err(bad()) }
    }

    /// As it stands in a point.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The id that the client chose.
    pub fn job(&self) -> &str {
        job_of(&self.0)
    }
}

/// The id in what a point says of its job.
pub fn job_of(text: &str) -> &str {
    text.split_once(SEPARATOR).map_or(text, |(job, _)| job)
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written() {
        for (job, accepted) in [("n-1", 7), ("a.b_c", i64::MAX), ("0", -1)] {
            let witness = Witness::new(&JobId(job.into()), accepted);
            assert_eq!(Witness::parse(witness.text()).unwrap(), witness);
            assert_eq!((witness.job(), job_of(witness.text())), (job, job));
        }
        for bad in ["n", "n@", "@1", "n@x", "n@01", "n@1@2", "a b@1", "n@1 "] {
            Witness::parse(bad).unwrap_err();
        }
    }
}
