//! What mount(8) asks for, and the `amberfs mount` that does it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A mount as mount(8) asks for it.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct Request {
    /// The repository; none when the source is `none` or `amberfs`: then the configuration names it.
    repository: Option<OsString>,
    directory: OsString,
    configuration: Option<OsString>,
    /// What is left for `amberfs mount -o`.
    options: Vec<Vec<u8>>,
    /// Do everything but the mount.
    pub(crate) fake: bool,
    /// Say what is run.
    pub(crate) verbose: bool,
    /// Pass over options that `amberfs mount` does not know.
    sloppy: bool,
}

/// A call that makes no sense, in words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Usage(pub(crate) String);

/// Options of fstab(5) and mount(8) that are about when and by whom something is mounted, or that every
/// filesystem takes and a read-only one fulfils anyway.
const NOT_OURS: &[&str] = &[
    "defaults",
    "_netdev",
    "nofail",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "group",
    "owner",
    "async",
    "sync",
    "dirsync",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
    "silent",
    "loud",
    "symfollow",
];
/// The same, with a value or as a family.
const NOT_OURS_FROM: &[&str] = &["x-", "X-", "comment=", "uhelper=", "helper=", "user="];

impl Request {
    /// Reads the arguments of a call.
    pub(crate) fn parse(arguments: &[OsString]) -> Result<Request, Usage> {
        let mut request = Request::default();
        let mut words = Vec::new();
        let mut rest = arguments.iter();
        let mut flags_end = false;
        while let Some(argument) = rest.next() {
            let bytes = argument.as_bytes();
            if flags_end || bytes.first() != Some(&b'-') || bytes.len() < 2 {
                words.push(argument.clone());
                continue;
            }
            if bytes == b"--" {
                flags_end = true;
                continue;
            }
            for (at, flag) in bytes.iter().enumerate().skip(1) {
                match flag {
                    b'f' => request.fake = true,
                    b'v' => request.verbose = true,
                    b's' => request.sloppy = true,
                    // A table of mounts that no longer exists.
                    b'n' => {}
                    b'o' | b't' | b'N' => {
                        let attached = bytes.get(at + 1..).filter(|value| !value.is_empty()).map(<[u8]>::to_vec);
                        let value = match attached {
                            Some(value) => value,
                            None => rest
                                .next()
                                .map(|value| value.as_bytes().to_vec())
                                .ok_or_else(|| Usage(format!("-{} needs a value", char::from(*flag))))?,
                        };
                        match flag {
                            b'o' => request.take_options(&value)?,
                            b'N' => return Err(Usage("mounting into another namespace is not supported".to_owned())),
                            _ => {}
                        }
                        break;
                    }
                    _ => return Err(Usage(format!("no option -{}", char::from(*flag)))),
                }
            }
        }
        let [source, directory] = <[OsString; 2]>::try_from(words).map_err(|words| {
            Usage(format!("two names are needed, a repository and a directory, not {}", words.len()))
        })?;
        request.repository = Some(source).filter(|source| source != "none" && source != "amberfs");
        request.directory = directory;
        Ok(request)
    }

    fn take_options(&mut self, list: &[u8]) -> Result<(), Usage> {
        for option in list.split(|byte| *byte == b',').filter(|option| !option.is_empty()) {
            if NOT_OURS.iter().any(|name| name.as_bytes() == option)
                || NOT_OURS_FROM.iter().any(|start| option.starts_with(start.as_bytes()))
            {
                continue;
            }
            if let Some(path) = option.strip_prefix(b"config=") {
                if !path.starts_with(b"/") {
                    return Err(Usage("config= needs an absolute path".to_owned()));
                }
                self.configuration = Some(OsString::from_vec(path.to_vec()));
                continue;
            }
            self.options.push(option.to_vec());
        }
        Ok(())
    }

    /// The arguments of `amberfs`.
    pub(crate) fn command(&self) -> Vec<OsString> {
        let mut command: Vec<OsString> = Vec::new();
        // As one word with `=`, a name that begins with a dash stays a name.
        let joined = |name: &str, value: &OsStr| {
            let mut word = OsString::from(name);
            word.push(value);
            word
        };
        if let Some(repository) = &self.repository {
            command.push(joined("--repository=", repository));
        }
        if let Some(configuration) = &self.configuration {
            command.push(joined("--config=", configuration));
        }
        command.push("mount".into());
        if self.sloppy {
            command.push("--sloppy".into());
        }
        if !self.options.is_empty() {
            command.push(joined("-o", &OsString::from_vec(self.options.join(&b','))));
        }
        command.push("--".into());
        command.push(self.directory.clone());
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request, Usage> {
        Request::parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    fn command(line: &str) -> String {
        let words = parse(line).unwrap().command();
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn calls_of_mount_become_calls_of_amberfs() {
        assert_eq!(command("/srv/repo /mnt -o rw"), "--repository=/srv/repo mount -orw -- /mnt");
        assert_eq!(command("/srv/repo /mnt"), "--repository=/srv/repo mount -- /mnt");
        assert_eq!(
            command(
                "/srv/repo /mnt -n -v -o ro,_netdev,nofail,x-systemd.automount,allow_other,noauto,user,owner=me,comment=x"
            ),
            "--repository=/srv/repo mount -oro,allow_other,owner=me -- /mnt"
        );
        assert_eq!(
            command("-sn -oconfig=/etc/a.toml -t amberfs none /mnt -o noexec"),
            "--config=/etc/a.toml mount --sloppy -onoexec -- /mnt"
        );
        assert_eq!(command("-- -odd /mnt"), "--repository=-odd mount -- /mnt");
    }

    #[test]
    fn flags_are_read() {
        let request = parse("/srv/repo /mnt -fv").unwrap();
        assert!(request.fake && request.verbose);
        assert!(!parse("/srv/repo /mnt -s").unwrap().fake);
    }

    #[test]
    fn calls_that_make_no_sense_are_refused() {
        for line in
            ["/srv/repo", "a b c", "/srv/repo /mnt -o", "/srv/repo /mnt -x", "a b -N /proc/1/ns/mnt", "a b -o config=x"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
