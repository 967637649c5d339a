//! `amberfs cat`: the bytes of a file as they were.

use super::context::{Context, Opened};
use super::exit::Exit;
use super::failure::Failure;
use super::ls::reading;
use super::output::{Output, printable};
use crate::base::Class;
use crate::format::entry::Body;
use crate::format::log::SourceKind;
use crate::view::namespace::FileKind;
use crate::view::{Inode, PointView, Selector};

/// Print files as they were captured
#[derive(Debug, clap::Args)]
pub struct CatArgs {
    /// Files: SOURCE[@TIME|%LABEL|#ID|~N]:PATH; of a stream, the path is optional
    #[arg(required = true, value_name = "SELECTOR")]
    selectors: Vec<std::ffi::OsString>,
}

/// Bytes that are read at once.
const STEP: usize = 1 << 20;

/// Runs it.
///
/// # Errors
/// When a file does not exist, is no regular file, or cannot be read.
pub fn run(args: &CatArgs, context: &Context) -> Result<Exit, Failure> {
    let opened = context.open()?;
    print(args, &opened).map_err(|failure| opened.explained(failure))
}

fn print(args: &CatArgs, opened: &Opened) -> Result<Exit, Failure> {
    let mut out = Output::open();
    for selector in &args.selectors {
        let selector = Selector::parse(selector.as_encoded_bytes())?;
        let (record, point) = opened.resolve(&selector)?;
        let view = PointView::new(&opened.repo, record.id, &point.commit.roots);
        let names = selector.names()?;
        let whole = || format!("{}@{}:{}", record.name, point.name(), printable(&names.join(&b'/')));
        let file = match (record.kind, names.as_slice()) {
            (SourceKind::Stream | SourceKind::Disk, []) => {
                only_file(&view).map_err(|failure| failure.during(whole()))?
            }
            _ => view.walk(names.iter().copied()).map_err(|error| reading(whole(), error))?,
        };
        if file.kind() != FileKind::Regular {
            return Err(no_file(&file, &whole()));
        }
        let mut offset = 0;
        while offset < file.entry().meta.size {
            let bytes = view.read(&file, offset, STEP).map_err(|error| reading(whole(), error))?;
            if bytes.is_empty() {
                break;
            }
            out.bytes(&bytes)?;
            offset += bytes.len() as u64;
        }
    }
    out.close()?;
    Ok(Exit::Done)
}

/// The file of a stream.
fn only_file(view: &PointView) -> Result<Inode, Failure> {
    let reading = |error| reading("read the stream's directory", error);
    let root = view.root().map_err(reading)?;
    match view.list(&root, 0).map_err(reading)?.next() {
        Some(item) => item.and_then(|listed| listed.inode).map_err(reading),
        None => Err(Failure::new(Class::Corrupt, "the stream's point holds no file")),
    }
}

fn no_file(inode: &Inode, path: &str) -> Failure {
    let what = match &inode.entry().body {
        Body::Directory { .. } => "a directory: amberfs ls lists it".to_owned(),
        Body::Symlink(target) => format!("a symbolic link to {}", printable(target)),
        Body::BlockDevice(..) | Body::CharDevice(..) => "a device, which has no content of its own".to_owned(),
        Body::Fifo | Body::Socket => "a pipe or socket, which has no content of its own".to_owned(),
        Body::File(_) | Body::Link(_) => "no regular file".to_owned(),
    };
    Failure::usage(format!("{path} is {what}"))
}
