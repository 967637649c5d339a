//! `amberfs mount`: every point of every source as a directory.
//!
//! The same command is executed anew for the supervisor and the server of the mount (`fuse::mount`), with
//! the hidden option `--role` and arguments that mean the same in any working directory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::json;

use super::context::{Context, Opened, absolute};
use super::credential::of_options;
use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use crate::base::sys::{effective_gid, effective_uid};
use crate::base::{Bequest, Class, limits};
use crate::fuse::{self, Contents, Failed, Launch, LogFile, MountOptions, OptionError, Role};
use crate::job::{ConfigFile, Program, open_desk};
use crate::store::{Address, Deadlines};
use crate::view::{MountSettings, MountView};

/// Mount the repository: each source with its points, labels, chains and times as directories
///
/// Returns once the mount answers, and leaves it to a process in the background. What is mounted shows
/// new points as they come. Writing a line such as `capture home` to MOUNTPOINT/.amberfs/control makes one.
#[derive(Debug, clap::Args)]
pub struct MountArgs {
    /// An empty directory
    mountpoint: PathBuf,
    /// Stay in the foreground until it is unmounted; Ctrl-C unmounts
    #[arg(short, long)]
    foreground: bool,
    /// ro, allow_other, owner=me, nonempty, exec, noexec, metadata_timeout=SECONDS, read_timeout=SECONDS
    #[arg(short = 'o', long = "option", value_name = "OPTION,…")]
    options: Vec<String>,
    /// Let other users in; the kernel then checks owners, modes and ACLs (same as -o allow_other)
    #[arg(long)]
    allow_other: bool,
    /// Pass over options that are unknown, as mount(8) asks for with -s.
    #[arg(long, hide = true)]
    sloppy: bool,
    /// Where a mount in the background leaves its diagnostics, instead of mounts/ in the directory for state
    #[arg(long, value_name = "FILE", conflicts_with = "foreground")]
    log_file: Option<PathBuf>,
    /// Which process of the mount this is.
    #[arg(long, hide = true, default_value = "command")]
    role: String,
}

/// Runs it.
///
/// # Errors
/// When nothing could be mounted.
pub fn run(args: &MountArgs, context: &Context) -> Result<Exit, Failure> {
    let role: Role = args.role.parse()?;
    let repository = context.repository()?;
    let config = context.config()?;
    // Where the processes of this mount, and those of its jobs, get the key.
    let mut keys = Bequest::default();
    if role == Role::Command {
        // What is wrong with the repository, the server says, whose opening is the only one: behind a network each request is
        // a journey, and a passphrase takes its time. Only whether somebody must be asked for one, nobody else can find out.
        keys = match context.key()? {
            Some(given) => given.bequest()?,
            None => Bequest::default(),
        };
    } else if let Some(given) = of_options(&context.global.keys)? {
        keys = given.bequest()?;
    }
    let source = match &repository {
        Address::Directory(root) => format!("file://{}", root.display()),
        Address::Remote(place) => place.name(),
    };
    let Deadlines { metadata, data, .. } = context.deadlines(&repository)?;
    let mut options =
        MountOptions { source, metadata_deadline: metadata, data_deadline: data, ..MountOptions::default() };
    for list in &args.options {
        for option in list.split(',') {
            match options.apply(option) {
                Err(OptionError::Unknown(_)) if args.sloppy => {}
                applied => applied.map_err(fuse::MountError::from)?,
            }
        }
    }
    options.allow_other |= args.allow_other;
    let log_file = args.log_file.clone().map(absolute).transpose()?;
    // Without a place for state there is no log, and that is no reason not to mount.
    let log_of = |place: &Path| match &log_file {
        _ if args.foreground => None,
        Some(path) => Some(LogFile::at(path)),
        None => context.places.state().ok().map(|state| LogFile::of_mount(&state, place)),
    };
    if let (Role::Command, Some(path)) = (role, &log_file) {
        LogFile::at(path).open().map_err(|error| Failure::io(format!("open the log {path:?}"), &error))?;
    }
    let again = |place: &Path, role: Role| -> Vec<OsString> {
        let mut again: Vec<OsString> = vec!["-r".into(), repository.to_os_string()];
        again.extend(["--config".into(), config.path().into()]);
        again.extend(keys.arguments.iter().cloned());
        again.extend((0..context.global.verbose).map(|_| "-v".into()));
        again.extend(context.global.quiet.then(|| "-q".into()));
        again.extend(context.global.options_of_place());
        again.extend(["mount".into(), format!("--role={role}").into()]);
        again.extend(args.options.iter().map(|list| format!("--option={list}").into()));
        again.extend(args.sloppy.then(|| "--sloppy".into()));
        again.extend(args.allow_other.then(|| "--allow-other".into()));
        again.extend(args.foreground.then(|| "--foreground".into()));
        again.extend(log_file.iter().flat_map(|path| ["--log-file".into(), path.into()]));
        again.extend(["--".into(), place.into()]);
        again
    };
    let launch = Launch {
        role,
        mountpoint: args.mountpoint.clone(),
        repository: repository.directory().map(Path::to_owned),
        options: options.clone(),
        foreground: args.foreground,
        log: log_of(&args.mountpoint),
        arguments: &again,
        heirloom: keys.heirloom,
    };
    let code = |class: Class| Exit::of(class) as u8;
    let open = || {
        let log = launch.log.as_ref().filter(|log| log.open().is_ok()).map(LogFile::path);
        let contents = context
            .open()
            .and_then(|opened| contents(&opened, &options, &config, (&repository, keys.clone()), log, context));
        contents.map_err(|failure| Failed {
            code: failure.exit() as u8,
            message: failure.text().to_owned(),
            advice: failure.advice().map(str::to_owned),
        })
    };
    match fuse::mount(&launch, open, code) {
        Ok(()) => {
            if context.global.json && role == Role::Command {
                let mounted = if args.foreground { "unmounted" } else { "mounted" };
                let place = absolute(args.mountpoint.clone())?.to_string_lossy().into_owned();
                let mut out = Output::open();
                out.json(&json!({ "message_type": mounted, "mountpoint": place }))?;
                out.close()?;
            }
            Ok(Exit::Done)
        }
        Err(Failed { code, message, advice }) => {
            let exit = Exit::of_code(code);
            // An empty message has been told by another process of this mount.
            Err(if message.is_empty() {
                Failure::told(exit)
            } else {
                let failure = Failure::new(Class::Transient, message).ending(exit);
                advice.into_iter().fold(failure, Failure::hint)
            })
        }
    }
}

/// What the mount shows and, unless it is read-only, takes orders with.
fn contents(
    opened: &Opened,
    options: &MountOptions,
    config: &ConfigFile,
    (repository, keys): (&Address, Bequest),
    log: Option<&Path>,
    context: &Context,
) -> Result<Contents, Failure> {
    let owner = (effective_uid(), effective_gid());
    let settings = MountSettings {
        owner,
        own_all: options.owner_me,
        refresh: Duration::from_secs(match repository {
            Address::Directory(_) => limits::LOCAL_REFRESH_SECONDS,
            Address::Remote(_) => limits::REMOTE_REFRESH_SECONDS,
        }),
        zone: TimeZone::system,
        sum_up: !options.read_only,
    };
    opened.repo.store().allow(options.metadata_deadline, options.data_deadline);
    let view = Arc::new(MountView::with_log(Arc::clone(&opened.repo), opened.sources.clone(), settings)?);
    view.look_ahead();
    if options.read_only {
        return Ok(Contents { namespace: view, control: None });
    }
    let (config, state) = (Arc::new(ConfigFile::at(config.path())), context.places.state()?);
    let program = Program::this(repository.to_os_string(), config.path())?;
    let program = program.with_options(context.global.options_of_place()).with(keys);
    let desk = open_desk(Arc::clone(&view), config, &state, program, owner.0, log)?;
    Ok(Contents { namespace: view, control: Some(Arc::new(desk)) })
}
