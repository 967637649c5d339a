//! The most that processes have ever had in memory, as the kernel counts it.

use std::path::Path;
use std::process::{Command, Stdio};

/// Most that a process of the mount may ever have had in memory, in KiB.
const MOUNT_KIB_MAX: u64 = 300 << 10;

/// Runs a command and prints behind what it says how many KiB it had in memory at most.
const COUNTED: &str = "import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)";

/// What the command says, and how many KiB it, or a child of it, had in memory at most.
#[track_caller]
pub(crate) fn run_counted(command: &Command) -> (String, u64) {
    let mut counted = Command::new("python3");
    counted.arg("-c").arg(COUNTED).arg(command.get_program()).args(command.get_args());
    counted.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    counted.current_dir(command.get_current_dir().unwrap());
    let output = counted.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let (said, peak) = said.trim_end().rsplit_once('\n').unwrap_or(("", said.trim_end()));
    (said.to_owned(), peak.parse().unwrap())
}

/// No process of the mount, which all have `place` in their environment, has ever had more in memory than it may.
#[track_caller]
pub(crate) fn mount_is_bounded(place: &Path) {
    let resident = resident_kib(place.to_str().unwrap());
    assert!(!resident.is_empty(), "no process of the mount was found");
    for (process, peak) in &resident {
        assert!(*peak < MOUNT_KIB_MAX, "{peak} KiB were resident, of {MOUNT_KIB_MAX}: {process}");
    }
    println!("resident at most: {resident:?}");
}

/// Most that any process whose environment names `place` has ever had in memory, in KiB, by its command.
fn resident_kib(place: &str) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |file: &str| std::fs::read(process.path().join(file)).unwrap_or_default();
        if !String::from_utf8_lossy(&read("environ")).contains(place) {
            continue;
        }
        let status = String::from_utf8_lossy(&read("status")).into_owned();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(peak) = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.trim().parse().ok()) {
            found.push((String::from_utf8_lossy(&read("cmdline")).replace('\0', " "), peak));
        }
    }
    found
}
