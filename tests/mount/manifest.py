# What can be seen of a tree, a line of JSON for each path in order, by system calls alone: `manifest.py DIR`.
# Access times are left out: looking changes them.
import hashlib, json, os, stat, sys

def holes(fd, size):
    found, at = [], 0
    while at < size:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(fd, data, os.SEEK_HOLE)
        found.append([data, at])
    return found

firsts = {}
def tell(path, name):
    st = os.lstat(path)
    row = dict(path=os.fsencode(name).decode("latin-1"), mode=oct(st.st_mode), uid=st.st_uid, gid=st.st_gid,
               mtime=st.st_mtime_ns, ctime=st.st_ctime_ns, links=st.st_nlink, size=st.st_size)
    row["first"] = firsts.setdefault(st.st_ino, row["path"])
    row["xattrs"] = {n: os.getxattr(path, n, follow_symlinks=False).hex() for n in sorted(os.listxattr(path, follow_symlinks=False))}
    if stat.S_ISLNK(st.st_mode):
        row["target"] = os.fsencode(os.readlink(path)).decode("latin-1")
    if stat.S_ISBLK(st.st_mode) or stat.S_ISCHR(st.st_mode):
        row["device"] = [os.major(st.st_rdev), os.minor(st.st_rdev)]
    if stat.S_ISREG(st.st_mode):
        with open(path, "rb", buffering=0) as f:
            row["data"] = holes(f.fileno(), st.st_size)
            row["sha256"] = hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.sha256(f.read()).hexdigest()
        row["sparse"] = st.st_blocks * 512 < st.st_size // 2
    print(json.dumps(row, sort_keys=True))
    if stat.S_ISDIR(st.st_mode):
        for child in sorted(os.listdir(os.fsencode(path))):
            child = os.fsdecode(child)
            tell(os.path.join(path, child), os.path.join(name, child) if name else child)

sys.setrecursionlimit(10000)
tell(sys.argv[1], "")
