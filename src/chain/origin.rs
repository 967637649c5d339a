//! Where this machine captures from: what keeps two hosts from writing under one source's name.

use std::path::Path;

use crate::format::log::Origin;

/// Overrides machine identity and host name: for containers that share an image's machine id, and tests.
pub const HOST_VARIABLE: &str = "AMBERFS_HOST";

/// `path` on this machine. `path` is absolute, in bytes; of a stream it is the file's name.
pub fn here(path: &[u8]) -> Origin {
    let forced = std::env::var(HOST_VARIABLE).ok().filter(|name| !name.is_empty());
    let (machine, host) = match forced {
        Some(name) => (name.clone(), name),
        None => identity(Path::new("/")),
    };
    Origin { machine, host, path: path.to_owned() }
}

/// Machine identity and host name of the system under `root`.
///
/// A machine without an identity (some containers, early boot) is known by its host name.
fn identity(root: &Path) -> (String, String) {
    let word = |path: &str| {
        let text = std::fs::read_to_string(root.join(path)).unwrap_or_default();
        let word = text.trim().to_owned();
        (!word.is_empty()).then_some(word)
    };
    let host = word("proc/sys/kernel/hostname").or_else(|| word("etc/hostname")).unwrap_or_else(|| "localhost".into());
    // systemd writes "uninitialized" while the first boot has not decided yet (machine-id(5)).
    let machine = word("etc/machine-id").filter(|id| id != "uninitialized").unwrap_or_else(|| host.clone());
    (machine, host)
}

/// `host:path`, for messages.
pub fn describe(origin: &Origin) -> String {
    format!("{}:{}", origin.host, String::from_utf8_lossy(&origin.path))
}

/// Whether both are the same place. A host may be renamed; its machine identity stays.
pub fn same_place(a: &Origin, b: &Origin) -> bool {
    a.machine == b.machine && a.path == b.path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn a_machine_is_known_by_its_id_and_else_by_its_host_name() {
        let dir = root(&[("etc/machine-id", "0123\n"), ("proc/sys/kernel/hostname", "ash\n")]);
        assert_eq!(identity(dir.path()), ("0123".into(), "ash".into()));
        let dir = root(&[("etc/machine-id", "uninitialized\n"), ("etc/hostname", "oak\n")]);
        assert_eq!(identity(dir.path()), ("oak".into(), "oak".into()));
        assert_eq!(identity(root(&[]).path()), ("localhost".into(), "localhost".into()));
    }

    #[test]
    fn this_machine_has_an_origin_and_a_renamed_host_is_the_same_place() {
        let origin = here(b"/home");
        assert!(!origin.machine.is_empty() && !origin.host.is_empty());
        let renamed = Origin { host: "other".into(), ..origin.clone() };
        assert!(same_place(&origin, &renamed));
        assert!(!same_place(&origin, &Origin { path: b"/srv".to_vec(), ..origin.clone() }));
        assert!(!same_place(&origin, &Origin { machine: "other".into(), ..origin.clone() }));
        assert_eq!(describe(&renamed), "other:/home");
    }
}
