//! Everything that `stat` and its kin say of a file, through the mount, as it was at the source: one
//! test for each thing that some backup tool's mount gets wrong.

use std::os::unix::fs::MetadataExt;

use crate::processes::eventually;
use crate::walk_in::WalkIn;
use crate::world::{MANY_LINKS, lose_inode_of};
use crate::{skip, sys};

/// A mounted repository with one point of the source that `script` makes.
fn shown(script: &str) -> Option<(WalkIn, String)> {
    if !sys::is_root() {
        skip::skipped("needs root, to make devices, owners and attributes; run the tests as root");
        return None;
    }
    let walk_in = WalkIn::new();
    walk_in.sh(&format!("cd source; {script}"));
    let name = walk_in.capture(&[]);
    walk_in.mount();
    walk_in.is_as_it_was(&name);
    Some((walk_in, name))
}

#[test]
fn hard_links_share_an_inode_and_are_counted() {
    let Some((walk_in, name)) = shown("mkdir d; echo one >a; ln a b; ln a d/c; echo other >x") else { return };
    let stat = |path: &str| walk_in.point(&name).join(path).metadata().unwrap();
    assert_eq!((stat("a").ino(), stat("b").ino(), stat("a").nlink()), (stat("d/c").ino(), stat("a").ino(), 3));
    assert_ne!(stat("a").ino(), stat("x").ino());
}

#[test]
fn a_hard_linked_file_has_another_inode_in_another_point() {
    let Some((walk_in, first)) = shown("echo one >a; ln a b; echo same >c") else { return };
    walk_in.sh("echo two >source/a");
    let second = walk_in.capture(&[]);
    // Captured beside the mount: shown within its refresh interval.
    eventually("the second point is shown", || walk_in.point(&second).exists());
    for path in ["a", "c", "."] {
        let inode = |name: &str| walk_in.point(name).join(path).metadata().unwrap().ino();
        assert_ne!(inode(&first), inode(&second), "{path}");
    }
    walk_in.is_as_it_was(&first);
    walk_in.is_as_it_was(&second);
    assert_eq!(walk_in.sh("find mnt -name a -exec cat {} + | sort | uniq -c | tr -s ' '"), " 1 one\n 1 two\n");
}

#[test]
fn sparse_files_have_their_holes_and_take_no_blocks() {
    let made = shown(
        "truncate -s 50M hole; echo x | dd of=mid bs=1 seek=20000000 conv=notrunc status=none; truncate -s 300M huge; \
         echo start | dd of=huge conv=notrunc status=none; echo end | dd of=huge bs=1M seek=299 conv=notrunc status=none; head -c 100000 /dev/zero >zeros",
    );
    let Some((walk_in, name)) = made else { return };
    let blocks = |path: &str| walk_in.point(&name).join(path).metadata().unwrap().blocks();
    assert_eq!(blocks("hole"), 0);
    assert!(blocks("mid") <= 16 && blocks("huge") <= 32, "{} {}", blocks("mid"), blocks("huge"));
    assert!(blocks("zeros") * 512 >= 100_000, "zeros that are stored are data");
}

#[test]
fn devices_fifos_and_sockets_keep_their_kind_and_numbers() {
    let made = shown(
        "mknod null c 1 3; mknod disk b 259 70000; mkfifo fifo; \
         python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'",
    );
    let Some((walk_in, name)) = made else { return };
    assert_eq!(
        walk_in.sh(&format!("cd mnt/home/points/{name}; stat -c '%F %Hr %Lr' null disk; stat -c %F fifo socket")),
        "character special file 1 3\nblock special file 259 70000\nfifo\nsocket\n"
    );
}

#[test]
fn times_are_exact_to_the_nanosecond_of_directories_and_before_1970_too() {
    shown(
        "echo x >f; touch -d '2001-02-03T04:05:06.123456789Z' f; echo y >old; touch -d '1901-12-14T00:00:00.5Z' old; \
         mkdir d; echo z >d/e; touch -d '2011-01-01T00:00:00.000000001Z' d; ln -s f l; touch -h -d '1999-12-31T23:59:59.999999999Z' l",
    );
}

#[test]
fn attributes_lists_and_capabilities_are_there_and_a_missing_one_is_no_data() {
    let made = shown(
        "echo x >f; setfattr -n user.colour -v amber f; setfattr -n user.empty f; setfattr -n trusted.t -v 1 f; \
         ln -s f l; setfattr -h -n trusted.link -v yes l; setfacl -m u:1234:rw,g:99:r f; mkdir d; setfacl -d -m u:1234:rwx d; \
         cp /bin/true ping; setcap cap_net_raw+ep ping; chown 1234:5678 ping f",
    );
    let Some((walk_in, name)) = made else { return };
    let file = walk_in.point(&name).join("f");
    assert_eq!(sys::getxattr(&file, "user.none", 100), Err(libc::ENODATA));
    assert_eq!(sys::getxattr(&file, "user.colour", 100), Ok(5), "attributes go on working after one was missing");
    assert_eq!(sys::getxattr(&file, "user.colour", 2), Err(libc::ERANGE));
}

#[test]
fn strange_names_and_deep_paths_are_walked() {
    let made = shown(
        r"echo 1 >$'\xff\xfe not utf-8'; echo 2 >$'new\nline'; echo 3 >' '; echo 4 >-rf; echo 5 >'~'; echo 6 >latest; mkdir .amberfs at; echo 7 >.amberfs/control; \
         echo 8 >$(printf 'x%.0s' $(seq 255))",
    );
    let Some((walk_in, _)) = made else { return };
    // Deeper than any path can be named: entered step by step.
    walk_in.sh("python3 - <<'END'
import os
os.chdir('source')
for n in range(60):
    os.mkdir('d' * 100); os.chdir('d' * 100)
open('bottom', 'w').write('reached')
END");
    walk_in.amberfs(&["capture", &format!("home={}", walk_in.path("source").display())]);
    let name = walk_in.points().pop().unwrap();
    eventually("the second point is shown", || walk_in.point(&name).exists());
    let said = walk_in.sh(&format!(
        "python3 - <<'END'
import os
os.chdir('mnt/home/points/{name}')
for n in range(60):
    os.chdir('d' * 100)
print(open('bottom').read())
END"
    ));
    assert_eq!(said, "reached\n");
    walk_in.sh("rm -rf source");
}

#[test]
fn inodes_are_the_same_in_the_next_mount() {
    let Some((walk_in, name)) = shown("mkdir -p d/e; for n in $(seq 50); do echo $n >d/e/$n; done; ln d/e/7 seven")
    else {
        return;
    };
    let inodes = || walk_in.sh(&format!("cd mnt/home/points/{name}; find . -printf '%i %p\\n' | sort"));
    let first = inodes();
    walk_in.unmount();
    walk_in.mount();
    assert_eq!(first, inodes());
    assert_eq!(walk_in.sh("find mnt >/dev/null"), "", "no loop, no error");
}

#[test]
fn the_birth_time_is_an_attribute_behind_captured_ones() {
    let script = "echo 1 >plain; echo 2 >own; setfattr -n user.amberfs.btime -v captured own";
    let Some((walk_in, name)) = shown(script) else { return };
    let get = |file: &str| {
        let script = format!("getfattr --only-values -n user.amberfs.btime mnt/home/points/{name}/{file}");
        walk_in.sh(&format!("{script} 2>/dev/null || true"))
    };
    assert_eq!(get("own"), "captured");
    // A filesystem that keeps no birth times says 0.
    let born = walk_in.sh("stat -c %W source/plain").trim().to_owned();
    let seconds = get("plain").split('.').next().unwrap().to_owned();
    assert_eq!(seconds, if born == "0" { "" } else { &born });
    assert_eq!(walk_in.sh(&format!("getfattr -m - mnt/home/points/{name}/plain")), "", "copies must not take it along");
}

#[test]
fn damage_is_an_error_and_never_an_absence() {
    let Some((walk_in, name)) =
        shown("mkdir -p d/e; for n in $(seq 20); do head -c 600000 /dev/urandom >d/e/f$n; done; ln d/e/f9 d/e/g")
    else {
        return;
    };
    walk_in.unmount();
    // The largest pack holds the contents: cut in the middle.
    walk_in.sh(
        "f=$(find repository -name '*.pack' -printf '%s %p\\n' | sort -n | tail -1 | cut -d' ' -f2); truncate -s 2M $f",
    );
    walk_in.mount();
    let said = walk_in.sh(&format!(
        "cd mnt/home/points/{name}/d/e; ls | wc -l; cat * 2>&1 >/dev/null | sed 's/.*: //' | sort -u || true"
    ));
    assert_eq!(said, "21\nInput/output error\n");
    let errors = walk_in.sh("cat mnt/.amberfs/errors");
    for words in [".pack", &format!("home@{name}: /d/e/f8: "), &format!("home@{name}: /d/e/f9: ")] {
        assert!(errors.contains(words), "{words} in {errors}");
    }
}

#[test]
fn an_inode_that_is_lost_hides_no_other_name() {
    let Some((walk_in, name)) = shown(MANY_LINKS) else { return };
    walk_in.unmount();
    lose_inode_of(&walk_in.path("repository"), "late/b", 0);
    walk_in.mount();
    let sh = |script: &str| walk_in.sh(&format!("point=$PWD/mnt/home/points/{name}; {script}"));
    assert_eq!(sh("cd $point/late; echo *; find . | sort"), "a b c\n.\n./a\n./b\n./c\n");
    let long = sh("cd $point/late; LC_ALL=C ls -l 2>&1 || echo code $?");
    assert!(long.contains("cannot access 'b': Input/output error") && long.ends_with("code 1\n"), "{long}");
    assert_eq!(["a", "b", "c"].map(|name| long.contains(&format!(" {name}\n"))), [true; 3], "{long}");
    for path in ["late/b", "other/b"] {
        let errno = walk_in.point(&name).join(path).symlink_metadata().unwrap_err().raw_os_error();
        assert_eq!(errno, Some(libc::EIO), "{path}");
        assert!(sh("cat mnt/.amberfs/errors").contains(&format!("home@{name}: /{path}: read a hard link's inode: ")));
    }
    let read = sh("cd $point/late; LC_ALL=C cat a b c 2>&1 || true");
    assert_eq!(read, "a\ncat: b: Input/output error\nc\n");
    // What is copied is right, what is not is told, and what it may be is not deleted.
    let said = sh("mkdir copy; echo old >copy/b; echo other >copy/d; \
         code=0; LC_ALL=C rsync -a --delete $point/late/ copy/ 2>&1 || code=$?; echo $code; cat copy/*");
    assert!(said.ends_with("\n23\na\nold\nc\nother\n"), "{said}");
    assert!(
        said.contains("late/b\") failed: Input/output error (5)") && said.contains("skipping file deletion"),
        "{said}"
    );
}
