"""What the comparison on a local disk captures: made once, the same bytes wherever the same Linux source is installed.

`src` is the Linux source; `media` cannot be compressed; `text` is one large file that can; `vm` is a disk's image, and `vm2` the
same with 2 % of its blocks rewritten; `many` has a million tiny files; `snaps` is a small tree for many captures in a row.
"""

import hashlib
import os
import random
import shutil
import subprocess

SETS = ("src", "media", "text", "vm", "many", "snaps")
HERE = os.path.dirname(os.path.abspath(__file__))
EPOCH = 1_704_067_200


def run(*command, **options):
    subprocess.run(command, check=True, **options)


def made(directory, name):
    """The corpus `name` below `directory`, made if it is not there whole."""
    place = f"{directory}/{name}"
    if not os.path.exists(f"{place}.made"):
        print(f"making {name} ...", flush=True)
        shutil.rmtree(place, ignore_errors=True)
        os.makedirs(place)
        MAKERS[name](directory, place)
        os.sync()
        with open(f"{place}.made", "w", encoding="ascii"):
            pass
    return place


def src(_directory, place):
    source = subprocess.run([f"{HERE}/../../tests/linux-source"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    run("cp", "-a", f"{source}/.", place)


def media(_directory, place, files=4, mib=512):
    """The key stream of a cipher, with a fixed key."""
    for number in range(files):
        vector = f"{(number + 1) << 40:032x}"
        command = f"head -c {mib << 20} /dev/zero | openssl enc -aes-128-ctr -nosalt -K {bytes(range(16)).hex()} -iv {vector}"
        path = f"{place}/clip{number}.bin"
        with open(path, "wb") as file:
            run("sh", "-c", command, stdout=file)
        os.utime(path, (EPOCH, EPOCH))


def text(directory, place, size=4 << 30):
    """Archives of the Linux source and of this machine's programs, one behind the other."""
    source = made(directory, "src")
    command = f"{{ tar -C {source} -cf - .; tar -C /usr -cf - lib share bin 2>/dev/null; tar -C / -cf - usr/lib 2>/dev/null; }} | head -c {size}"
    with open(f"{place}/text.tar", "wb") as file:
        run("sh", "-c", command, stdout=file)


def vm(directory, place, gib=8, fill=3 << 30):
    """An ext4 image that holds the Linux source and as much of /usr/lib as makes 3 GiB."""
    stage = f"{directory}/stage"
    shutil.rmtree(stage, ignore_errors=True)
    os.makedirs(stage)
    run("cp", "-a", made(directory, "src"), f"{stage}/src")
    have = sum(os.lstat(f"{path}/{name}").st_size for path, _, names in os.walk(stage) for name in names)
    for path, directories, names in os.walk("/usr/lib"):
        directories.sort()
        target = f"{stage}/lib/{os.path.relpath(path, '/usr/lib')}"
        os.makedirs(target, exist_ok=True)
        for name in sorted(names):
            file = f"{path}/{name}"
            size = os.lstat(file).st_size
            if os.path.isfile(file) and have + size <= fill:
                shutil.copy2(file, f"{target}/{name}", follow_symlinks=False)
                have += size
    image = f"{place}/disk.img"
    run("truncate", "-s", f"{gib}G", image)
    identity = "11111111-2222-3333-4444-555555555555"
    run("mke2fs", "-q", "-t", "ext4", "-F", "-U", identity, "-E", f"hash_seed={identity},lazy_itable_init=0", "-d", stage, image)
    run("fallocate", "-d", image)
    shutil.rmtree(stage)
    changed = f"{directory}/vm2"
    shutil.rmtree(changed, ignore_errors=True)
    os.makedirs(changed)
    run("cp", "--sparse=always", image, f"{changed}/disk.img")
    rewrite(f"{changed}/disk.img", 0.02)


def data_of(path):
    """The stretches of a sparse file that hold data."""
    handle = os.open(path, os.O_RDONLY)
    end, at, found = os.fstat(handle).st_size, 0, []
    while at < end:
        try:
            begin = os.lseek(handle, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(handle, begin, os.SEEK_HOLE)
        found.append((begin, at))
    os.close(handle)
    return found


def rewrite(image, part):
    """Rewrites a part of an image's data: half in runs of 1 to 4 MiB, as new files do, half in runs of 4 to 64 KiB in
    a twentieth of the data, as metadata and databases do."""
    stretches = data_of(image)
    total = sum(end - begin for begin, end in stretches)
    dice, done, wanted = random.Random(11), 0, int(total * part)
    hot = [dice.randrange(int(total * 0.98)) for _ in range(8)]
    with open(image, "r+b") as file:
        while done < wanted:
            bulk = done < wanted // 2
            at = dice.randrange(total) if bulk else dice.choice(hot) + dice.randrange(int(total * 0.05 / 8))
            blocks = dice.randrange(256, 1025) if bulk else dice.randrange(1, 17)
            for begin, end in stretches:
                if at < end - begin:
                    place = (begin + at) & ~4095
                    length = min(blocks * 4096, end - place) & ~4095
                    file.seek(place)
                    file.write(dice.randbytes(length // 2) + bytes(length - length // 2))
                    done += length
                    break
                at -= end - begin


def tiny(place, directories, each, largest):
    dice = random.Random(20240101)
    for outer in range(directories):
        path = f"{place}/d{outer:04}"
        os.mkdir(path)
        for number in range(each):
            length = dice.randrange(largest + 1)
            file = f"{path}/f{number:06}.txt"
            with open(file, "wb") as to:
                to.write(dice.randbytes(length // 2 + 1).hex()[:length].encode())
            moment = (EPOCH + number) * 10**9 + number * 1000 + outer
            os.utime(file, ns=(moment, moment))


def files_of(tree):
    found = []
    for path, directories, names in os.walk(tree):
        directories.sort()
        found += [f"{path}/{name}" for name in sorted(names) if not os.path.islink(f"{path}/{name}")]
    return found


def change_some(tree, kept, part=0.01):
    """Changes a part of a tree's files, in front or behind, and keeps what they were in the archive `kept`."""
    files = files_of(tree)
    picked = sorted(random.Random(7).sample(files, int(len(files) * part)))
    names = "\0".join(os.path.relpath(path, tree) for path in picked)
    run("tar", "-C", tree, "--null", "-T", "-", "-cf", kept, input=names.encode())
    for number, path in enumerate(picked):
        with open(path, "r+b") as file:
            file.seek(0, os.SEEK_END if number % 2 else os.SEEK_SET)
            file.write(b"/* changed %d */\n" % number)


def change_back(tree, kept):
    run("tar", "-C", tree, "-xpf", kept)
    os.unlink(kept)


def change_one(tree, number):
    """Rewrites one file of a small tree; which, and with what, follows from `number`."""
    files = files_of(tree)
    with open(files[number * 37 % len(files)], "w", encoding="ascii") as file:
        file.write(hashlib.sha256(b"%d" % number).hexdigest() * (1 + number % 100))


MAKERS = {
    "src": src, "media": media, "text": text, "vm": vm,
    "many": lambda _, place: tiny(place, 1000, 1000, 200),
    "snaps": lambda _, place: tiny(place, 10, 20, 20000),
}
