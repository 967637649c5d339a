//! `.amberfs/help`: how to use the control file, from the same tables that parse and refuse.

use std::fmt::Write;

use super::control::Reason;
use super::line::VERBS;
use super::state::State;

/// The text.
pub(super) fn text() -> String {
    let mut text = String::from(
        "amberfs: the control file\n\
         \n\
         \x20 echo 'capture home label=nightly job=n1' > .amberfs/control || cat .amberfs/control\n\
         \x20 cat .amberfs/jobs/n1/state\n\
         \n\
         One command a line; values quoted as in a shell; # begins a comment. One write is one batch:\n\
         all of its lines are checked before anything is done. The write returns at once, with success\n\
         when all is accepted and safely noted, with an error number otherwise. Reading the control\n\
         file gives the answer to your last write in words. Only the mount's owner and root may.\n\
         \n\
         Commands\n",
    );
    for verb in VERBS {
        let name = if verb.optional { format!("[{}]", verb.name_of) } else { verb.name_of.to_owned() };
        line(&mut text, format_args!("  {} {name}    {}", verb.name, verb.help));
        for key in verb.keys {
            line(&mut text, format_args!("      {}={}    {}", key.name, key.value, key.help));
        }
    }
    text.push_str("\nErrors\n");
    for reason in Reason::ALL {
        line(&mut text, format_args!("  {:<10} {}", reason.name(), reason.help()));
    }
    text.push_str("\nStates of a job, in .amberfs/jobs/ID/state\n ");
    for (place, state) in State::ALL.into_iter().enumerate() {
        text.push_str(if place == 7 { "\n  " } else { " " });
        text.push_str(state.word());
        if state.is_end() {
            text.push('*');
        }
    }
    text.push_str(
        "\n  * is an end. From `captured` on the source may change again.\n\
         \n\
         Files\n\
         \x20 control              write commands, read the answer\n\
         \x20 status.json          the mount and its jobs\n\
         \x20 events               one JSON line for each step of each job; tail -f it. Beyond 1 MiB its older\n\
         \x20                      half is dropped\n\
         \x20 errors               one JSON line for each fault that a reader met; one that repeats is told of\n\
         \x20                      again at its 10th, 100th, … time. Beyond 1 MiB its older half is dropped\n\
         \x20 metrics              one `name value` a line\n\
         \x20 jobs/ID/state        one word\n\
         \x20 jobs/ID/progress.json  how far it is\n\
         \x20 jobs/ID/log          what it said, newest 64 KiB\n\
         \x20 jobs/ID/result       the name of the point, once committed; names of points deleted or brought back\n\
         \x20 jobs/ID/error        why it failed, or why the point is partial\n\
         \n\
         Disks\n\
         \x20 points/UTC/disk.raw   the disk, to be loop-mounted; disk.qcow2 is the same for QEMU\n\
         \x20 points/UTC/partitions/N.raw  each of its partitions\n\
         \x20 points/UTC/map.json   what is data, what is zero, what changed since the parent\n\
         \x20 A filesystem that was in use when it was captured has a journal to be replayed, which a\n\
         \x20 read-only file does not allow. Mounted without:\n\
         \x20   mount -o loop,ro,noload               ext4\n\
         \x20   mount -o loop,ro,norecovery,nouuid    xfs\n\
         \x20   mount -o loop,ro,rescue=nologreplay   btrfs\n\
         \n\
         Jobs go on when the mount ends and are found again by the next one. The newest 1,000 ended\n\
         jobs are remembered; for so long, repeating a command with the same job= does nothing.\n",
    );
    text
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to memory cannot fail.
    if text.write_fmt(what).is_ok() {
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits;

    #[test]
    fn everything_that_is_understood_is_documented() {
        let text = text();
        for verb in VERBS {
            assert!(text.contains(&format!("\n  {} ", verb.name)), "{}", verb.name);
            for key in verb.keys {
                assert!(text.contains(&format!("\n      {}=", key.name)), "{}", key.name);
            }
        }
        for reason in Reason::ALL {
            assert!(text.contains(&format!("\n  {}", reason.name())), "{reason:?}");
        }
        let semantics = include_str!("../../docs/semantics.md");
        for options in ["loop,ro,noload", "loop,ro,norecovery,nouuid", "loop,ro,rescue=nologreplay"] {
            assert!(text.contains(options) && semantics.contains(options), "{options}");
        }
        for state in State::ALL {
            assert!(text.contains(state.word()), "{state}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 110));
    }

    #[test]
    fn the_bounds_named_are_the_bounds() {
        assert_eq!(limits::CONTROL_LINE_BYTES_MAX, 4095);
        assert_eq!(limits::CONTROL_BATCH_BYTES_MAX, 65536);
        assert_eq!(limits::EVENTS_BYTES_MAX, 1 << 20);
        assert_eq!(limits::JOB_LOG_BYTES_MAX, 64 << 10);
        assert_eq!(limits::JOBS_ENDED_MAX, 1000);
        assert_eq!(limits::JOB_TIMEOUT.as_secs(), 7 * 86400);
    }

    #[test]
    fn the_example_is_understood() {
        super::super::line::parse(b"capture home label=nightly job=n1").unwrap();
    }
}
