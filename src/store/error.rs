//! Why a request to the store failed, to whom it matters and what to do about it.
//!
//! The one rule that everything above relies on: [`StoreError::Missing`], and with it
//! [`Class::NotFound`], means that the store said so about exactly this object. Whatever else goes
//! wrong (a permission, a deadline, an unmounted disk) never looks like absence.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::{Class, Classed};

#[cfg(any(feature = "oss", feature = "cos"))]
use super::backend::opendal_kind::{class as class_by_kind, is_any_404};
use super::meter::Operation;
use super::unreached::{self, told};

/// A request that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store says that there is no such object.
    #[error("{operation} {object}: there is no such object")]
    Missing {
        /// The request.
        operation: Operation,
        /// The object's name.
        object: String,
    },
    /// An object ends before the bytes that were asked for.
    #[error("{operation} {object}: it is truncated, {actual} bytes long where at least {expected} are expected")]
    Truncated {
        /// The request.
        operation: Operation,
        /// The object's name.
        object: String,
        /// Bytes that the object must have at least.
        expected: u64,
        /// Bytes that it has, or that arrived.
        actual: u64,
    },
    /// An object is larger than anything that is written under such a name.
    #[error("{operation} {object}: it is {actual} bytes long, at most {most} are acceptable")]
    Oversized {
        /// The request.
        operation: Operation,
        /// The object's name.
        object: String,
        /// Bytes that are acceptable.
        most: u64,
        /// Bytes that the object has.
        actual: u64,
    },
    /// In place of an object, or of a directory above it, stands something else.
    #[error("{operation} {object}: {found} stands in its place; amberfs writes only plain files and follows no link")]
    Irregular {
        /// The request.
        operation: Operation,
        /// The object's name.
        object: String,
        /// What was found.
        found: &'static str,
    },
    /// No answer came in time. A write may have happened, or may still happen.
    #[error("{operation} {object}: no answer within {} s; check that the store is reachable", after.as_secs_f32())]
    Deadline {
        /// The request.
        operation: Operation,
        /// The object's name or prefix.
        object: String,
        /// The deadline that passed.
        after: Duration,
    },
    /// The store has asked to be left alone for longer than the request may take.
    #[error(
        "{operation} {object}: the store asks not to be asked anything for {} s, longer than this request may take; try again after that",
        wait.as_secs_f32().ceil()
    )]
    Respite {
        /// The request.
        operation: Operation,
        /// The object's name or prefix.
        object: String,
        /// For how long, from now on.
        wait: Duration,
    },
    /// A name that no store holds.
    #[error("{operation} {object:?}: not a name for an object: {why}")]
    Name {
        /// The request.
        operation: Operation,
        /// The name.
        object: String,
        /// What is wrong with it.
        why: String,
    },
    /// The object of an upload exists already, though nobody else can have chosen its name.
    #[error("{operation} {object}: the object exists already")]
    Taken {
        /// The request.
        operation: Operation,
        /// The object's name.
        object: String,
    },
    /// An upload was written to or finished after a part of it had failed.
    #[error("{operation} {object}: an earlier part of this upload failed")]
    Broken {
        /// The request.
        operation: Operation,
        /// The object's name.
        object: String,
    },
    /// The directory that was opened is no longer what its path names: unmounted, moved or replaced.
    #[error("{} is not the directory it was when it was opened; is its disk still mounted?", root.display())]
    RootGone {
        /// The local store's directory.
        root: PathBuf,
    },
    /// The directory for a new store holds something.
    #[error("{} is not empty; give an empty or a new directory", root.display())]
    NotEmpty {
        /// The directory.
        root: PathBuf,
    },
    /// The directory for a new store is another user's, and others can write to it.
    #[error(
        "{} is of user {owner} and can be written to by others (mode {mode:04o}), who could put anything into the repository; \
         give a directory of your own, or one that only its owner can write to",
        root.display()
    )]
    OpenToOthers {
        /// The directory.
        root: PathBuf,
        /// Who may do what.
        mode: u32,
        /// The user whose it is.
        owner: u32,
    },
    /// The directory for a store cannot be opened or made.
    #[error("{what} {}: {source}", root.display())]
    Root {
        /// What was tried, as a verb phrase.
        what: &'static str,
        /// The directory.
        root: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// There is no bucket of this name, so nothing in it can be missing.
    #[error(
        "{operation} {object}: there is no such bucket or container; check the name in the repository's URL, or create it first"
    )]
    NoBucket {
        /// The request.
        operation: Operation,
        /// The object's name or prefix.
        object: String,
    },
    /// The store refuses requests of another time than its own.
    #[error(
        "{operation} {object}: the store refuses this machine's time; set the clock right (NTP), and try again: {source}"
    )]
    Clock {
        /// The request.
        operation: Operation,
        /// The object's name or prefix.
        object: String,
        /// What was reported.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Who answers is no store of this kind, or does not take such requests.
    #[error(
        "{operation} {object}: {source}; no store of this kind answers so: check the endpoint and the bucket in the repository's URL, and whether a proxy is on the way"
    )]
    Stranger {
        /// The request.
        operation: Operation,
        /// The object's name or prefix.
        object: String,
        /// What was reported.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A listing does not end.
    #[error(
        "{operation} {object}: more than {names} names came, which no repository has; the store repeats itself, or the prefix is not the repository's"
    )]
    Endless {
        /// The request.
        operation: Operation,
        /// The prefix.
        object: String,
        /// So many are acceptable.
        names: usize,
    },
    /// What is known of a store does not suffice to speak with it.
    #[error("{place}: {source}")]
    Unusable {
        /// The store's address, without secrets.
        place: String,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This build has no such backend.
    #[error("{place}: this amberfs was built without {scheme}://; build it with `--features {feature}`")]
    Feature {
        /// The store's address, without secrets.
        place: String,
        /// What stands before `://`.
        scheme: &'static str,
        /// The cargo feature.
        feature: &'static str,
    },
    /// Another process writes, in single-writer mode.
    #[error("{store}: another process holds the lease of single-writer mode, waited {} s for it; try again later", waited.as_secs())]
    Leased {
        /// The store.
        store: String,
        /// How long.
        waited: Duration,
    },
    /// The lease of single-writer mode is not ours any more.
    #[error("{operation} {object}: the lease of single-writer mode was lost, so nothing was written; try again")]
    LeaseLost {
        /// The request.
        operation: Operation,
        /// The object's name.
        object: String,
    },
    /// Anything else that the store, the network or the operating system reported.
    #[error("{operation} {object}: {}{}", told(&**source), remedy(*class))]
    Failed {
        /// The request.
        operation: Operation,
        /// The object's name or prefix.
        object: String,
        /// What it means.
        class: Class,
        /// What was reported.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Classed for StoreError {
    fn class(&self) -> Class {
        match self {
            StoreError::Missing { .. } => Class::NotFound,
            StoreError::Truncated { .. } | StoreError::Oversized { .. } | StoreError::Irregular { .. } => {
                Class::Corrupt
            }
            StoreError::Deadline { .. } => Class::Timeout,
            StoreError::Name { .. }
            | StoreError::NoBucket { .. }
            | StoreError::Unusable { .. }
            | StoreError::Clock { .. }
            | StoreError::Endless { .. }
            | StoreError::Stranger { .. } => Class::Invalid,
            StoreError::Feature { .. } => Class::Unsupported,
            StoreError::OpenToOthers { .. } => Class::Denied,
            StoreError::Taken { .. }
            | StoreError::NotEmpty { .. }
            | StoreError::Leased { .. }
            | StoreError::LeaseLost { .. } => Class::Conflict,
            StoreError::Respite { .. } | StoreError::Broken { .. } | StoreError::RootGone { .. } => Class::Transient,
            StoreError::Root { source, .. } => Class::of_io(source),
            StoreError::Failed { class, .. } => *class,
        }
    }
}

impl StoreError {
    /// From what the operating system said about a file of a local store.
    pub(super) fn io(operation: Operation, object: &str, source: std::io::Error) -> StoreError {
        let object = object.to_owned();
        match source.raw_os_error() {
            Some(libc::ENOENT) if operation.names_one_to_read() => StoreError::Missing { operation, object },
            Some(libc::ELOOP) => StoreError::Irregular { operation, object, found: "a symbolic link" },
            Some(libc::ENOTDIR) => StoreError::Irregular { operation, object, found: "a file or a link above it" },
            Some(libc::EISDIR) => StoreError::Irregular { operation, object, found: "a directory" },
            _ => StoreError::Failed { operation, object, class: class_of_io(&source), source: Box::new(source) },
        }
    }

    /// From what `object_store` reported. [`object_store::Error::AlreadyExists`] is for the caller to treat
    /// first.
    pub(super) fn reported(operation: Operation, object: &str, source: object_store::Error) -> StoreError {
        use object_store::Error as Reported;
        let object = object.to_owned();
        let said = Said::of(&source);
        match said {
            Some(Said::NoBucket) => return StoreError::NoBucket { operation, object },
            Some(Said::WrongTime) => return StoreError::Clock { operation, object, source: Box::new(source) },
            Some(Said::Strange) => return StoreError::Stranger { operation, object, source: Box::new(source) },
            Some(Said::Denied | Said::Misdirected | Said::Full | Said::Unknown | Said::Passing | Said::NoWord)
            | None => {}
        }
        let class = match &source {
            // A proxy's or a wrong server's page is no word of the store about an object.
            Reported::NotFound { .. } if said == Some(Said::NoWord) => {
                return StoreError::Stranger { operation, object, source: Box::new(source) };
            }
            Reported::NotFound { .. } => return StoreError::Missing { operation, object },
            Reported::InvalidPath { source } => {
                return StoreError::Name { operation, object, why: source.to_string() };
            }
            Reported::AlreadyExists { .. } if !StoreError::exists(&source) => Class::Transient,
            Reported::AlreadyExists { .. } | Reported::Precondition { .. } | Reported::NotModified { .. } => {
                Class::Conflict
            }
            Reported::PermissionDenied { .. } | Reported::Unauthenticated { .. } => Class::Denied,
            Reported::NotSupported { .. } | Reported::NotImplemented { .. } => Class::Unsupported,
            Reported::UnknownConfigurationKey { .. } => Class::Invalid,
            // The enum is open, and its catch-all variants wrap what a server or the operating system said.
            other => match said {
                Some(Said::Denied) => Class::Denied,
                Some(Said::Misdirected) => Class::Invalid,
                Some(Said::Full) => Class::Exhausted,
                Some(Said::Unknown) => Class::Unsupported,
                Some(Said::Passing) => Class::Transient,
                Some(Said::NoBucket | Said::NoWord | Said::WrongTime | Said::Strange) | None => {
                    let by_io = || io_within(other).map_or(Class::Transient, class_of_io);
                    class_by_kind(other).unwrap_or_else(by_io)
                }
            },
        };
        StoreError::Failed { operation, object, class, source: Box::new(source) }
    }
}

/// What a server's answer says beyond what `object_store` makes of it: it keeps the status and the text, and tells a
/// missing object from a missing bucket or a stranger's page by neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    NoBucket,
    Denied,
    Misdirected,
    Full,
    /// It knows no such request.
    Unknown,
    /// The clocks differ.
    WrongTime,
    /// An answer that fails again next time, and that no store gives to our requests.
    Strange,
    /// What may be another answer next time, whatever its status.
    Passing,
    /// 404 without the store's own word that it is the object that does not exist.
    NoWord,
}

impl Said {
    fn of(error: &object_store::Error) -> Option<Said> {
        const WORDS: &[(&str, Said)] = &[
            ("NoSuchBucket", Said::NoBucket),
            ("ContainerNotFound", Said::NoBucket),
            ("ContainerBeingDeleted", Said::NoBucket),
            ("AccessDenied", Said::Denied),
            ("AccessControlException", Said::Denied),
            ("ExpiredToken", Said::Denied),
            ("InvalidAccessKeyId", Said::Denied),
            ("SignatureDoesNotMatch", Said::Denied),
            ("AuthorizationHeaderMalformed", Said::Misdirected),
            ("PermanentRedirect", Said::Misdirected),
            ("incorrectly configured region", Said::Misdirected),
            ("QuotaExceeded", Said::Full),
            ("StorageFull", Said::Full),
            ("RequestTimeTooSkewed", Said::WrongTime),
            ("NotImplemented", Said::Unknown),
            // With status 400: what was sent did not arrive whole.
            ("RequestTimeout", Said::Passing),
            ("IncompleteBody", Said::Passing),
            ("BadDigest", Said::Passing),
            ("XAmzContentSHA256Mismatch", Said::Passing),
        ];
        let (status, words) = words_of_the_server(error);
        let has = |word: &str| words.contains(word);
        if let Some((_, said)) = WORDS.iter().find(|(word, _)| has(word)) {
            return Some(*said);
        }
        match status {
            Some(401 | 403 | 407) => Some(Said::Denied),
            Some(404) if !["NoSuchKey", "NoSuchUpload", "BlobNotFound", "ResourceNotFound"].into_iter().any(has) => {
                Some(Said::NoWord)
            }
            Some(400 | 405 | 501) => Some(Said::Strange),
            None if is_any_404(error) && !has("NoSuchKey") => Some(Said::NoWord),
            _ => None,
        }
    }
}

/// What stands before the status in an error of a client over HTTP.
const STATUS: &str = "status code: ";

/// The status of the server's answer, and its words: what stands in `<Code>` where it has one, else all that it said. The
/// names of objects and the URL, in which any word may stand, are none of them.
fn words_of_the_server(error: &object_store::Error) -> (Option<u16>, String) {
    // `object_store` says the object's name, and its source what came of the request.
    let text = match std::error::Error::source(error) {
        Some(source) => told(source),
        None => error.to_string(),
    };
    let (status, said) = match text.split_once(STATUS) {
        Some((_, behind)) => (behind.get(..3).and_then(|status| status.parse().ok()), behind),
        // OpenDAL names the URL in a context that ends so; others name it first.
        None => match (text.rsplit_once("=> "), text.split_once("://")) {
            (Some((_, behind)), _) => (None, behind),
            (None, Some((_, behind))) => (None, behind.split_once(' ').map_or("", |(_, behind)| behind)),
            (None, None) => (None, &*text),
        },
    };
    let code = said.split_once("<Code>").and_then(|(_, behind)| behind.split_once("</Code>"));
    (status, code.map_or(said, |(code, _)| code).to_owned())
}

impl StoreError {
    /// Whether the server was not reached at all.
    pub(super) fn is_unreached(&self) -> bool {
        matches!(self, StoreError::Failed { source, .. } if unreached::is_unreached(&**source))
    }
}

impl StoreError {
    /// Whether `object_store`'s "already exists" means that: a 409 of S3 only says that another request for the
    /// name is under way, whose outcome nobody knows yet.
    pub(super) fn exists(source: &object_store::Error) -> bool {
        let text = source.to_string();
        !["ConditionalRequestConflict", "OperationAborted"].iter().any(|word| text.contains(word))
    }
}

impl StoreError {
    /// Whether the client has sent a request more than once before this came of it.
    pub(super) fn was_repeated(source: &object_store::Error) -> bool {
        let text = source.to_string();
        // What the server says may be anything.
        let (of_the_client, _) = text.split_once(STATUS).unwrap_or((&text, ""));
        of_the_client.contains(" retries, max_retries: ")
    }
}

impl StoreError {
    /// Whether the store may have meant that there is no such range: not when it was not reached, or has trouble of its own.
    pub(super) fn may_be_of_the_range(&self) -> bool {
        let (StoreError::Failed { source, .. } | StoreError::Stranger { source, .. }) = self else { return false };
        let text = source.to_string();
        !["HTTP error", "status code: 5", "status code: 429", "bytes came of"].iter().any(|word| text.contains(word))
    }
}

/// No backend of this build has kinds of errors of its own.
#[cfg(not(any(feature = "oss", feature = "cos")))]
fn class_by_kind(_error: &(dyn std::error::Error + 'static)) -> Option<Class> {
    None
}

#[cfg(not(any(feature = "oss", feature = "cos")))]
fn is_any_404(_error: &(dyn std::error::Error + 'static)) -> bool {
    false
}

/// The class of an error of the operating system that is not a plain "no such object": a parent
/// directory or staging file that has gone is a disturbance, and must never read as absence.
fn class_of_io(error: &std::io::Error) -> Class {
    match Class::of_io(error) {
        Class::NotFound | Class::Conflict | Class::Corrupt => Class::Transient,
        other => other,
    }
}

/// The operating system's error at the root of `error`, if there is one.
fn io_within<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e std::io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}

/// What the user can do about a failure of this class; empty where the report says enough.
fn remedy(class: Class) -> &'static str {
    match class {
        Class::Exhausted => "; free some space, raise the quota or the limit of open files, and try again",
        Class::Denied => "; check the store's permissions, and which credentials are used",
        Class::Unsupported => "; the store cannot do this",
        Class::NotFound
        | Class::Corrupt
        | Class::Transient
        | Class::Timeout
        | Class::Conflict
        | Class::Invalid
        | Class::Cancelled => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(kind: std::io::ErrorKind) -> object_store::Error {
        object_store::Error::Generic { store: "test", source: Box::new(std::io::Error::from(kind)) }
    }

    #[test]
    fn only_the_store_s_own_word_is_absence() {
        use std::io::ErrorKind as Kind;
        for (kind, class) in [
            (Kind::NotFound, Class::Transient),
            (Kind::PermissionDenied, Class::Denied),
            (Kind::ReadOnlyFilesystem, Class::Denied),
            (Kind::StorageFull, Class::Exhausted),
            (Kind::QuotaExceeded, Class::Exhausted),
            (Kind::ConnectionReset, Class::Transient),
            (Kind::UnexpectedEof, Class::Transient),
            (Kind::TimedOut, Class::Timeout),
        ] {
            assert_eq!(StoreError::reported(Operation::Get, "x", generic(kind)).class(), class, "{kind:?}");
        }
        let missing = object_store::Error::NotFound { path: "x".into(), source: "gone".into() };
        assert_eq!(StoreError::reported(Operation::Get, "x", missing).class(), Class::NotFound);
    }

    /// An answer of a server, as the clients over HTTP report it.
    fn answer(url: &str, status: &str, body: &str) -> object_store::Error {
        let text =
            format!("Error performing PUT {url} in 1.2ms - Server returned non-2xx status code: {status}: {body}");
        object_store::Error::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn an_answer_s_class_is_that_of_its_status_and_code_and_never_of_a_name() {
        let code = |code: &str| format!("<Error><Code>{code}</Code><Resource>/AccessDenied/x</Resource></Error>");
        for (status, body, class) in [
            ("503 Slow Down", code("SlowDown"), Class::Transient),
            ("500 Internal Server Error", String::new(), Class::Transient),
            ("403 Forbidden", code("AccessDenied"), Class::Denied),
            ("403 Forbidden", code("RequestTimeTooSkewed"), Class::Invalid),
            ("400 Bad Request", code("ExpiredToken"), Class::Denied),
            ("400 Bad Request", code("RequestTimeout"), Class::Transient),
            ("400 Bad Request", "<html>".to_owned(), Class::Invalid),
            ("401 Unauthorized", String::new(), Class::Denied),
            ("405 Method Not Allowed", String::new(), Class::Invalid),
            ("501 Not Implemented", code("NotImplemented"), Class::Unsupported),
            ("501 Unsupported method", "<html>".to_owned(), Class::Invalid),
            ("429 Too Many Requests", String::new(), Class::Transient),
            ("409 Conflict", code("OperationAborted"), Class::Transient),
            ("507 Insufficient Storage", code("QuotaExceeded"), Class::Exhausted),
        ] {
            for prefix in ["p", "AccessDenied", "NoSuchBucket"] {
                let reported = answer(&format!("http://h/b/{prefix}/x?status"), status, &body);
                let error = StoreError::reported(Operation::Create, "x", reported);
                assert_eq!(error.class(), class, "{error}");
            }
        }
        let skewed = answer("http://h", "403 Forbidden", &code("RequestTimeTooSkewed"));
        assert!(StoreError::reported(Operation::Get, "x", skewed).to_string().contains("set the clock right"));
        let missing = |body: &str| object_store::Error::NotFound {
            path: "p/NoSuchKey".into(),
            source: answer("http://h/NoSuchKey", "404 Not Found", body).to_string().into(),
        };
        let class = |body: &str| StoreError::reported(Operation::Get, "x", missing(body)).class();
        assert_eq!(class(&code("NoSuchKey")), Class::NotFound);
        assert_eq!(class("<html>nginx</html>"), Class::Invalid, "a stranger's page says nothing of an object");
    }

    #[test]
    fn what_a_client_has_sent_again_is_told_from_what_a_server_says() {
        let answer = |how: &str, body: &str| {
            let said = format!("Server returned non-2xx status code: 403 Forbidden: {body}");
            let source = format!("Error performing PUT http://h/x in 1.2ms{how} - {said}").into();
            object_store::Error::Generic { store: "S3", source }
        };
        let again = ", after 1 retries, max_retries: 2, retry_timeout: 180s ";
        assert!(StoreError::was_repeated(&answer(again, "")));
        assert!(!StoreError::was_repeated(&answer("", "")));
        assert!(!StoreError::was_repeated(&answer("", again)));
    }

    #[test]
    fn the_operating_system_s_errors_keep_their_meaning() {
        for (errno, class) in [
            (libc::ENOENT, Class::NotFound),
            (libc::EACCES, Class::Denied),
            (libc::EPERM, Class::Denied),
            (libc::EROFS, Class::Denied),
            (libc::ENOSPC, Class::Exhausted),
            (libc::EDQUOT, Class::Exhausted),
            (libc::EMFILE, Class::Exhausted),
            (libc::EIO, Class::Transient),
            (libc::ESTALE, Class::Transient),
            (libc::ELOOP, Class::Corrupt),
            (libc::ENOTDIR, Class::Corrupt),
        ] {
            let error = StoreError::io(Operation::Range, "x", std::io::Error::from_raw_os_error(errno));
            assert_eq!(error.class(), class, "{error}");
        }
    }
}
