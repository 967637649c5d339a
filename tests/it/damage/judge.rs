//! What a mount's view shows of a damaged repository, and what a verification says of it, held against
//! the prediction.

use std::collections::{BTreeMap, BTreeSet};

use amberfs::base::{Class, Classed};
use amberfs::chain::{RepoLog, SourceLog};
use amberfs::repo::{Repo, RepoError};
use amberfs::verify::{Options, Progress, Report, Touched, verify};
use amberfs::view::MountView;
use amberfs::view::namespace::{Attr, FileKind, Namespace, NodeId, ViewError};

use super::actions::Damage;
use super::predict::{Model, PointPrediction, Prediction};
use super::repository::{Copy, Repository, Truth};
use crate::world::{self, zero_settings};

/// The names in a directory, and of each whether it could be told what it is.
pub(super) type Names = BTreeMap<Vec<u8>, bool>;

/// What was read of one path.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) attributes: Result<Attr, Class>,
    /// Content, or a link's target.
    pub(super) content: Result<Vec<u8>, Class>,
    pub(super) listing: Result<Names, Class>,
}

/// What was read of one point.
#[derive(Debug, Clone)]
pub(super) struct PointReading {
    pub(super) files: BTreeMap<Vec<u8>, Reading>,
}

/// What was read, by point; or why the repository cannot be opened.
pub(super) type Readings = Result<Vec<Result<PointReading, Class>>, Class>;

fn class(error: ViewError) -> Class {
    error.class()
}

/// Reads every file of every point as a mount would.
pub(super) fn read_all(repository: &Repository, copy: &Copy) -> Readings {
    let repo = world::open(copy.store(), repository.env().clone()).map_err(|e| e.class())?;
    let view = MountView::open(repo, zero_settings()).map_err(|error| error.class())?;
    Ok(repository.truths.iter().map(|truth| read_point(&view, truth)).collect())
}

fn read_point(view: &dyn Namespace, truth: &Truth) -> Result<PointReading, Class> {
    let mut node = NodeId::ROOT;
    for name in [truth.source_name.as_str(), "points"] {
        node = view.lookup(node, name.as_bytes()).map_err(class)?.attr.node;
    }
    let points = node;
    let mut files: BTreeMap<Vec<u8>, Reading> = BTreeMap::new();
    // Parents come before their children in the order of paths.
    for path in truth.manifest.keys() {
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(place) => (files[&path[..place]].attributes, &path[place + 1..]),
            None if path.is_empty() => {
                (view.attr(points).map(|found| found.attr).map_err(class), truth.name.as_bytes())
            }
            None => (files[b"".as_slice()].attributes, path.as_slice()),
        };
        let found = above.and_then(|above| view.lookup(above.node, name).map_err(class));
        // That a point is not there at all is one answer, not one for each of its files.
        if path.is_empty() && found.as_ref().is_err_and(|class| *class == Class::NotFound) {
            return Err(Class::NotFound);
        }
        let attributes = found.and_then(|found| view.attr(found.attr.node).map_err(class)).map(|found| found.attr);
        let content = attributes.and_then(|attr| match attr.kind {
            FileKind::Regular => read_file(view, &attr).map_err(class),
            FileKind::Symlink => view.read_link(attr.node).map_err(class),
            _ => Ok(Vec::new()),
        });
        let listing = attributes.and_then(|attr| match attr.kind {
            FileKind::Directory => {
                let mut names = Names::new();
                let listed =
                    view.read_dir(attr.node, 0, &mut |item| names.insert(item.name, item.found.is_ok()).is_none());
                listed.map(|()| names).map_err(class)
            }
            _ => Ok(Names::new()),
        });
        files.insert(path.clone(), Reading { attributes, content, listing });
    }
    Ok(PointReading { files })
}

fn read_file(view: &dyn Namespace, attr: &Attr) -> Result<Vec<u8>, ViewError> {
    let mut content = Vec::new();
    while (content.len() as u64) < attr.size {
        let bytes = view.read(attr.node, content.len() as u64, 1 << 20)?;
        if bytes.is_empty() {
            break;
        }
        content.extend_from_slice(&bytes);
    }
    Ok(content)
}

/// What is wrong with what was read.
pub(super) fn complaints_of_reading(repository: &Repository, prediction: &Prediction, read: &Readings) -> Vec<String> {
    let mut complaints = Vec::new();
    let points = match (prediction.opens, read) {
        (true, Ok(points)) => points,
        // A version that this build does not know is as good an answer to a damaged marker as any but absence.
        (false, Err(Class::Corrupt | Class::Unsupported)) => return complaints,
        // A slot that is gone cannot be told from a key that was never good.
        (false, Err(Class::Denied)) if world::is_encrypted() => return complaints,
        (_, Ok(_)) => return vec!["the repository can be opened".to_owned()],
        (_, Err(class)) => return vec![format!("the repository cannot be opened: {class:?}")],
    };
    for (index, (truth, read)) in repository.truths.iter().zip(points).enumerate() {
        let predicted = prediction.point(index);
        let mut complain = |what: String| complaints.push(format!("{}@{}: {what}", truth.source_name, truth.name));
        match read {
            Ok(read) if predicted.in_doubt => {
                let root = read.files.get(b"".as_slice()).map(|root| root.attributes);
                if root != Some(Err(Class::Corrupt)) {
                    complain(format!("is shown although its entry is lost: {root:?}"));
                }
            }
            Err(Class::Corrupt) if predicted.in_doubt => {}
            Err(class) => complain(format!("cannot be reached: {class:?}")),
            Ok(read) => compare_point(truth, &predicted, read, &mut complain),
        }
    }
    complaints
}

fn compare_point(truth: &Truth, predicted: &PointPrediction, read: &PointReading, complain: &mut impl FnMut(String)) {
    for (path, seen) in &truth.manifest {
        let shown = path.escape_ascii().to_string();
        let Some(reading) = read.files.get(path) else {
            complain(format!("{shown} is not there"));
            continue;
        };
        let mut judge = |what: &str, lost: bool, wrong: Result<bool, Class>| match (lost, wrong) {
            (false, Ok(false)) | (true, Err(Class::Corrupt)) => {}
            (_, Ok(true)) => complain(format!("{shown}: its {what} is wrong")),
            (true, Ok(false)) => complain(format!("{shown}: its {what} can be had although it is damaged")),
            (_, Err(class)) => complain(format!("{shown}: its {what} cannot be had: {class:?}")),
        };
        let wrong_attributes = |attr: Attr| {
            attr.kind != seen.kind
                || u32::from(attr.permissions) != seen.permissions
                || attr.size != seen.size
                || attr.mtime != seen.mtime
                || u64::from(attr.links) != seen.links
        };
        judge("metadata", predicted.unreachable.contains(path), reading.attributes.map(wrong_attributes));
        let content = reading.content.as_ref().map(|content| *content != seen.content).map_err(|class| *class);
        judge("content", predicted.unreadable.contains(path), content);
        let below = |other: &&Vec<u8>| {
            let prefix = if path.is_empty() { 0 } else { path.len() + 1 };
            other.len() > prefix
                && other.starts_with(path)
                && (prefix == 0 || other[path.len()] == b'/')
                && !other[prefix..].contains(&b'/')
        };
        let expected = || -> Names {
            let prefix = if path.is_empty() { 0 } else { path.len() + 1 };
            let known = |other: &Vec<u8>| !predicted.unreachable.contains(other);
            truth.manifest.keys().filter(below).map(|other| (other[prefix..].to_vec(), known(other))).collect()
        };
        let listing = match (&reading.listing, seen.kind) {
            (Ok(names), FileKind::Directory) => Ok(*names != expected()),
            (Ok(_), _) => Ok(false),
            (Err(class), _) => Err(*class),
        };
        judge("listing", predicted.unlistable.contains(path), listing);
    }
}

/// What is wrong with the frames of a damaged pack, and with what the logs say.
pub(super) fn complaints_of_frames(
    repository: &Repository,
    model: &Model,
    damage: &Damage,
    prediction: &Prediction,
    copy: &Copy,
) -> Vec<String> {
    let store = copy.store();
    let repo = match world::open(store.clone(), repository.env().clone()) {
        Ok(_) if !prediction.opens => return vec!["the repository can be opened".to_owned()],
        Ok(repo) => repo,
        Err(error) if prediction.opens || error.class() == Class::NotFound => return vec![error.to_string()],
        Err(_) => return Vec::new(),
    };
    // Readers come from the logs, which say how an encrypted repository's packs are sealed.
    for source in repository.truths.iter().map(|truth| truth.source) {
        if let Err(error) = SourceLog::open(store.clone(), repo.env().clone(), repo.realm(), source).load() {
            return vec![error.to_string()];
        }
    }
    let mut complaints = Vec::new();
    let changed = |source, pack| {
        let object = amberfs::format::object::Object::Pack(source, pack).name();
        damage.changes.iter().any(|(changed, _)| *changed == object)
    };
    for (source, frame, kind) in model.frames.iter().filter(|(source, frame, _)| changed(*source, frame.pack)) {
        let lost = Model::is_lost(repository, damage, *source, frame);
        let read = repo.reader(*source).fetch(frame, *kind);
        let right = || repository.repo().reader(*source).fetch(frame, *kind).unwrap();
        match (lost, read) {
            (true, Err(error)) if error.class() == Class::Corrupt => {}
            (false, Ok(bytes)) if bytes == right() => {}
            (_, Ok(_)) => complaints.push(format!("{kind:?} frame at {} yields bytes that it must not", frame.offset)),
            (_, Err(error)) => complaints.push(format!("{kind:?} frame at {}: {error}", frame.offset)),
        }
    }
    if damage.changes.iter().any(|(object, _)| object.as_str().contains("log/") || object.as_str().contains("check")) {
        complaints
            .extend(complaints_of_logs(repository, prediction, &repo).unwrap_or_else(|error| vec![error.to_string()]));
    }
    complaints
}

fn complaints_of_logs(
    repository: &Repository,
    prediction: &Prediction,
    repo: &std::sync::Arc<Repo>,
) -> Result<Vec<String>, amberfs::chain::ChainError> {
    let mut complaints = Vec::new();
    let open = (repo.store().clone(), repo.env().clone(), repo.realm());
    let sources = RepoLog::open(open.0.clone(), open.1.clone(), open.2).load()?;
    for (index, truth) in repository.truths.iter().enumerate() {
        let state = SourceLog::open(open.0.clone(), open.1.clone(), open.2, truth.source).load()?;
        let known = sources.by_name(&truth.source_name).is_some()
            && state.by_name(&truth.name).is_some_and(|point| point.commit.roots == truth.roots);
        if known == prediction.point(index).in_doubt {
            complaints.push(format!("{}@{} is known: {known}", truth.source_name, truth.name));
        }
    }
    Ok(complaints)
}

/// A verification of everything; or why the repository cannot be opened.
pub(super) fn verified(copy: &Copy) -> Result<Report, RepoError> {
    let repo = world::open(copy.store(), amberfs::base::Env::system())?;
    let options = Options { read_data: true, paths_max: usize::MAX, workers: Some(1), ..Options::default() };
    Ok(verify(&repo, &options, &Progress::new()).unwrap())
}

/// What is wrong with what a verification says.
pub(super) fn complaints_of_verification(
    repository: &Repository,
    prediction: &Prediction,
    report: &Result<Report, RepoError>,
) -> Vec<String> {
    let mut complaints = Vec::new();
    let report = match report {
        Ok(_) if !prediction.opens => return vec!["a repository without a marker is verified".to_owned()],
        Err(_) if !prediction.opens => return complaints,
        Err(error) => return vec![error.to_string()],
        Ok(report) => report,
    };
    let named: BTreeSet<_> = report.findings.iter().map(|finding| finding.object.clone()).collect();
    if named != prediction.objects {
        let faults: Vec<_> = report.findings.iter().map(|f| (&f.object, &f.faults)).collect();
        complaints.push(format!("verify names {faults:?}, damaged are {:?}", prediction.objects));
    }
    for (index, truth) in repository.truths.iter().enumerate() {
        let predicted = prediction.point(index);
        if predicted.in_doubt {
            continue;
        }
        let touches = report.findings.iter().flat_map(|finding| &finding.touches);
        let of_point = touches.filter(|t| t.source == truth.source_name && t.points.contains(&truth.name));
        let touched: Vec<&Touched> = of_point.flat_map(|touch| &touch.paths).collect();
        let mut complain =
            |what: String| complaints.push(format!("verify of {}@{}: {what}", truth.source_name, truth.name));
        for path in &predicted.unreadable {
            if !touched.iter().any(|touched| covers(touched, path)) {
                complain(format!("does not name {}", path.escape_ascii()));
            }
        }
        for touched in &touched {
            let justified = match touched {
                Touched::Path(path) => predicted.unreadable.contains(path),
                Touched::Everything => predicted.unreadable.contains(b"".as_slice()),
                Touched::Names { directory, .. } => predicted.unlistable.contains(directory),
            };
            if !justified {
                complain(format!("names {touched:?}, which can be had"));
            }
        }
        let source = report.sources.iter().find(|source| source.name == truth.source_name);
        let listed = source.is_some_and(|source| source.touched.contains(&truth.name));
        if listed == predicted.unreadable.is_empty() {
            complain(format!("tells that it is touched: {listed}"));
        }
    }
    complaints
}

/// Whether what is told to be lost includes the path, by itself or by a name above it.
fn covers(touched: &Touched, path: &[u8]) -> bool {
    match touched {
        Touched::Everything => true,
        Touched::Path(lost) => lost == path,
        Touched::Names { directory, from, before } => {
            let below = if directory.is_empty() {
                Some(path)
            } else {
                path.strip_prefix(directory.as_slice()).and_then(|rest| rest.strip_prefix(b"/"))
            };
            below.filter(|rest| !rest.is_empty()).is_some_and(|rest| {
                let name = rest.split(|byte| *byte == b'/').next().unwrap_or_default();
                from.as_ref().is_none_or(|from| name >= from.as_slice())
                    && before.as_ref().is_none_or(|before| name < before.as_slice())
            })
        }
    }
}
