//! Where the key to an encrypted repository comes from, and how the processes of a mount come by it.
//!
//! In this order: the options, the environment, the configuration, and at last whoever sits at the terminal. A
//! passphrase is never an argument: arguments are for all to see. What was typed, told by a program, or read from a pipe,
//! which gives it once, reaches the processes that a mount starts in a file without a name (memfd_create(2)), which no
//! other program gets ([`Heirloom`]). A process that is about to learn a key shuts others of its user out of its memory.

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use zeroize::Zeroizing;

use super::context::{Context, absolute};
use super::exit::Exit;
use super::failure::Failure;
use crate::base::heirloom::Heirloom;
use crate::base::sys::{effective_uid, hide_memory};
use crate::base::{Bequest, Class, foreign, limits};
use crate::repo::Credential;

/// Names where keys come from, among the global options.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Keys of encrypted repositories")]
pub struct KeyOptions {
    /// Read the passphrase from the first line of FILE
    #[arg(long, global = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Run COMMAND, and take the first line that it prints for the passphrase
    #[arg(long, global = true, value_name = "COMMAND", conflicts_with = "password_file")]
    pub password_command: Option<String>,
    /// Open the repository with this key file
    #[arg(long, global = true, value_name = "FILE", conflicts_with_all = ["password_file", "password_command"])]
    pub keyfile: Option<PathBuf>,
}

const PASSWORD_FILE: &str = "--password-file";
const KEY_FILE: &str = "--keyfile";

/// A key, and where it came from.
#[derive(Clone)]
pub struct Given {
    /// The key.
    pub credential: Credential,
    origin: Origin,
}

#[derive(Clone)]
enum Origin {
    /// A file that this option names.
    File(&'static str, PathBuf),
    /// A file that this option names by a descriptor which this process inherited.
    Inherited(&'static str, Heirloom),
    /// The environment or the configuration, which the processes that we start have as well.
    Shared,
    /// A person, a program or a pipe, which is not to be asked again.
    Told,
}

impl Given {
    /// With what a process that we start comes by the same key.
    ///
    /// # Errors
    /// When the system has no room for a passphrase that was told.
    pub fn bequest(&self) -> Result<Bequest, Failure> {
        let option = |name: &str, path: &Path| vec![OsString::from(name), path.into()];
        let handed =
            |name, heirloom: Heirloom| Bequest { arguments: option(name, &heirloom.path()), heirloom: Some(heirloom) };
        match (&self.origin, &self.credential) {
            (Origin::File(name, path), _) => Ok(Bequest { arguments: option(name, path), heirloom: None }),
            (Origin::Inherited(name, heirloom), _) => Ok(handed(name, *heirloom)),
            (Origin::Told, Credential::Passphrase(text)) => Ok(handed(PASSWORD_FILE, keep(text)?)),
            (Origin::Told, Credential::KeyFile(secret)) => {
                Ok(handed(KEY_FILE, keep(Credential::key_file(secret).as_bytes())?))
            }
            (Origin::Shared, _) => Ok(Bequest::default()),
        }
    }
}

/// A file without a name that holds this key.
fn keep(key: &[u8]) -> Result<Heirloom, Failure> {
    Heirloom::holding(key).map_err(|error| Failure::io("keep the key for the processes of a mount", &error))
}

impl Context {
    /// The key that was given by option, environment or configuration.
    ///
    /// # Errors
    /// When what they name cannot be read, or others could read it.
    pub fn given(&self) -> Result<Option<Given>, Failure> {
        if let Some(given) = of_options(&self.global.keys)? {
            return Ok(Some(given));
        }
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let shared = |credential| Given { credential, origin: Origin::Shared };
        if let Some(text) = variable("AMBERFS_PASSWORD") {
            shut();
            return Ok(Some(shared(passphrase(Zeroizing::new(text.into_vec()), "AMBERFS_PASSWORD")?)));
        }
        if let Some(given) = of_options(&KeyOptions::of_environment())? {
            return Ok(Some(given));
        }
        if self.repository_is_named() {
            return Ok(None);
        }
        let Some(repository) = self.config()?.current()?.repository.clone() else { return Ok(None) };
        let named = KeyOptions {
            password_file: repository.password_file,
            password_command: repository.password_command,
            keyfile: repository.keyfile,
        };
        of_options(&named)
    }

    /// A passphrase from the terminal.
    ///
    /// # Errors
    /// When there is no terminal, so that nobody can be asked.
    pub fn ask(&self, prompt: &str) -> Result<Given, Failure> {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::new(Class::Denied, format!("{prompt}: there is no terminal to ask at"))
                .ending(Exit::WrongKey)
                .hint("give the key with --password-file, --password-command, --keyfile, or AMBERFS_PASSWORD"));
        }
        shut();
        let text = rpassword::prompt_password(format!("{prompt}: "));
        let text = text.map_err(|error| Failure::io("ask for the passphrase", &error))?;
        Ok(Given { credential: passphrase(Zeroizing::new(text.into_bytes()), "the passphrase")?, origin: Origin::Told })
    }

    /// A new passphrase from the terminal, twice.
    ///
    /// # Errors
    /// As [`Context::ask`]; when the two differ.
    pub fn ask_new(&self, prompt: &str) -> Result<Given, Failure> {
        let first = self.ask(prompt)?;
        let second = self.ask(&format!("{prompt}, again"))?;
        match (&first.credential, &second.credential) {
            (Credential::Passphrase(a), Credential::Passphrase(b)) if a == b => Ok(first),
            _ => Err(Failure::usage("the two passphrases differ: nothing was done")),
        }
    }
}

impl KeyOptions {
    /// What the environment says in place of the options.
    fn of_environment() -> KeyOptions {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        KeyOptions {
            password_file: variable("AMBERFS_PASSWORD_FILE").map(PathBuf::from),
            password_command: variable("AMBERFS_PASSWORD_COMMAND").map(|text| text.to_string_lossy().into_owned()),
            keyfile: variable("AMBERFS_KEYFILE").map(PathBuf::from),
        }
    }

    /// Keeps what this process has inherited from the programs that it starts: at once, because a store may be asked,
    /// and have a program started that tells its credentials, before the key is read.
    pub fn keep_to_ourselves(&self) {
        let of_environment = KeyOptions::of_environment();
        let named = [self, &of_environment].into_iter().flat_map(|named| [&named.password_file, &named.keyfile]);
        for path in named.flatten() {
            // What does not exist is said when it is read.
            drop(Heirloom::named(path));
        }
    }
}

/// Shuts others of this user out of what this process knows, and cores out of the disk, as long as it is not to be debugged.
fn shut() {
    if std::env::var_os("AMBERFS_TRACEABLE").is_some_and(|value| !value.is_empty()) {
        return;
    }
    if let Err(error) = hide_memory() {
        tracing::debug!(%error, "the memory of this process is open to its user's other processes");
    }
}

/// What these options name.
///
/// # Errors
/// When it cannot be read, or others could read it.
pub fn of_options(options: &KeyOptions) -> Result<Option<Given>, Failure> {
    if options.keyfile.is_some() || options.password_file.is_some() || options.password_command.is_some() {
        shut();
    }
    if let Some(path) = &options.keyfile {
        let path = absolute(path.clone())?;
        let Private { text, lasts } = read_private(&path, "key file")?;
        let text = std::str::from_utf8(&text).ok().and_then(Credential::of_key_file);
        let credential = text.ok_or_else(|| {
            Failure::usage(format!("{path:?} is no key file of amberfs"))
                .hint("`amberfs init --new-keyfile FILE` and `amberfs key add --new-keyfile FILE` make one")
        })?;
        return Ok(Some(Given { credential, origin: origin(KEY_FILE, path, lasts)? }));
    }
    if let Some(path) = &options.password_file {
        let path = absolute(path.clone())?;
        let Private { text, lasts } = read_private(&path, "password file")?;
        let credential = passphrase(text, &format!("the first line of {path:?}"))?;
        return Ok(Some(Given { credential, origin: origin(PASSWORD_FILE, path, lasts)? }));
    }
    if let Some(command) = &options.password_command {
        let text = told_by(command)?;
        return Ok(Some(Given { credential: passphrase(text, "what it printed")?, origin: Origin::Told }));
    }
    Ok(None)
}

/// Whether what stands at `path` can be read once more by a process that we start.
fn origin(option: &'static str, path: PathBuf, lasts: bool) -> Result<Origin, Failure> {
    let inherited = Heirloom::named(&path).map_err(|error| Failure::io(format!("pass on {path:?}"), &error))?;
    Ok(match inherited {
        // What was in it is gone.
        _ if !lasts => Origin::Told,
        Some(heirloom) => Origin::Inherited(option, heirloom),
        None => Origin::File(option, path),
    })
}

/// The first line of `text`, which must not be empty.
fn passphrase(text: Zeroizing<Vec<u8>>, what: &str) -> Result<Credential, Failure> {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(Failure::usage(format!("{what} is empty: a passphrase must not be")));
    }
    Ok(Credential::passphrase(line))
}

/// Makes the name of a file durable: a key file that a power cut takes with it takes all that it opens.
///
/// # Errors
/// Those of opening and syncing the directory.
pub fn sync_name(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// Says so when a new passphrase is one that whoever has the repository guesses.
pub fn warn_of_short(credential: &Credential) {
    let Credential::Passphrase(text) = credential else { return };
    let characters = String::from_utf8_lossy(text).chars().count();
    if characters < PASSPHRASE_CHARACTERS {
        tracing::warn!(
            "the passphrase is short ({characters} of at least {PASSPHRASE_CHARACTERS} characters): whoever has the \
             repository can guess it; `amberfs key change` replaces it"
        );
    }
}

/// Fewer are guessed whatever they cost.
const PASSPHRASE_CHARACTERS: usize = 8;

/// Room for all that is read of a key: what grows leaves copies behind, which nobody overwrites.
fn room() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(limits::PASSPHRASE_BYTES_MAX as usize + 64))
}

/// What a private file holds.
struct Private {
    text: Zeroizing<Vec<u8>>,
    /// Whether it can be read again: a pipe cannot.
    lasts: bool,
}

/// A file that nobody but its owner, who is this user or root, has access to. A pipe is whoever's who made it.
fn read_private(path: &Path, what: &str) -> Result<Private, Failure> {
    let failed = |doing: &str, error: &std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::new(Class::NotFound, format!("the {what} {path:?} does not exist")).ending(Exit::WrongKey)
        }
        _ => Failure::io(format!("{doing} the {what} {path:?}"), error),
    };
    let mut file = File::open(path).map_err(|error| failed("open", &error))?;
    let meta = file.metadata().map_err(|error| failed("examine", &error))?;
    if meta.is_file() && meta.mode() & 0o077 != 0 {
        return Err(Failure::new(
            Class::Denied,
            format!("the {what} {path:?} is open to others than its owner (mode {:04o})", meta.mode() & 0o7777),
        )
        .hint(format!("chmod 600 {path:?}")));
    }
    if meta.is_file() && meta.uid() != 0 && meta.uid() != effective_uid() {
        return Err(Failure::new(Class::Denied, format!("the {what} {path:?} belongs to user {}", meta.uid()))
            .hint(format!("chown {} {path:?}", effective_uid())));
    }
    if !meta.is_file() && !meta.file_type().is_fifo() && !meta.file_type().is_char_device() {
        return Err(Failure::usage(format!("the {what} {path:?} is no file")));
    }
    let mut text = room();
    Read::by_ref(&mut file)
        .take(limits::PASSPHRASE_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(|error| failed("read", &error))?;
    Ok(Private { text, lasts: meta.is_file() })
}

/// What the command prints; its standard error is ours.
fn told_by(command: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let words = shlex::split(command).filter(|words| !words.is_empty());
    let words =
        words.ok_or_else(|| Failure::usage(format!("the password command {command:?} makes no sense to a shell")))?;
    let (program, arguments) = words.split_first().ok_or_else(|| Failure::usage("the password command is empty"))?;
    let failed = |error: std::io::Error| Failure::io(format!("run the password command {program:?}"), &error);
    let mut command = foreign::program(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().map_err(failed)?;
    let mut text = room();
    // The pipe is closed before we wait: a program that prints without end is ended by that.
    let read = child.stdout.take().map(|pipe| pipe.take(limits::PASSPHRASE_BYTES_MAX).read_to_end(&mut text));
    let status = child.wait().map_err(failed)?;
    read.transpose().map_err(failed)?;
    if !status.success() {
        return Err(Failure::new(Class::Denied, format!("the password command {program:?} ended with {status}"))
            .ending(Exit::WrongKey));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn named(path: &Path) -> KeyOptions {
        KeyOptions { password_file: Some(path.to_owned()), ..KeyOptions::default() }
    }

    #[test]
    fn a_passphrase_is_the_first_line_and_never_empty() {
        for (text, expected) in [("abc", "abc"), ("abc\n", "abc"), ("a b \r\nx", "a b "), ("ä\n\n", "ä")] {
            match passphrase(Zeroizing::new(text.into()), "it").unwrap() {
                Credential::Passphrase(found) => assert_eq!(found.as_slice(), expected.as_bytes()),
                Credential::KeyFile(_) => panic!("{text}"),
            }
        }
        for text in ["", "\n", "\r\nabc"] {
            assert_eq!(passphrase(Zeroizing::new(text.into()), "it").unwrap_err().exit(), Exit::Usage);
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "secret\n").unwrap();
        for (mode, fine) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(of_options(&named(&path)).is_ok(), fine, "{mode:o}");
        }
        assert!(of_options(&named(&dir.path().join("absent"))).is_err());
        assert!(of_options(&KeyOptions { keyfile: Some(path), ..KeyOptions::default() }).is_err());
    }

    #[test]
    fn a_program_can_tell_the_passphrase_and_must_succeed() {
        let of = |command: &str| {
            of_options(&KeyOptions { password_command: Some(command.to_owned()), ..KeyOptions::default() })
        };
        assert!(of("printf 'a b'").unwrap().is_some());
        for command in ["false", "printf ''", "/nonexistent/program", "'", ""] {
            assert!(of(command).is_err(), "{command}");
        }
    }

    #[test]
    fn a_pipe_is_read_once_and_its_key_handed_on_as_what_was_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let secret = crate::seal::Secret::new([7; 32]);
        let key_file = Credential::key_file(&secret).to_string();
        for (option, text) in [("--password-file", "hidden"), ("--keyfile", key_file.as_str())] {
            let options = match option {
                "--keyfile" => KeyOptions { keyfile: Some(path.clone()), ..KeyOptions::default() },
                _ => named(&path),
            };
            let given = std::thread::scope(|scope| {
                scope.spawn(|| std::fs::write(&path, text).unwrap());
                of_options(&options).unwrap().unwrap()
            });
            let arguments = given.bequest().unwrap().arguments;
            assert_eq!(arguments[0], option);
            assert_ne!(Path::new(&arguments[1]), path);
            assert_eq!(std::fs::read_to_string(&arguments[1]).unwrap(), text);
        }
    }

    #[test]
    fn what_was_told_reaches_a_child_in_a_file_without_a_name() {
        let given = Given { credential: Credential::passphrase("hidden"), origin: Origin::Told };
        let bequest = given.bequest().unwrap();
        let mut command = std::process::Command::new("tail");
        command.args(["-n", "1"]).arg(bequest.arguments.get(1).unwrap());
        assert_eq!(command.output().unwrap().stdout, b"", "no other child gets it");
        bequest.heirloom.unwrap().pass_to(&mut command);
        assert_eq!(command.output().unwrap().stdout, b"hidden");
        assert!(!bequest.arguments.iter().any(|argument| argument.to_string_lossy().contains("hidden")));
    }
}
