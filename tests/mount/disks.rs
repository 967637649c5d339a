//! Disks on real input: partitioned images with real filesystems are captured, changed, captured again and
//! mounted, and every point is what a kept copy is, by everybody's judgement: cmp, qemu-img, the filesystems'
//! own checkers, the kernel's loop mounts, rsync and The Sleuth Kit.

use crate::walk_in::WalkIn;
use crate::{skip, sys};

/// Whether the machine can make and mount images; says loudly when it cannot.
#[track_caller]
pub(crate) fn can_mount_images() -> bool {
    if !sys::is_root() {
        skip::skipped("needs root, to mount images; run the tests as root");
        return false;
    }
    let tools = ["losetup", "sfdisk", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "qemu-img", "fls", "jq", "partx"];
    if !has_tools(&tools) {
        return false;
    }
    if !std::process::Command::new("losetup").arg("--find").output().is_ok_and(|output| output.status.success()) {
        skip::skipped("there are no loop devices here");
        return false;
    }
    true
}

/// Whether the machine has the tools; says loudly when it has not.
#[track_caller]
pub(crate) fn has_tools(tools: &[&str]) -> bool {
    for tool in tools {
        let found = std::process::Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
        if !found.is_ok_and(|output| output.status.success()) {
            skip::skipped(&format!("no {tool}: tests/run packages installs what disks are judged by"));
            return false;
        }
    }
    true
}

/// Shell functions that the tests share. An image `disk.img` has a GPT with ext4, xfs and btrfs; `p1.img`, `p2.img` and
/// `p3.img` are its partitions apart.
const FUNCTIONS: &str = r#"
trap 'echo "failed: $BASH_COMMAND" >&2' ERR
place() { partx --show --noheadings --nr "$1" --output START,SECTORS disk.img; }
put() { local at; at=($(place "$1")); dd if="p$1.img" of=disk.img bs=512 seek="${at[0]}" conv=notrunc,sparse status=none; }
# Runs a command in the mounted partition image.
inside() { local image=$1; shift; mkdir -p in; mount -o loop "$image" in; (cd in; eval "$*"); umount in; }
# Mounts a file read-only, as the help for disks names it.
look() { # IMAGE TYPE
  case $2 in
    ext4) mount -o loop,ro,noload "$1" look ;;
    xfs) mount -o loop,ro,norecovery,nouuid "$1" look ;;
    btrfs) mount -o loop,ro "$1" look ;;
  esac
}
types=(none ext4 xfs btrfs)
mkdir -p look
"#;

const FILL: &str = r#"
truncate -s 700M disk.img
printf 'label: gpt\nsize=80MiB\nsize=310MiB\nsize=200MiB\n' | sfdisk --quiet disk.img
for n in 1 2 3; do
  at=($(place $n)); truncate -s $((at[1] * 512)) p$n.img
  mkfs.${types[$n]} -q p$n.img
  inside p$n.img 'cp -r /usr/include/linux . ; head -c 3000000 /dev/urandom >noise; echo first >version; ln version second; mkdir many; (cd many; seq 300 | xargs touch)'
  put $n
done
"#;

const CHANGE: &str = r#"
for n in 1 2 3; do
  inside p$n.img 'echo next >version; rm -r linux/usb; head -c 200000 /dev/urandom >>noise; echo new >new'
  # The whole partition again: what was data and is zero now must be zero in the disk, too.
  at=($(place $n)); dd if=p$n.img of=disk.img bs=512 seek="${at[0]}" conv=notrunc status=none
done
"#;

/// Keeps what the source is now under the name of the point that has just been captured.
fn keep(walk_in: &WalkIn, name: &str) {
    walk_in.sh(&format!("mkdir 'kept-{name}'; cp --sparse=always disk.img p1.img p2.img p3.img 'kept-{name}'"));
}

fn capture(walk_in: &WalkIn, more: &[&str]) -> String {
    let name = walk_in.capture_of(&["--disk", "vm=disk.img"], more);
    keep(walk_in, &name);
    name
}

/// Judges the point `name` of the mounted disk.
const JUDGE: &str = r#"
p=mnt/vm/points/$NAME; kept=kept-$NAME
[ "$(ls $p)" = "$(printf 'disk.qcow2\ndisk.raw\nmap.json\npartitions')" ]
[ "$(stat -c %a:%s:%F $p/disk.raw)" = "400:$(stat -c %s $kept/disk.img):regular file" ]
cmp $p/disk.raw $kept/disk.img
# Sparse as the kept copy: what is copied by its holes has the same bytes and little more room.
cp --sparse=always $p/disk.raw copy.raw; cmp copy.raw $kept/disk.img
[ "$(du -k copy.raw | cut -f1)" -le $(($(du -k $kept/disk.img | cut -f1) + 10000)) ]
[ "$(stat -c %b $p/disk.raw)" -le $(($(stat -c %b $kept/disk.img) + 20000)) ]
qemu-img check -q -f qcow2 $p/disk.qcow2
qemu-img compare -q -f raw -F qcow2 $kept/disk.img $p/disk.qcow2
qemu-img convert -f qcow2 -O raw $p/disk.qcow2 copy.raw; cmp copy.raw $kept/disk.img
[ "$(ls $p/partitions | tr '\n' ' ')" = '1.raw 2.raw 3.raw ' ]
for n in 1 2 3; do
  cmp $p/partitions/$n.raw $kept/p$n.img
  look $p/partitions/$n.raw ${types[$n]}
  mount -o loop,ro,$([ $n = 2 ] && echo norecovery,nouuid || echo defaults) $kept/p$n.img in 2>/dev/null && both=yes || both=no
  # btrfs knows its filesystems by their ids and mounts only one of two copies at once.
  if [ $both = yes ] && [ $n != 3 ]; then [ -z "$(rsync -aHAXn --checksum --itemize-changes --delete in/ look/)" ]; fi
  [ $both = no ] || umount in
  [ $(find look -type f | wc -l) -gt 0 ]
  umount look
done
e2fsck -fn $p/partitions/1.raw >/dev/null 2>&1
xfs_repair -nf $p/partitions/2.raw >/dev/null 2>&1
btrfs check --readonly $p/partitions/3.raw >/dev/null 2>&1
# The Sleuth Kit reads the filesystem in the mounted disk, by the offset of its partition.
at=($(place 1))
[[ $(fsstat -o ${at[0]} $p/disk.raw) == *'File System Type: Ext4'* ]]
for file in version noise linux/fs.h; do
  inode=$(fls -o ${at[0]} -F -r -p $p/disk.raw | awk -F'[ :\t]+' -v f=$file '$3 == f { print $2 }')
  icat -o ${at[0]} $p/disk.raw $inode >from-disk
  look $p/partitions/1.raw ext4; cmp from-disk look/$file; umount look
done
# The map covers the disk, and its data is where the image has anything but zeros.
jq -e --argjson size $(stat -c %s $kept/disk.img) '
  .bytes == $size and ([.extents[].bytes] | add) == $size
  and ([.extents[] | .offset] | . == (sort | unique))
  and (.extents[0].offset == 0)' $p/map.json >/dev/null
"#;

#[test]
fn a_disk_of_three_filesystems_is_captured_changed_and_walked() {
    if !can_mount_images() {
        return;
    }
    let walk_in = WalkIn::new();
    let sh = |script: &str| walk_in.sh(&format!("{FUNCTIONS}\n{script}"));
    sh(FILL);
    let full = capture(&walk_in, &["--label", "first"]);
    sh(CHANGE);
    let incremental = capture(&walk_in, &[]);
    let fresh = capture(&walk_in, &["--full"]);
    walk_in.mount();
    for name in [&full, &incremental, &fresh] {
        sh(&format!("NAME={name}\n{JUDGE}"));
    }
    // What differs between the two images lies in what the map says has changed, and little else does.
    sh(&format!(
        r#"
        cmp -l kept-{full}/disk.img kept-{incremental}/disk.img | awk '{{ print int(($1 - 1) / 65536) }}' | sort -nu >differs || true
        jq -r '.extents[] | select(.changed) | "\(.offset / 65536 | floor) \((.offset + .bytes - 1) / 65536 | floor)"' \
          mnt/vm/points/{incremental}/map.json | while read a b; do seq $a $b; done | sort -nu >told
        cmp differs told
        [ -s differs ]
        "#
    ));
    let chains = sh("ls mnt/vm/chains mnt/vm/chains/0; readlink mnt/vm/latest");
    assert!(chains.contains("000-full") && chains.contains("001-incremental") && chains.contains(&fresh), "{chains}");
    walk_in.unmount();
}

#[test]
fn the_inode_numbers_of_what_a_disk_shows_stay() {
    if !can_mount_images() {
        return;
    }
    let walk_in = WalkIn::new();
    walk_in.sh("truncate -s 40M disk.img; printf 'label: dos\\nsize=10MiB\\n' | sfdisk --quiet disk.img; cp disk.img p1.img; cp disk.img p2.img; cp disk.img p3.img");
    let name = capture(&walk_in, &[]);
    let list = || walk_in.sh(&format!("find mnt/vm/points/{name} -printf '%P %i %s %m\\n' | sort"));
    walk_in.mount();
    let first = list();
    assert_eq!(first.lines().count(), 6, "{first}");
    walk_in.unmount();
    walk_in.mount();
    assert_eq!(list(), first);
    for wrong in ["partitions/2.raw", "partitions/01.raw", "disk.qcow", "partitions/1.raw/x"] {
        walk_in.sh(&format!("! stat mnt/vm/points/{name}/{wrong} 2>/dev/null"));
    }
    walk_in.sh(&format!(
        "p=mnt/vm/points/{name}; ! ls $p/disk.qcow2/ 2>/dev/null; ! cat $p/partitions 2>/dev/null; \
         [ \"$(tar -C $p -cf - . | tar -tf - | wc -l)\" = 6 ]"
    ));
    walk_in.unmount();
}

/// An image of 64 MiB with an ext4 filesystem, some noise and many holes, as `disk.img`.
const SMALL: &str = r#"
truncate -s 64M disk.img; mkfs.ext4 -q disk.img; mkdir -p in look
mount -o loop disk.img in; cp -r /usr/include/linux in/; head -c 9000000 /dev/urandom >in/noise; umount in
for n in 1 2 3; do cp --sparse=always disk.img p$n.img; done
"#;

#[test]
fn a_disk_is_restored_to_images_and_devices() {
    if !can_mount_images() {
        return;
    }
    let walk_in = WalkIn::new();
    let sh = |script: &str| walk_in.sh(script);
    let refused = |arguments: &[&str], code: i32, words: &str| {
        let output = walk_in.try_amberfs(&[&["restore", "vm", "--to"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    };
    sh(SMALL);
    let name = capture(&walk_in, &[]);
    let kept = format!("kept-{name}/disk.img");

    let said = walk_in.amberfs(&["restore", "vm", "--to", "out.raw", "--verify"]);
    assert!(said.contains("64.0 MiB read back and equal"), "{said}");
    sh(&format!("cmp out.raw {kept}; [ $(stat -c %a out.raw) = 600 ]; e2fsck -fn out.raw >/dev/null 2>&1"));
    sh(&format!("[ $(du -k out.raw | cut -f1) -le $(($(du -k {kept} | cut -f1) + 1000)) ]"));
    walk_in.amberfs(&["restore", "vm", "--to", "out.qcow2", "--verify"]);
    sh(&format!(
        "qemu-img check -q out.qcow2; qemu-img compare -q -f raw -F qcow2 {kept} out.qcow2; [ $(du -k out.qcow2 | cut -f1) -lt 40000 ]"
    ));
    refused(&["out.raw"], 11, "exists already: use --force");
    sh("echo junk >out.raw");
    walk_in.amberfs(&["restore", "vm", "--to", "out.raw", "--force"]);
    sh(&format!("cmp out.raw {kept}; [ -z \"$(ls -A | grep amberfs-)\" ]"));
    refused(&["mnt"], 1, "name one in it, such as disk.raw");
    refused(&["nowhere/out.raw"], 1, "nowhere/out.raw");
    let said = walk_in.amberfs(&["restore", "vm", "--to", "dry.raw", "--dry-run"]);
    assert!(said.contains("would restore") && !walk_in.path("dry.raw").exists(), "{said}");

    // A device that is larger: what lies behind is left alone.
    let device = Loop::new(&walk_in, 80 << 20);
    walk_in.amberfs(&["restore", "vm", "--to", device.path(), "--verify"]);
    sh(&format!("cmp -n 67108864 {} {kept}", device.path()));
    refused(&[device.path()], 11, "is not empty: wipe it");
    sh(&format!("head -c 80M /dev/zero | tr '\\0' '\\377' >{}", device.path()));
    let said = walk_in.amberfs(&["restore", "vm", "--to", device.path(), "--force", "--verify"]);
    assert!(said.contains("made zeros") && said.contains("16.0 MiB of the device lie behind"), "{said}");
    sh(&format!(
        "cmp -n 67108864 {0} {kept}; [ $(tail -c +67108865 {0} | tr -d '\\377' | wc -c) = 0 ]; [ -z \"$(ls state/restores)\" ]",
        device.path()
    ));
    sh(&format!("mount -o ro {} in", device.path()));
    refused(&[device.path(), "--force"], 11, "is in use: unmount it");
    sh("umount in");
    let small = Loop::new(&walk_in, 10 << 20);
    refused(&[small.path(), "--force"], 1, "the disk needs 67108864");
}

#[test]
fn a_restore_that_is_killed_goes_on_where_it_was() {
    if !can_mount_images() {
        return;
    }
    let walk_in = WalkIn::new();
    walk_in.sh("head -c 150M /dev/urandom >disk.img; truncate -s 400M disk.img; head -c 50M /dev/urandom >>disk.img; for n in 1 2 3; do cp --sparse=always disk.img p$n.img; done");
    let name = capture(&walk_in, &[]);
    let kept = format!("kept-{name}/disk.img");
    let device = Loop::new(&walk_in, 450 << 20);
    for target in ["out.raw", "out.qcow2", device.path()] {
        let mut continued = false;
        for round in 1.. {
            let mut child = walk_in.command(&["restore", "--json", "vm", "--to", target]).spawn().unwrap();
            // Twice in its middle, as far as this machine lets it get; then to its end.
            if round < 3 {
                std::thread::sleep(std::time::Duration::from_millis(60 * round));
                drop(child.kill());
            }
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            if round < 3 && output.status.code().is_none() {
                let visible = walk_in.path(target).exists() && !target.starts_with('/');
                assert!(!visible, "{target} has its name before it is complete");
                continued = true;
                continue;
            }
            assert!(output.status.success(), "{target}: {output:?}");
            let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
            assert!(!continued || last["resumed"] == true || last["written_bytes"].as_u64() > Some(0), "{said}");
            break;
        }
        match target {
            "out.qcow2" => walk_in.sh(&format!("qemu-img compare -q -f raw -F qcow2 {kept} {target}")),
            _ => walk_in.sh(&format!("cmp -n 471859200 {target} {kept}")),
        };
    }
    walk_in.sh("[ -z \"$(ls -A | grep amberfs-)\" ]; [ -z \"$(ls state/restores)\" ]");
}

/// A loop device of its own; gone with the test.
pub(crate) struct Loop {
    device: String,
}

impl Loop {
    pub(crate) fn new(walk_in: &WalkIn, bytes: u64) -> Loop {
        let device = walk_in.sh(&format!("f=$(mktemp loop.XXXX); truncate -s {bytes} $f; losetup --find --show $f"));
        Loop { device: device.trim().to_owned() }
    }

    pub(crate) fn path(&self) -> &str {
        &self.device
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        drop(std::process::Command::new("losetup").args(["--detach", &self.device]).status());
    }
}

#[test]
fn a_target_that_is_full_ends_a_restore() {
    if !can_mount_images() {
        return;
    }
    let walk_in = WalkIn::new();
    walk_in.sh("head -c 90M /dev/urandom >disk.img; cp disk.img source/large; mkdir small; mount -t tmpfs -o size=20m tmpfs small");
    walk_in.capture_of(&["--disk", "vm=disk.img"], &[]);
    walk_in.capture_of(&["home=source"], &[]);
    for arguments in [["restore", "vm", "--to", "small/out.raw"], ["restore", "home", "--to", "small/out"]] {
        let mut child = walk_in.command(&arguments).spawn().unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while child.try_wait().unwrap().is_none() {
            if std::time::Instant::now() > end {
                drop(child.kill());
                panic!("{arguments:?} does not end");
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("No space left"), "{arguments:?}: {said}");
        walk_in.sh("[ ! -e small/out.raw ]; rm -rf small/out small/.out*");
    }
    walk_in.sh("umount small");
}

#[test]
fn a_disk_is_told_of_on_the_command_line() {
    let walk_in = WalkIn::new();
    walk_in.sh("head -c 3M /dev/urandom >disk.img; truncate -s 9M disk.img");
    let refused = |arguments: &[&str], code: i32, words: &str| {
        let output = walk_in.try_amberfs(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    };
    refused(&["capture", "vm=disk.img"], 1, "--disk captures a block device or an image");
    refused(&["capture", "--disk", "vm=source"], 2, "capture it without --disk");
    refused(&["capture", "--disk", "vm=disk.img", "--chunk-kib", "100"], 2, "a power of two from 16 KiB to 1 MiB");
    refused(&["capture", "--disk", "vm=disk.img", "--exclude", "x"], 2, "--exclude");
    refused(&["capture", "--disk", "vm=none.img"], 1, "cannot read the disk");
    assert_eq!(walk_in.amberfs(&["source", "list", "--json"]), "", "nothing is left of what was refused");
    let said = walk_in.amberfs(&["capture", "--disk", "vm=disk.img", "--chunk-kib", "16"]);
    assert!(said.contains("a disk of 9.0 MiB, all data read; 3.0 MiB changed"), "{said}");
    let said = walk_in.amberfs(&["capture", "--json", "--disk", "vm=disk.img", "--chunk-kib", "16"]);
    let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(last["disk"]["changed_bytes"], 0, "{said}");
    assert_eq!((&last["disk"]["chunk_bytes"], &last["disk"]["stillness"]), (&16384.into(), &"still".into()), "{said}");
    refused(&["capture", "vm=source"], 11, "is a disk, not a directory tree");
    walk_in.sh("mv disk.img moved.img");
    refused(&["capture", "--disk", "vm=moved.img"], 11, "--adopt");
    let output = walk_in.try_amberfs(&["cat", "vm"]);
    assert!(output.stdout == std::fs::read(walk_in.path("moved.img")).unwrap());
    // A configured disk, captured by its name, begins a new chain after two points.
    walk_in.amberfs(&["source", "add", "configured", "moved.img", "--disk", "--chain-max-points", "2"]);
    for kind in ["full", "incremental", "full"] {
        walk_in.sh("printf %s $RANDOM$RANDOM | dd of=moved.img bs=1 seek=70000 conv=notrunc status=none");
        let said = walk_in.amberfs(&["capture", "--json", "configured"]);
        let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        assert_eq!(last["kind"], kind, "{said}");
    }
    assert!(walk_in.amberfs(&["source", "list"]).contains("disk"));
    // Written to all the time: a point, and the word that it is torn.
    let mut writer = std::process::Command::new("python3")
        .args(["-c", "import random\nwith open('moved.img', 'r+b', 0) as disk:\n  while True:\n    disk.seek(random.randrange(3000000)); disk.write(b'x')"])
        .current_dir(walk_in.path("."))
        .spawn()
        .unwrap();
    // On a busy machine it may not have its turn while the disk is read.
    let output = (0..100)
        .map(|_| walk_in.try_amberfs(&["capture", "configured"]))
        .find(|output| output.status.code() != Some(0))
        .expect("the disk is always captured between two writes");
    drop(writer.kill());
    drop(writer.wait());
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("written to while it was read"), "{output:?}");
}
