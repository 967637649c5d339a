"""The tools of the comparison on a local disk, each with its defaults: how it captures, mounts and restores."""

import os
import shutil
import subprocess
import sys

PASSWORD = "bench"


def binary(variable, *names):
    """A program's path, by an environment variable or by PATH; none when it is not installed."""
    found = os.environ.get(variable) or next(filter(None, map(shutil.which, names)), None)
    # Commands run elsewhere.
    return found and os.path.abspath(found)


class Tool:
    """A tool with one repository. What the commands yield are arguments to be run, and measured, by others."""

    captures = mounts = restores = histories = True
    # The environment's variable that names its program, and the program's name.
    program = None

    def __init__(self, work):
        self.repository, self.cache = f"{work}/{self.name}/repository", f"{work}/{self.name}/cache"
        self.work = work
        self.binary = binary(*self.program)

    def environment(self):
        return dict(os.environ)

    def fresh(self):
        for path in (self.repository, self.cache):
            shutil.rmtree(path, ignore_errors=True)
            os.makedirs(path, mode=0o700)

    def present(self):
        return self.binary is not None

    def init(self):
        """Commands that make the repository."""
        return []

    def unmount(self, mountpoint):
        return ["umount", mountpoint]

    def points(self, mountpoint):
        return mountpoint


class Amberfs(Tool):
    name = "amberfs"
    program = ("AMBERFS", "amberfs")
    encrypted = True

    def key(self):
        return f"{self.work}/{self.name}/key"

    def environment(self):
        own = f"{self.work}/{self.name}"
        known = {**os.environ, "AMBERFS_REPOSITORY": self.repository, "AMBERFS_CACHE_DIR": self.cache,
                 "AMBERFS_STATE_DIR": f"{own}/state", "AMBERFS_CONFIG": f"{own}/config.toml"}
        return {**known, "AMBERFS_KEYFILE": self.key()} if self.encrypted else known

    def fresh(self):
        super().fresh()
        if os.path.exists(self.key()):
            os.unlink(self.key())

    def init(self):
        if not self.encrypted:
            return [[self.binary, "init", "--unencrypted"]]
        return [["env", "-u", "AMBERFS_KEYFILE", self.binary, "init", "--new-keyfile", self.key()]]

    def capture(self, path, _number):
        return [self.binary, "capture", f"bench={path}"]

    def mount(self, mountpoint, _which, _path):
        return [self.binary, "mount", "--foreground", mountpoint]

    def top(self, mountpoint, _path):
        return f"{mountpoint}/bench/latest/."

    def points(self, mountpoint):
        return f"{mountpoint}/bench/points"

    def unmount(self, mountpoint):
        return [self.binary, "umount", mountpoint]

    def restore(self, target, _path):
        return [self.binary, "restore", "bench", "--to", target]


class Plain(Amberfs):
    name = "plain"
    encrypted = False


class Restic(Tool):
    name = "restic"
    program = ("RESTIC", "restic")

    def environment(self):
        return {**os.environ, "RESTIC_PASSWORD": PASSWORD, "RESTIC_REPOSITORY": self.repository,
                "RESTIC_CACHE_DIR": self.cache, "RESTIC_PROGRESS_FPS": "0.1"}

    def init(self):
        return [[self.binary, "-q", "init", "--repository-version", "2"]]

    def capture(self, path, _number):
        return [self.binary, "-q", "backup", path]

    def mount(self, mountpoint, _which, _path):
        return [self.binary, "-q", "mount", mountpoint]

    def top(self, mountpoint, path):
        return f"{mountpoint}/snapshots/latest{path}/."

    def points(self, mountpoint):
        return f"{mountpoint}/snapshots"

    def restore(self, target, _path):
        return [self.binary, "-q", "restore", "latest", "--target", target]


class Rustic(Tool):
    name = "rustic"
    program = ("RUSTIC", "rustic")

    def environment(self):
        return {**os.environ, "RUSTIC_PASSWORD": PASSWORD, "RUSTIC_REPOSITORY": self.repository,
                "RUSTIC_CACHE_DIR": self.cache, "RUSTIC_NO_PROGRESS": "true", "RUSTIC_LOG_LEVEL": "warn"}

    def init(self):
        return [[self.binary, "init"]]

    def capture(self, path, _number):
        return [self.binary, "backup", path]

    def mount(self, mountpoint, which, path):
        what = [mountpoint, f"latest:{path}"] if which == "latest" else ["--path-template", "{id}", mountpoint]
        return [self.binary, "mount", *what]

    def top(self, mountpoint, _path):
        return f"{mountpoint}/."

    def restore(self, target, path):
        return [self.binary, "restore", f"latest:{path}", target]


class Borg(Tool):
    name = "borg"
    program = ("BORG", "borg")

    def environment(self):
        return {**os.environ, "BORG_PASSPHRASE": PASSWORD, "BORG_REPO": self.repository, "BORG_BASE_DIR": self.cache,
                "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}

    def init(self):
        return [[self.binary, "init", "--encryption=repokey-blake2"]]

    def capture(self, path, number):
        return [self.binary, "create", f"::p{number:05}", path]

    def last(self):
        listed = subprocess.run([self.binary, "list", "--last", "1", "--short"], env=self.environment(), check=True,
                                stdout=subprocess.PIPE, text=True)
        return listed.stdout.strip()

    def mount(self, mountpoint, which, _path):
        what = f"{self.repository}::{self.last()}" if which == "latest" else self.repository
        return [self.binary, "mount", "-f", what, mountpoint]

    def top(self, mountpoint, path):
        return f"{mountpoint}{path}/."

    def restore(self, target, _path):
        # It extracts into the directory that it runs in.
        return ["sh", "-c", 'mkdir -p "$1" && cd "$1" && exec "$2" extract "::$3"', "sh", target, self.binary, self.last()]


class Squashfuse(Tool):
    """A squashfs image in zstd, level 3, read by squashfuse: what only has to read."""

    name = "squashfuse"
    program = ("SQUASHFUSE", "squashfuse_ll")
    restores = histories = False

    def present(self):
        return super().present() and shutil.which("mksquashfs") is not None

    def capture(self, path, _number):
        return ["mksquashfs", path, f"{self.repository}/image", "-noappend", "-comp", "zstd", "-Xcompression-level", "3",
                "-no-progress", "-quiet"]

    def mount(self, mountpoint, _which, _path):
        return [self.binary, "-f", f"{self.repository}/image", mountpoint]

    def top(self, mountpoint, _path):
        return f"{mountpoint}/."


class Native(Tool):
    """The filesystem itself: what it takes to read and to copy what is captured."""

    name = "native"
    program = ("SHELL", "sh")
    captures = histories = False

    def mount(self, mountpoint, _which, path):
        return ["sh", "-c", 'mount --bind "$1" "$2" && exec sleep 1000000', "sh", path, mountpoint]

    def top(self, mountpoint, _path):
        return f"{mountpoint}/."

    def restore(self, target, path):
        return ["cp", "-a", "--sparse=always", f"{path}/.", target]


TOOLS = (Amberfs, Plain, Restic, Borg, Rustic, Squashfuse, Native)
PEERS = ("restic", "borg", "rustic")


def chosen(names, work):
    """The tools of these names that are installed; says which are not."""
    tools = [kind(work) for kind in TOOLS if kind.name in names]
    for tool in tools:
        if not tool.present():
            print(f"MISSING: {tool.name} is not installed and is left out (benches/compare/install)", file=sys.stderr)
    return [tool for tool in tools if tool.present()]
