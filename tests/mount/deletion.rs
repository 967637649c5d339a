//! Points that are deleted and brought back while somebody looks: by control line, by command, by another host.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use crate::processes::{eventually, shell};
use crate::real::Real;

/// A mounted repository with a source `home` and points of it: a full one and two that build on it.
struct Mounted {
    real: Real,
    points: Vec<String>,
}

impl Mounted {
    fn new() -> Mounted {
        let real = Real::new();
        let tree = real.toy.beside("tree");
        fs::create_dir_all(tree.join("sub")).unwrap();
        real.succeeds(&["source", "add", "-q", "home", tree.to_str().unwrap()]);
        for text in ["first", "second", "third"] {
            fs::write(tree.join("file"), text).unwrap();
            fs::write(tree.join("sub/large"), text.repeat(200_000)).unwrap();
            real.succeeds(&["capture", "-q", "home", "-l", text]);
        }
        real.mount();
        let mut mounted = Mounted { real, points: Vec::new() };
        mounted.points = mounted.listed("points");
        assert_eq!(mounted.points.len(), 3);
        mounted
    }

    fn path(&self, path: &str) -> PathBuf {
        self.real.toy.join(path)
    }

    fn listed(&self, directory: &str) -> Vec<String> {
        let items = fs::read_dir(self.path("home").join(directory)).unwrap();
        let mut names: Vec<String> = items.map(|item| item.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn read(&self, path: &str) -> Result<String, Option<i32>> {
        fs::read_to_string(self.path(path)).map_err(|error| error.raw_os_error())
    }

    /// A line in the control file; the errno it was refused with, and the answer.
    fn order(&self, line: &str) -> (i32, String) {
        let script = format!("echo \"{line}\" > .amberfs/control 2>/dev/null; echo $?; cat .amberfs/control");
        let (text, _) = shell("bash", &script, &self.real.toy);
        let (code, reply) = text.split_once('\n').unwrap();
        (code.parse().unwrap(), reply.to_owned())
    }

    fn ends(&self, job: &str, wanted: &str) {
        let job = self.path(&format!(".amberfs/jobs/{job}"));
        let mut state = String::new();
        eventually("the job ends", || {
            state = fs::read_to_string(job.join("state")).unwrap().trim().to_owned();
            !["queued", "writing"].contains(&state.as_str())
        });
        assert_eq!(state, wanted, "{:?}", fs::read_to_string(job.join("error")));
    }

    fn info(&self) -> serde_json::Value {
        serde_json::from_str(&self.read("home/info.json").unwrap()).unwrap()
    }
}

/// What may come of reading what is deleted: the right bytes, as far as the kernel has them, or that it is gone.
fn right_or_gone(read: std::io::Result<Vec<u8>>, right: &[u8]) {
    match read {
        Ok(bytes) => assert!(bytes == right, "{} bytes that never were", bytes.len()),
        Err(error) => assert!(
            matches!(error.raw_os_error(), Some(libc::ESTALE | libc::ENOENT)),
            "neither gone nor there: {error}"
        ),
    }
}

#[test]
fn a_point_that_is_deleted_by_a_line_is_out_of_every_list_at_once_and_comes_back() {
    let mounted = Mounted::new();
    let newest = mounted.points[2].clone();
    // Walked before: the kernel knows the names.
    assert_eq!(mounted.read(&format!("home/points/{newest}/file")).unwrap(), "third");
    assert_eq!(mounted.read("home/labels/third/sub/large").unwrap().len(), 1_000_000);
    let inode = |path: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(mounted.path(path)).unwrap());
    let before = inode(&format!("home/points/{newest}/file"));
    let mut held = File::open(mounted.path(&format!("home/points/{newest}/sub/large"))).unwrap();
    let mut unread = File::open(mounted.path(&format!("home/points/{}/sub/large", mounted.points[1]))).unwrap();

    let (code, reply) = mounted.order(&format!("delete home point={newest} job=d"));
    assert_eq!(code, 0, "{reply}");
    mounted.ends("d", "deleted");
    assert_eq!(mounted.read(".amberfs/jobs/d/result").unwrap().trim(), newest);
    assert_eq!(mounted.listed("points"), mounted.points[..2]);
    assert_eq!(mounted.listed("labels"), ["first", "second"]);
    assert_eq!(mounted.listed("chains/0"), ["000-full", "001-incremental"]);
    for path in ["latest/file", "at/now/file", &format!("points/{}/file", mounted.points[1])] {
        assert_eq!(mounted.read(&format!("home/{path}")), Ok("second".to_owned()), "{path}");
    }
    for path in
        [&format!("points/{newest}"), &format!("points/{newest}/file"), "labels/third", "chains/0/002-incremental"]
    {
        assert_eq!(mounted.read(&format!("home/{path}")), Err(Some(libc::ENOENT)), "{path}");
        let stat = fs::symlink_metadata(mounted.path(&format!("home/{path}")));
        assert_eq!(stat.unwrap_err().raw_os_error(), Some(libc::ENOENT), "{path}");
    }
    let info = mounted.info();
    assert_eq!((&info["trash"][0]["name"], &info["head"]), (&newest.clone().into(), &info["points"][1]["id"]));
    // Who is still inside.
    let right = "third".repeat(200_000).into_bytes();
    let mut bytes = Vec::new();
    held.seek(SeekFrom::Start(0)).unwrap();
    right_or_gone(held.read_to_end(&mut bytes).map(|_| bytes), &right);
    let mut bytes = String::new();
    unread.read_to_string(&mut bytes).unwrap();
    assert_eq!(bytes, "second".repeat(200_000), "the others are as ever");

    let (code, reply) = mounted.order(&format!("undelete home point={newest} job=u"));
    assert_eq!(code, 0, "{reply}");
    mounted.ends("u", "undeleted");
    assert_eq!(mounted.listed("points"), mounted.points);
    assert_eq!(mounted.read("home/labels/third/file").unwrap(), "third");
    assert_eq!(mounted.read(&format!("home/points/{newest}/sub/large")).unwrap().into_bytes(), right);
    assert_eq!(inode(&format!("home/points/{newest}/file")), before);
    assert_eq!(mounted.info()["trash"], serde_json::json!([]));
}

#[test]
fn a_line_that_cannot_be_followed_is_refused_when_it_is_written() {
    let mounted = Mounted::new();
    let first = &mounted.points[0];
    for (line, errno, words) in [
        (format!("delete home point={first}"), libc::ENOTEMPTY, "2 points depend on its point"),
        ("delete home point=#99".to_owned(), libc::ENOENT, "it has no point #99"),
        (format!("undelete home point={first}"), libc::ENOENT, "is not deleted"),
        ("delete home".to_owned(), libc::EINVAL, "needs point=NAME|#ID"),
    ] {
        let script = format!(
            "import os\nfd = os.open('.amberfs/control', os.O_WRONLY)\ntry:\n os.write(fd, b'{line}\\n')\nexcept OSError as e:\n print(e.errno)\n"
        );
        let output = std::process::Command::new("python3").args(["-c", &script]).current_dir(mounted.path("")).output();
        let said = String::from_utf8(output.unwrap().stdout).unwrap();
        assert_eq!(said.trim(), errno.to_string(), "{line}");
        let (_, reply) = mounted.order(&line);
        assert!(reply.contains(words), "{line}: {reply}");
    }
    assert_eq!(mounted.listed("points"), mounted.points);
    let (code, reply) = mounted.order(&format!("delete home point={first} rebase=yes job=r"));
    assert_eq!(code, 0, "{reply}");
    mounted.ends("r", "deleted");
    assert_eq!(mounted.listed("points"), mounted.points[1..]);
    assert_eq!(mounted.read("home/labels/third/file").unwrap(), "third");
    mounted.real.succeeds(&["verify", "-q", "--read-data"]);
}

#[test]
fn what_another_process_deletes_is_gone_within_the_refresh_interval() {
    let mounted = Mounted::new();
    assert_eq!(mounted.read("home/labels/third/file").unwrap(), "third");
    let inside = mounted.path(&format!("home/points/{}/sub", mounted.points[2]));
    let directory = File::open(&inside).unwrap();
    mounted.real.succeeds(&["delete", "-q", "--yes", "--cascade", &format!("home@{}", mounted.points[1])]);
    eventually("the points are gone", || mounted.listed("points") == mounted.points[..1]);
    assert_eq!(mounted.read("home/latest/file").unwrap(), "first");
    assert_eq!(fs::metadata(&inside).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    // A directory that somebody holds open: what was never read of it is gone.
    let large = format!("/proc/self/fd/{}/large", std::os::fd::AsRawFd::as_raw_fd(&directory));
    right_or_gone(fs::read(large), "third".repeat(200_000).as_bytes());
    mounted.real.succeeds(&["capture", "-q", "home"]);
    eventually("the next point is there", || mounted.listed("points").len() == 2);
    assert_eq!(mounted.listed("chains/0"), ["000-full", "003-incremental"], "it builds on what is left");
    assert_eq!(mounted.read("home/latest/file").unwrap(), "third");
}
