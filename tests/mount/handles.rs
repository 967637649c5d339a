//! What becomes of file handles, by which an NFS server would know the files of a mount: what docs/semantics.md says of that.

use std::process::Command;

use crate::processes::Toy;
use crate::{skip, sys};

/// Takes the handle of each path, opens it, has the kernel drop what it can, opens it again, and once more after the path was
/// looked up. Prints what each of the three gave.
const HANDLES: &str = r#"
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]
def opened(handle):
    place = os.open(sys.argv[1], os.O_RDONLY)
    fd = libc.open_by_handle_at(place, ctypes.byref(handle), os.O_RDONLY)
    error = ctypes.get_errno()
    os.close(place)
    if fd < 0:
        return errno.errorcode[error]
    os.close(fd)
    return "opened"
for path in sys.argv[2:]:
    path = os.path.join(sys.argv[1], path)
    handle, mount = Handle(bytes=128), ctypes.c_int()
    assert libc.name_to_handle_at(-100, path.encode(), ctypes.byref(handle), ctypes.byref(mount), 0) == 0
    first = opened(handle)
    for _ in range(50):
        with open("/proc/sys/vm/drop_caches", "w") as caches:
            caches.write("2\n")
        dropped = opened(handle)
        if dropped != "opened":
            break
    os.stat(path)
    print(first, dropped, opened(handle))
"#;

#[test]
fn a_handle_is_good_while_the_kernel_has_the_file_and_again_once_it_was_looked_up() {
    if !sys::is_root() {
        skip::skipped("only root may open files by their handles");
        return;
    }
    let toy = Toy::mounted("");
    let mut python = Command::new("python3");
    python.args(["-c", HANDLES]).arg(toy.path()).args(["tree/hello", ".amberfs/status.json"]);
    let output = python.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.lines().count() == 2, "{output:?}");
    assert!(told.lines().all(|line| line == "opened ESTALE opened"), "{told}");
}
