//! Changes of a directory that only a rollback finds hard: what looks like an old version and is another, what
//! has the name of something of another kind, and what is left out of captures.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use amberfs::base::FileTime;
use amberfs::view::namespace::FileKind;

use crate::history::{Dice, change, is_pipe, paths};
use crate::world::{Manifest, Seen, World};

/// What may be left out: everything with such an ending, and what is below.
pub(super) const ENDINGS: [&str; 2] = [".tmp", ".log"];

fn time(of: FileTime) -> SystemTime {
    let whole = Duration::from_secs(of.seconds.unsigned_abs());
    let start = if of.seconds < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
    start + Duration::from_nanos(u64::from(of.nanos))
}

/// An old version of a file that there is now.
fn old_version<'a>(world: &World, dice: &mut Dice, old: &'a Manifest) -> Option<(PathBuf, &'a Seen)> {
    let files: Vec<_> = old.iter().filter(|(_, seen)| seen.kind == FileKind::Regular).collect();
    let (path, seen) = dice.pick(&files)?;
    let path = world.root().join(std::ffi::OsStr::from_bytes(path));
    fs::symlink_metadata(&path).is_ok_and(|stat| stat.is_file()).then_some((path, *seen))
}

fn pick(dice: &mut Dice, of: &[PathBuf]) -> io::Result<PathBuf> {
    dice.pick(of).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Names of `a` and `b` change places.
fn swap(a: &Path, b: &Path) -> io::Result<()> {
    let aside = a.with_file_name("aside");
    fs::rename(a, &aside)?;
    // One may lie in the other.
    if fs::rename(b, a).is_err() {
        return fs::rename(&aside, a);
    }
    fs::rename(&aside, b)
}

/// One change, of those that every history makes or of these; `old` is what the directory once was. What the
/// directory does not allow right now is none.
pub(super) fn random(world: &World, dice: &mut Dice, old: Option<&Manifest>) {
    if dice.roll(2) == 0 {
        change(world, dice);
    } else {
        drop(special(world, dice, old));
    }
    // Every copy is kept in memory.
    for huge in paths(world, |stat| stat.is_file() && stat.len() > 16 << 20) {
        fs::remove_file(huge).unwrap();
    }
}

fn special(world: &World, dice: &mut Dice, old: Option<&Manifest>) -> io::Result<()> {
    let files = paths(world, fs::Metadata::is_file);
    let below = paths(world, fs::Metadata::is_dir);
    let all = paths(world, |_| true);
    let dirs = [below.clone(), vec![world.root()]].concat();
    let dir = dice.pick(&dirs).unwrap().clone();
    let left_out = dir.join(format!("x{}{}", dice.roll(3), ENDINGS[dice.roll(2) as usize]));
    let roll = dice.roll(16);
    match roll {
        0 => {
            let file = pick(dice, &files)?;
            let length = dice.roll(5000);
            OpenOptions::new().append(true).open(file)?.write_all(&dice.bytes(length))
        }
        // As large and as old as an old version, with other bytes.
        1 | 2 => {
            let Some((path, seen)) = old.and_then(|old| old_version(world, dice, old)) else { return Ok(()) };
            let file = OpenOptions::new().write(true).open(path)?;
            let at = dice.roll(seen.size + 1);
            file.set_len(seen.size)?;
            let bytes = dice.bytes((seen.size - at).min(3000));
            file.write_all_at(&bytes, at)?;
            file.set_modified(time(seen.mtime))
        }
        // The old version once more, in the same inode or another.
        3 => {
            let Some((path, seen)) = old.and_then(|old| old_version(world, dice, old)) else { return Ok(()) };
            if dice.roll(2) == 0 {
                fs::remove_file(&path)?;
            }
            let mut file = File::create(path)?;
            file.write_all(&seen.content)?;
            file.set_permissions(fs::Permissions::from_mode(seen.permissions | 0o600))?;
            file.set_modified(time(seen.mtime))
        }
        // Another kind of thing under the same name.
        4 | 5 => {
            let any = pick(dice, &all)?;
            remove(&any)?;
            match dice.roll(4) {
                0 => symlink("elsewhere", any),
                1 => fs::write(any, dice.bytes(100)),
                roll => {
                    fs::create_dir_all(any.join("below/deep"))?;
                    fs::write(any.join("below/file"), dice.bytes(300))?;
                    let excluded = any.join("below/deep").join(format!("y{}", ENDINGS[0]));
                    if roll == 2 { fs::write(excluded, "left out") } else { Ok(()) }
                }
            }
        }
        6 => swap(&pick(dice, &files)?, &pick(dice, &files)?),
        7 => swap(&pick(dice, &below)?, &pick(dice, &below)?),
        8 if is_pipe(&left_out) => Ok(()),
        8 => fs::write(left_out, dice.bytes(1000)),
        9 => {
            fs::create_dir_all(left_out.join("in"))?;
            fs::write(left_out.join("in/file"), dice.bytes(500))
        }
        10 => fs::hard_link(pick(dice, &files)?, left_out),
        // Into what is left out, and back.
        11 => fs::rename(pick(dice, &all)?, left_out),
        12 | 13 => {
            let is_left_out =
                |path: &&PathBuf| ENDINGS.iter().any(|end| path.as_os_str().as_bytes().ends_with(end.as_bytes()));
            let found: Vec<PathBuf> = all.iter().filter(is_left_out).cloned().collect();
            let found = pick(dice, &found)?;
            if roll == 12 { remove(&found) } else { fs::rename(found, dir.join("back")) }
        }
        14 => {
            let path = pick(dice, &all)?;
            if !fs::symlink_metadata(&path)?.is_symlink() {
                let mode = if path.is_dir() { 0o700 } else { 0o400 } | dice.roll(0o1000) as u32;
                fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
            }
            Ok(())
        }
        _ => File::open(dir)?.set_modified(UNIX_EPOCH + Duration::from_nanos(dice.roll(u64::MAX / 8))),
    }
}
