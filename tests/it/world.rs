//! A source directory, a repository over it, and two readers that know nothing of one another: one
//! of real directories, one of what a mount would show.

use std::collections::BTreeMap;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amberfs::base::{Env, FileTime, Instant};
use amberfs::capture::{Options, Outcome, Progress, capture_tree};
use amberfs::chain::{RepoLog, SourceLog, origin};
use amberfs::format::FileId;
use amberfs::format::frame::{self, FrameKind};
use amberfs::format::leaf::Entries;
use amberfs::format::log::{SourceKind, SourceRecord};
use amberfs::format::node::Node;
use amberfs::format::object::{Object, ObjectName};
use amberfs::format::pack::{self, Footer};
use amberfs::repo::{CacheSizes, Closed, Credential, Repo, RepoError};
use amberfs::seal::Secret;
use amberfs::seal::derive::Cost;
use amberfs::store::Store;
use amberfs::view::namespace::{FileKind, Namespace, NodeId};
use amberfs::view::{MountSettings, MountView, PointView};

use crate::nonces;

/// What can be seen of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: FileKind,
    pub(crate) permissions: u32,
    pub(crate) owner: (u32, u32),
    /// Of directories it depends on the filesystem; the point keeps it as it was.
    pub(crate) size: u64,
    pub(crate) mtime: FileTime,
    pub(crate) ctime: FileTime,
    pub(crate) links: u64,
    pub(crate) device: (u32, u32),
    /// Content, or a link's target; of a file of more than 16 MiB the hash of its content.
    pub(crate) content: Vec<u8>,
    /// Those that everybody may set.
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path that leads to the same inode.
    pub(crate) first: Vec<u8>,
}

impl Seen {
    /// The hash of the content.
    pub(crate) fn hash(&self) -> blake3::Hash {
        let hashed =
            (self.kind == FileKind::Regular && self.size > LARGE_BYTES).then(|| self.content.as_slice().try_into());
        match hashed {
            Some(hash) => blake3::Hash::from_bytes(hash.unwrap()),
            None => blake3::hash(&self.content),
        }
    }
}

/// Path below the root to what is there; the root is the empty path.
pub(crate) type Manifest = BTreeMap<Vec<u8>, Seen>;

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) env: Env,
    pub(crate) repo: Arc<Repo>,
    pub(crate) source: SourceRecord,
    pub(crate) log: SourceLog,
}

/// Whether the repositories of these tests are encrypted: `tests/run` plays the histories both ways.
pub(crate) fn is_encrypted() -> bool {
    std::env::var_os("AMBERFS_ENCRYPTED").is_some_and(|value| !value.is_empty())
}

/// What opens the tests' encrypted repositories.
pub(crate) fn key() -> Credential {
    Credential::KeyFile(Secret::new([7; 32]))
}

/// Worlds that this process has made encrypted. Each has a master secret of its own: worlds of one seed would otherwise have
/// the same keys, and seal different times and contents with them.
static WORLDS: AtomicU64 = AtomicU64::new(0x5eed_0000);

/// How much the readers of these tests' repositories keep in memory: `AMBERFS_CACHES` is `tiny` (1 MiB of each kind) or
/// `off` (nothing at all), and what is read must be the same.
fn caches() -> CacheSizes {
    match std::env::var("AMBERFS_CACHES").as_deref() {
        Ok("tiny") => CacheSizes { frames: 1 << 20, nodes: 1 << 20 },
        Ok("off") => CacheSizes { frames: 0, nodes: 0 },
        Ok(other) if !other.is_empty() => panic!("AMBERFS_CACHES is {other:?}, and may be tiny or off"),
        Ok(_) | Err(_) => CacheSizes::default(),
    }
}

/// A new repository, encrypted or not.
pub(crate) fn init(store: Store, env: Env) -> Result<Arc<Repo>, RepoError> {
    match is_encrypted() {
        true => {
            nonces::watch();
            let own = Env::seeded(WORLDS.fetch_add(1, Ordering::Relaxed), env.now());
            Repo::init_encrypted(store.clone(), own, &key(), "test", Cost::STANDARD)?;
        }
        false => drop(Repo::init(store.clone(), env.clone())?),
    }
    open(store, env)
}

/// The command line that makes a repository of the program as these tests have it; see [`tell_key`].
pub(crate) fn how_to_init() -> &'static [&'static str] {
    if is_encrypted() { &["init"] } else { &["init", "--unencrypted"] }
}

/// Tells the program the key of these tests' repositories, if they are encrypted, by a file in `directory`.
pub(crate) fn tell_key(command: &mut std::process::Command, directory: &Path) {
    let Credential::KeyFile(secret) = key() else { return };
    if is_encrypted() {
        let path = directory.join("tests.key");
        if !path.exists() {
            std::fs::write(&path, Credential::key_file(&secret).as_bytes()).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        command.env("AMBERFS_KEYFILE", path);
    }
}

/// Opens what [`init`] has made.
pub(crate) fn open(store: Store, env: Env) -> Result<Arc<Repo>, RepoError> {
    open_with(store, env, caches())
}

/// As [`open`], with caches of these sizes.
pub(crate) fn open_with(store: Store, env: Env, sizes: CacheSizes) -> Result<Arc<Repo>, RepoError> {
    nonces::judge();
    let closed = Closed::find(store)?;
    let key = closed.is_encrypted().then(key);
    closed.open(env, sizes, key.as_ref())
}

/// Where the footer of the pack `bytes` begins, and what it lists: of a sealed pack nothing else tells where its frames end.
pub(crate) fn footer(repo: &Repo, pack: &ObjectName, bytes: &[u8]) -> (usize, Footer) {
    let Some(Object::Pack(source, pack)) = Object::parse(pack) else { panic!("{pack} is no pack") };
    let all = bytes.len() as u64;
    match repo.realm().keys() {
        Some(keys) => {
            let keys = keys.pack(source, pack).unwrap();
            let start = usize::try_from(Footer::locate_sealed(&keys, bytes, all).unwrap().0).unwrap();
            (start, Footer::decode_sealed(&keys, &bytes[start..]).unwrap())
        }
        None => {
            let start = usize::try_from(Footer::locate(bytes, all).unwrap().0).unwrap();
            (start, Footer::decode(&bytes[..pack::HEADER_BYTES], &bytes[start..]).unwrap())
        }
    }
}

/// A minute ahead of all that has happened so far: then no file is too young to be trusted.
pub(crate) fn later() -> Instant {
    Instant::from_nanos(Env::system().now().nanos() + 60_000_000_000)
}

pub(crate) fn zero_settings() -> MountSettings {
    let zone = || jiff::tz::TimeZone::UTC;
    MountSettings { owner: (0, 0), own_all: false, refresh: Duration::ZERO, zone, sum_up: false }
}

impl World {
    pub(crate) fn new(store: Store, env: Env) -> World {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("source")).unwrap();
        let repo = init(store, env.clone()).unwrap();
        let sources = RepoLog::open(repo.store().clone(), env.clone(), repo.realm());
        let source = sources.add_source("home", SourceKind::Tree, origin::here(b"/home")).unwrap();
        let log = SourceLog::open(repo.store().clone(), env.clone(), repo.realm(), source.id);
        World { dir, env, repo, source, log }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.root().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn capture(&self, options: &Options) -> Outcome {
        self.env.advance(Duration::from_secs(60));
        capture_tree(&self.repo, &self.log, &self.source, &self.root(), options, &Progress::new()).unwrap()
    }

    /// What a mount of the repository shows, through caches that nothing has warmed.
    pub(crate) fn mount(&self) -> MountView {
        let repo = open(self.repo.store().clone(), self.env.clone()).unwrap();
        MountView::open(repo, zero_settings()).unwrap()
    }
}

/// Damages the leaf with the inode record of the hard link at `path` in the newest point of `home`, or in the one that
/// committed before so many others, in the repository in the directory `place`. Nothing else stands in that leaf.
pub(crate) fn lose_inode_of(place: &Path, path: &str, before: usize) {
    let repo = open(Store::local(place).unwrap(), Env::system()).unwrap();
    let (store, env) = (repo.store().clone(), repo.env().clone());
    let source = RepoLog::open(store.clone(), env.clone(), repo.realm()).load().unwrap().by_name("home").unwrap().id;
    let state = SourceLog::open(store, env, repo.realm(), source).load().unwrap();
    let roots = state.points().iter().rev().nth(before).unwrap().commit.roots;
    let view = PointView::new(&repo, source, &roots);
    let key = view.walk(path.split('/').map(str::as_bytes)).unwrap().key().clone();
    let mut node = roots.entries;
    loop {
        let payload = repo.reader(source).fetch(&node.frame, FrameKind::Entries).unwrap();
        match Node::<Entries>::decode(&payload, &node).unwrap() {
            Node::Inner(children) => {
                node = children.iter().rfind(|child| child.first <= key).unwrap_or(&children[0]).branch.node;
            }
            Node::Leaf(items) => {
                assert!(items.iter().any(|(own, _)| *own == key));
                assert!(items.iter().all(|(own, _)| own.split().unwrap().0 == FileId::HARDLINKS), "names are in it");
                break;
            }
        }
    }
    let pack = place.join(Object::Pack(source, node.frame.pack).name().as_str());
    std::fs::set_permissions(&pack, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[usize::try_from(node.frame.offset).unwrap() + frame::HEADER_BYTES + 5] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
}

/// Makes, by a shell, hard links enough that their inodes fill leaves of their own, and last of them that of `late/b`.
pub(crate) const MANY_LINKS: &str = "mkdir early late other; for n in $(seq 900); do echo $n >early/$n; done; \
    cp -al early early-too; echo a >late/a; echo b >late/b; echo c >late/c; ln late/b other/b";

/// Files larger than this are compared by the hash of their content.
const LARGE_BYTES: u64 = 16 << 20;

/// The attributes below `root`, as `getfattr` prints them.
fn attributes(root: &Path) -> BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>> {
    let arguments = ["-RPhd", "-m", r"^user\.", "-e", "hex", "."];
    let output = std::process::Command::new("getfattr").args(arguments).current_dir(root).output().unwrap();
    assert!(output.status.success(), "{root:?}: {}", String::from_utf8_lossy(&output.stderr));
    let (mut found, mut path) = (BTreeMap::new(), Vec::new());
    for line in output.stdout.split(|byte| *byte == b'\n') {
        if let Some(name) = line.strip_prefix(b"# file: ") {
            let name = name.strip_prefix(b"./").unwrap_or(name);
            path = if name == b"." { Vec::new() } else { unescaped(name) };
        } else if let Some(at) = line.iter().position(|byte| *byte == b'=') {
            let (name, value) = (line[..at].to_vec(), line[at + 1..].strip_prefix(b"0x").unwrap_or_default());
            let digit = |byte: &u8| u8::try_from(char::from(*byte).to_digit(16).unwrap()).unwrap();
            let value = value.chunks(2).map(|pair| digit(&pair[0]) << 4 | digit(&pair[1])).collect();
            found.entry(path.clone()).or_insert_with(BTreeMap::new).insert(name, value);
        }
    }
    found
}

/// A path without the `\ooo` by which getfattr shows some bytes.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((byte, behind)) = rest.split_first() {
        let octal = behind.get(..3).filter(|digits| *byte == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(value.unwrap_or(*byte));
        rest = if value.is_some() { &behind[3..] } else { behind };
    }
    bytes
}

/// The tree below `root` on a real filesystem.
pub(crate) fn real(root: &Path) -> Manifest {
    fn visit(path: &Path, name: Vec<u8>, firsts: &mut BTreeMap<u64, Vec<u8>>, found: &mut Manifest) {
        let stat = std::fs::symlink_metadata(path).unwrap();
        let kind = match stat.file_type() {
            t if t.is_dir() => FileKind::Directory,
            t if t.is_symlink() => FileKind::Symlink,
            t if t.is_fifo() => FileKind::Fifo,
            t if t.is_socket() => FileKind::Socket,
            t if t.is_block_device() => FileKind::BlockDevice,
            t if t.is_char_device() => FileKind::CharDevice,
            _ => FileKind::Regular,
        };
        let content = match kind {
            FileKind::Regular if stat.size() > LARGE_BYTES => {
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(std::fs::File::open(path).unwrap()).unwrap();
                hasher.finalize().as_bytes().to_vec()
            }
            FileKind::Regular => std::fs::read(path).unwrap(),
            FileKind::Symlink => std::fs::read_link(path).unwrap().into_os_string().into_vec(),
            _ => Vec::new(),
        };
        let device = match kind {
            FileKind::BlockDevice | FileKind::CharDevice => (libc::major(stat.rdev()), libc::minor(stat.rdev())),
            _ => (0, 0),
        };
        let seen = Seen {
            kind,
            permissions: stat.mode() & 0o7777,
            owner: (stat.uid(), stat.gid()),
            size: stat.size(),
            mtime: FileTime { seconds: stat.mtime(), nanos: u32::try_from(stat.mtime_nsec()).unwrap() },
            ctime: FileTime { seconds: stat.ctime(), nanos: u32::try_from(stat.ctime_nsec()).unwrap() },
            links: stat.nlink(),
            device,
            content,
            xattrs: BTreeMap::new(),
            first: firsts.entry(stat.ino()).or_insert_with(|| name.clone()).clone(),
        };
        found.insert(name.clone(), seen);
        if kind == FileKind::Directory {
            let mut names: Vec<_> = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            for child in names {
                visit(&path.join(&child), join(&name, child.as_bytes()), firsts, found);
            }
        }
    }
    let mut found = Manifest::new();
    visit(root, Vec::new(), &mut BTreeMap::new(), &mut found);
    for (path, xattrs) in attributes(root) {
        found.get_mut(&path).unwrap_or_else(|| panic!("getfattr lists {}", path.escape_ascii())).xattrs = xattrs;
    }
    found
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// The node at `path` from the root of the mount, links not followed.
pub(crate) fn node(view: &dyn Namespace, path: &str) -> NodeId {
    path.split('/').filter(|name| !name.is_empty()).fold(NodeId::ROOT, |dir, name| {
        view.lookup(dir, name.as_bytes()).unwrap_or_else(|error| panic!("{path}: {name}: {error}")).attr.node
    })
}

/// The names in a directory, a few at a time, as a kernel asks for them.
pub(crate) fn names(view: &dyn Namespace, dir: NodeId) -> Vec<(Vec<u8>, NodeId)> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let before = found.len();
        view.read_dir(dir, after, &mut |item| {
            after = item.next;
            found.push((item.name, item.found.unwrap().attr.node));
            found.len() - before < 7
        })
        .unwrap();
        if found.len() == before {
            return found;
        }
    }
}

/// The tree below `root` as the mount shows it; contents are read in pieces of `piece` bytes.
pub(crate) fn shown(view: &dyn Namespace, root: NodeId, piece: usize) -> Manifest {
    fn visit(
        view: &dyn Namespace,
        node: NodeId,
        name: Vec<u8>,
        piece: usize,
        firsts: &mut BTreeMap<NodeId, Vec<u8>>,
        found: &mut Manifest,
    ) {
        let attr = view.attr(node).unwrap().attr;
        assert_eq!(attr.node, node);
        let mut content = Vec::new();
        match attr.kind {
            FileKind::Regular if attr.size > LARGE_BYTES => {
                let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
                while at < attr.size {
                    let bytes = view.read(node, at, 1 << 20).unwrap();
                    assert!(!bytes.is_empty());
                    hasher.update(&bytes);
                    at += bytes.len() as u64;
                }
                content = hasher.finalize().as_bytes().to_vec();
            }
            FileKind::Regular => loop {
                let bytes = view.read(node, content.len() as u64, piece).unwrap();
                if bytes.is_empty() {
                    break;
                }
                content.extend_from_slice(&bytes);
            },
            FileKind::Symlink => content = view.read_link(node).unwrap(),
            _ => {}
        }
        let seen = Seen {
            kind: attr.kind,
            permissions: u32::from(attr.permissions),
            owner: (attr.uid, attr.gid),
            size: attr.size,
            mtime: attr.mtime,
            ctime: attr.ctime,
            links: u64::from(attr.links),
            device: attr.device,
            content,
            xattrs: view
                .xattr_names(node)
                .unwrap()
                .into_iter()
                .filter(|name| name.starts_with(b"user."))
                .map(|name| (name.clone(), view.xattr(node, &name).unwrap().unwrap()))
                .collect(),
            first: firsts.entry(node).or_insert_with(|| name.clone()).clone(),
        };
        found.insert(name.clone(), seen);
        if attr.kind == FileKind::Directory {
            let listed = names(view, node);
            assert!(listed.is_sorted_by(|a, b| a.0 < b.0), "names ascend and none comes twice");
            for (child, at) in listed {
                assert_eq!(view.lookup(node, &child).unwrap().attr.node, at);
                if view.attr(at).unwrap().attr.kind == FileKind::Directory {
                    assert_eq!(view.parent(at).unwrap(), node);
                }
                visit(view, at, join(&name, &child), piece, firsts, found);
            }
        }
    }
    let mut found = Manifest::new();
    visit(view, root, Vec::new(), piece, &mut BTreeMap::new(), &mut found);
    found
}

/// Fails with the first path that differs, without printing contents.
#[track_caller]
pub(crate) fn same(expected: &Manifest, actual: &Manifest, what: &str) {
    nonces::judge();
    let paths = |manifest: &Manifest| manifest.keys().map(|path| path.escape_ascii().to_string()).collect::<Vec<_>>();
    assert_eq!(paths(expected), paths(actual), "{what}: the paths differ");
    for (path, seen) in expected {
        let other = &actual[path];
        let (brief, other_brief) =
            (Seen { content: Vec::new(), ..seen.clone() }, Seen { content: Vec::new(), ..other.clone() });
        assert_eq!(brief, other_brief, "{what}: {}", path.escape_ascii());
        assert!(seen.content == other.content, "{what}: {}: the content differs", path.escape_ascii());
    }
}
