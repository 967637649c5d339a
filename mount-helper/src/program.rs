//! Where `amberfs` is.

use std::path::PathBuf;

/// Where programs of the system are; root runs nothing from elsewhere, whatever `PATH` says.
pub(crate) const PATH: [&str; 6] = ["/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin", "/bin", "/sbin"];

/// `amberfs` beside this program, or on the path.
pub(crate) fn find(root: bool) -> Option<PathBuf> {
    let beside = std::fs::read_link("/proc/self/exe").ok().and_then(|this| this.parent().map(PathBuf::from));
    let path = std::env::var_os("PATH").filter(|_| !root);
    let of_user = path.iter().flat_map(|path| std::env::split_paths(path).collect::<Vec<_>>());
    beside
        .into_iter()
        .chain(of_user)
        .chain(PATH.map(PathBuf::from))
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("amberfs"))
        .find(|program| program.is_file())
}
