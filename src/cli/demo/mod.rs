//! `amberfs demo`: the main job on a real tree, by the very commands that a user would type.
//!
//! Everything happens in one new directory, with a configuration and a state of its own: nothing of the
//! user's is touched. Each step prints its command and runs this program with it. What is shown of the past is
//! read through the mount, as any program would. The mount stays, to be walked into, unless `--remove`.

mod tree;

use std::fs::{self, DirBuilder};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output as Ran, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::context::{Context, absolute};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, count, printable, size};
use crate::base::{Class, foreign, hex};
use crate::job::state::State;
use tree::{Changes, Difference};

/// Show what amberfs does, on a copy of a real tree in a new temporary directory
///
/// Captures the tree, changes it, captures it again, mounts the repository, shows what the points hold and what
/// changed between them, and makes one more point through the mount. Everything stays, mounted, to be looked
/// at; how to go on and how to take it away is said at the end. Ends with 3 when nothing can be mounted here.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// The tree to work on a copy of (default: /usr/share/doc, or the first of its kind that exists)
    #[arg(long, value_name = "PATH")]
    tree: Option<PathBuf>,
    /// Take everything away at the end
    #[arg(long)]
    remove: bool,
}

/// Trees that a Debian machine has, at least one of them.
const TREES: [&str; 5] = ["/usr/share/doc", "/usr/include", "/usr/share/perl5", "/usr/share", "/etc"];
/// The name of the demo's source.
const SOURCE: &str = "demo";
/// How old a file must be for its times to prove that it has not changed since it was read.
const SETTLE: Duration = Duration::from_millis(2100);
/// How long the job that the mount is asked for may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What happened, as `demo --json` prints it.
#[derive(Serialize)]
struct Told<'a> {
    message_type: &'static str,
    directory: &'a Path,
    tree: &'a Path,
    files: u64,
    bytes: u64,
    points: &'a [String],
    mounted: bool,
    removed: bool,
}

/// Runs it.
///
/// # Errors
/// When there is no tree to show, no space for it, or a step fails.
pub fn run(args: &DemoArgs, context: &Context) -> Result<Exit, Failure> {
    let tree = match &args.tree {
        Some(tree) => absolute(tree.clone())?,
        None => (TREES.iter().map(PathBuf::from).find(|tree| tree.is_dir()))
            .ok_or_else(|| Failure::new(Class::NotFound, "no tree to show was found; name one with --tree PATH"))?,
    };
    let directory = std::env::temp_dir().join(format!("amberfs-demo-{}", hex::encode(&context.env.random::<4>())));
    let make = |path: &Path| {
        let made = DirBuilder::new().mode(0o700).create(path);
        made.map_err(|error| Failure::io(format!("create {}", path.display()), &error))
    };
    make(&directory)?;
    let program = std::env::current_exe().map_err(|error| Failure::io("find this program", &error))?;
    let mut stage = Stage { directory, program, out: Output::open(), silent: context.global.json };
    for name in ["mnt", "tree"] {
        make(&stage.path(name))?;
    }
    let outcome = stage.play(&tree);
    let removed = args.remove && stage.remove();
    let (files, bytes, points, mounted) = match outcome {
        Ok(outcome) => outcome,
        Err(failure) if args.remove => return Err(failure),
        Err(failure) => return Err(failure.hint(format!("what there is so far is in {}", stage.directory.display()))),
    };
    if context.global.json {
        let (directory, points) = (stage.directory.as_path(), points.as_slice());
        let told = Told { message_type: "demo", directory, tree: &tree, files, bytes, points, mounted, removed };
        stage.out.json(&told)?;
    }
    stage.out.close()?;
    Ok(if mounted { Exit::Done } else { Exit::Partial })
}

struct Stage {
    directory: PathBuf,
    /// This program.
    program: PathBuf,
    out: Output,
    silent: bool,
}

impl Stage {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn say(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        if self.silent {
            return Ok(());
        }
        self.out.line(text)?;
        self.out.flush()
    }

    /// All of it; how much there was, the names of the points, and whether it could be mounted.
    fn play(&mut self, tree: &Path) -> Result<(u64, u64, Vec<String>, bool), Failure> {
        self.say(format!("Everything here happens in a new directory. `amberfs` is {}:", self.program.display()))?;
        if !is_on_path(&self.program) {
            self.say(format!("   $ alias amberfs={}", self.program.display()))?;
        }
        self.say(format!("   $ cd {}\n", self.directory.display()))?;
        let copy = tree::copy(tree, &self.path("tree"))?;
        let cut = if copy.cut { ", the first part of it" } else { "" };
        self.say(format!(
            "1. A tree: {} files, {}, copied from {}{cut}",
            count(copy.files),
            size(copy.bytes),
            tree.display()
        ))?;

        self.say("\n2. A repository, a source in it, and the source's first point")?;
        self.say(
            "   $ export AMBERFS_REPOSITORY=$PWD/repo AMBERFS_CONFIG=$PWD/config.toml AMBERFS_STATE_DIR=$PWD/state",
        )?;
        self.step(&["init", "--unencrypted"])?;
        self.step(&["source", "add", SOURCE, "tree"])?;
        // What changed within the last moments is read again by the next capture: see to it that nothing has.
        thread::sleep(SETTLE);
        self.step(&["capture", SOURCE])?;

        self.say("\n3. The tree changes")?;
        let changes = tree::change(&self.path("tree"))?;
        for line in changes.lines() {
            self.say(format!("   {line}"))?;
        }

        self.say("\n4. The next point stores what changed, and shares the rest with the first")?;
        self.step(&["capture", "--label", "after-the-change", SOURCE])?;
        self.step(&["points"])?;
        let mut points = self.points()?;

        self.say("\n5. Every point is a directory")?;
        let mounted = match self.call(&["mount", "mnt"])? {
            ran if ran.status.success() => true,
            ran => {
                self.explain(&ran)?;
                false
            }
        };
        if mounted {
            self.walk(&points, &changes)?;
            self.say("\n6. A line written to the mount makes a point, too")?;
            self.order()?;
            points = self.points()?;
        } else {
            self.read(&changes)?;
        }
        self.go_on(mounted)?;
        Ok((copy.files, copy.bytes, points, mounted))
    }

    /// Prints a command, runs it, and prints what it said.
    fn step(&mut self, arguments: &[&str]) -> Result<(), Failure> {
        let ran = self.call(arguments)?;
        if ran.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
        Err(Failure::new(Class::Transient, why.strip_prefix("amberfs: ").unwrap_or(&why)))
    }

    fn call(&mut self, arguments: &[&str]) -> Result<Ran, Failure> {
        self.say(format!("   $ amberfs {}", arguments.join(" ")))?;
        let ran = self.command().args(arguments).output();
        let ran = ran.map_err(|error| Failure::io(format!("run {}", self.program.display()), &error))?;
        for line in String::from_utf8_lossy(&ran.stdout).lines() {
            self.say(format!("   {line}"))?;
        }
        Ok(ran)
    }

    /// This program, on the demo's repository, configuration and state.
    fn command(&self) -> Command {
        // The demo's repository is not encrypted, whatever key the user has for his own.
        let mut command = foreign::program(&self.program);
        command
            .env("AMBERFS_REPOSITORY", self.path("repo"))
            .env("AMBERFS_CONFIG", self.path("config.toml"))
            .env("AMBERFS_STATE_DIR", self.path("state"))
            .env("AMBERFS_CACHE_DIR", self.path("cache"))
            .current_dir(&self.directory)
            .stdin(Stdio::null());
        command
    }

    /// The names of the points, oldest first.
    fn points(&self) -> Result<Vec<String>, Failure> {
        let ran = self.command().args(["points", "--json", SOURCE]).output();
        let ran = ran.map_err(|error| Failure::io(format!("run {}", self.program.display()), &error))?;
        let lines = String::from_utf8_lossy(&ran.stdout).into_owned();
        Ok(lines
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter_map(|point| Some(point.get("name")?.as_str()?.to_owned()))
            .collect())
    }

    /// Shows the points, a file of the past, and what changed, all read through the mount.
    fn walk(&mut self, points: &[String], changes: &Changes) -> Result<(), Failure> {
        let all = format!("mnt/{SOURCE}/points");
        self.say(format!("   $ ls {all}"))?;
        for name in names(&self.path(&all))? {
            self.say(format!("   {name}"))?;
        }
        let [.., before, after] = points else {
            return Err(Failure::new(Class::Corrupt, "the two points that were just made are not listed"));
        };
        let deleted = Path::new(&all).join(before).join(&changes.deleted);
        self.say("\n   The file that is gone is where it was:")?;
        self.say(format!("   $ head -n 3 {}", shown(&deleted)))?;
        for line in head(&self.directory.join(&deleted))? {
            self.say(format!("   {line}"))?;
        }
        self.say("\n   What differs between the two points, by walking both:")?;
        let all = self.path(&all);
        let difference = Difference::between(&all.join(before), &all.join(after))?;
        for line in difference.lines() {
            self.say(format!("   {line}"))?;
        }
        let (files, bytes) = (count(difference.files), size(difference.bytes));
        self.say(format!("   ({files} files, {bytes} in the newer one; each point is whole)"))
    }

    /// Asks the mount for a point and waits until it is there.
    fn order(&mut self) -> Result<(), Failure> {
        let files = self.path("mnt/.amberfs");
        let line = format!("capture {SOURCE} label=by-hand job=first");
        self.say(format!("   $ echo '{line}' > mnt/.amberfs/control"))?;
        let wrote = fs::write(files.join("control"), format!("{line}\n"));
        wrote.map_err(|error| Failure::io("write to the control file", &error))?;
        let began = Instant::now();
        let state = loop {
            let state = fs::read_to_string(files.join("jobs/first/state")).unwrap_or_default().trim().to_owned();
            let over = State::ALL.iter().any(|known| known.is_end() && known.word() == state);
            if over || began.elapsed() > PATIENCE {
                break state;
            }
            thread::sleep(Duration::from_millis(20));
        };
        self.say(format!("   $ cat mnt/.amberfs/jobs/first/state\n   {state}"))?;
        let latest = format!("mnt/{SOURCE}/latest");
        let target =
            fs::read_link(self.path(&latest)).map_err(|error| Failure::io("read the link `latest`", &error))?;
        self.say(format!("   $ readlink {latest}\n   {}", target.display()))
    }

    /// Why there is no mount, and what would help.
    fn explain(&mut self, ran: &Ran) -> Result<(), Failure> {
        let why = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
        self.say(format!("   {why}\n"))?;
        self.say("   So nothing can be mounted here. amberfs mounts through FUSE: it needs the device /dev/fuse")?;
        self.say("   (in a container: `docker run --device /dev/fuse --cap-add SYS_ADMIN …`) and, for users other")?;
        self.say("   than root, the program fusermount3 (Debian: apt install fuse3).")?;
        self.say("   Without a mount, `ls`, `cat` and `restore` read every point as well:")
    }

    /// The past without a mount.
    fn read(&mut self, changes: &Changes) -> Result<(), Failure> {
        self.step(&["ls", &format!("{SOURCE}~1")])?;
        let selector = format!("{SOURCE}~1:{}", changes.deleted.display());
        self.say(format!("   $ amberfs cat '{selector}' | head -n 3"))?;
        let command = self.command().args(["cat", &selector]).stdout(Stdio::piped()).spawn();
        let mut command = command.map_err(|error| Failure::io("run amberfs cat", &error))?;
        let lines = command.stdout.take().map(first_lines).unwrap_or_default();
        // It may have been stopped by our not listening, which is its own affair.
        drop(command.wait());
        for line in lines {
            self.say(format!("   {line}"))?;
        }
        Ok(())
    }

    fn go_on(&mut self, mounted: bool) -> Result<(), Failure> {
        let directory = self.directory.display().to_string();
        self.say("\nHow to go on")?;
        if mounted {
            self.say(format!("   cd {directory}"))?;
            self.say(format!(
                "   ls mnt/{SOURCE}/at/10s/           the state ten seconds ago; also 3h, yesterday, 2026-11-20"
            ))?;
            self.say("   cat mnt/.amberfs/help         what can be written to the control file")?;
            self.say(format!("   cat mnt/{SOURCE}/info.json        all points, with what they cost"))?;
            self.say(format!("   amberfs umount {directory}/mnt && rm -r {directory}"))?;
        } else {
            self.say(format!("   rm -r {directory}"))?;
        }
        self.say("With files of your own:")?;
        self.say("   amberfs -r /path/to/repository init --unencrypted")?;
        self.say("   amberfs -r /path/to/repository capture home=$HOME")?;
        self.say("   amberfs -r /path/to/repository mount /path/to/an/empty/directory")
    }

    /// Unmounts and removes everything; whether nothing is left.
    fn remove(&self) -> bool {
        let mnt = self.path("mnt");
        // It may never have been mounted: then there is nothing to take away, and no mount to empty by mistake either.
        drop(self.command().arg("umount").arg(&mnt).stderr(Stdio::null()).status());
        fs::remove_dir(&mnt).is_ok() && fs::remove_dir_all(&self.directory).is_ok()
    }
}

/// Whether a user who types `amberfs` gets this program.
fn is_on_path(program: &Path) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found =
        std::env::split_paths(&path).map(|directory| directory.join("amberfs")).filter(|file| file.is_file());
    found.next().and_then(|file| file.canonicalize().ok()).as_deref() == Some(program)
}

fn names(directory: &Path) -> Result<Vec<String>, Failure> {
    let failed = |error: io::Error| Failure::io(format!("list {}", directory.display()), &error);
    let items = fs::read_dir(directory).map_err(failed)?;
    let mut names: Vec<String> = Vec::new();
    for item in items {
        names.push(item.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn head(path: &Path) -> Result<Vec<String>, Failure> {
    let file = fs::File::open(path).map_err(|error| Failure::io(format!("open {}", path.display()), &error))?;
    Ok(first_lines(file))
}

/// The first three lines, harmless and not too long; of a file that is no text, as far as they go.
fn first_lines(from: impl Read) -> Vec<String> {
    let lines = BufReader::new(from.take(4096)).split(b'\n').map_while(Result::ok).take(3);
    lines.map(|line| printable(&line).chars().take(100).collect()).collect()
}

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}
