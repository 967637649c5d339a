//! The profiles of AWS's own tools: `~/.aws/credentials` and `~/.aws/config`, or where `AWS_SHARED_CREDENTIALS_FILE` and
//! `AWS_CONFIG_FILE` say, in the format of
//! <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>.
//!
//! Keys and `credential_process` are used, `region` and `endpoint_url` too. A profile that assumes a role or signs in
//! by SSO needs requests that AWS's own program makes: it is refused with the line that has that program make them.
//!
//! A mount lives longer than keys do, so files are read and programs asked again: the answer is kept for five
//! minutes, or until shortly before the end that the program named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::base::{Env, Instant, foreign, limits};

/// Where profiles are.
#[derive(Debug, Clone)]
pub(super) struct Files {
    credentials: Option<PathBuf>,
    config: Option<PathBuf>,
}

/// One profile, as far as it is of use here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) name: String,
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
    source: Option<Source>,
}

/// Where a profile's keys come from.
#[derive(Clone, PartialEq, Eq)]
enum Source {
    Keys { id: String, secret: String, token: Option<String> },
    Process(String),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Source::Keys { .. } => "Keys",
            Source::Process(_) => "Process",
        })
    }
}

/// A profile that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProfileError {
    #[error("read {path:?}: {cause}")]
    Io { path: PathBuf, cause: std::io::Error },
    #[error("{path:?}: line {line}: expected [section] or name = value")]
    Text { path: PathBuf, line: usize },
    #[error("AWS profile {name:?} is neither in ~/.aws/credentials nor in ~/.aws/config")]
    Absent { name: String },
    #[error("AWS profile {name:?} has only one of aws_access_key_id and aws_secret_access_key")]
    Half { name: String },
    #[error(
        "AWS profile {name:?} has {key}, which amberfs leaves to AWS's own program: add a profile with \
         credential_process = aws configure export-credentials --profile {name} --format process"
    )]
    Beyond { name: String, key: &'static str },
    #[error("AWS profile {name:?}: credential_process {why}")]
    Process { name: String, why: String },
}

type Sections = BTreeMap<String, BTreeMap<String, String>>;

impl Files {
    /// As this process's environment has them.
    pub(super) fn of_process() -> Files {
        let place = |variable: &str, name: &str| {
            let set = std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
            set.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".aws").join(name)))
        };
        Files {
            credentials: place("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            config: place("AWS_CONFIG_FILE", "config"),
        }
    }

    /// The profile of that name, which need not be there unless it must.
    pub(super) fn profile(&self, name: &str, must_exist: bool) -> Result<Profile, ProfileError> {
        let credentials = read(self.credentials.as_deref())?.remove(name);
        let mut config = read(self.config.as_deref())?;
        let section = if name == "default" { None } else { config.remove(&format!("profile {name}")) };
        let config = section.or_else(|| config.remove(name).filter(|_| name == "default"));
        if must_exist && credentials.is_none() && config.is_none() {
            return Err(ProfileError::Absent { name: name.to_owned() });
        }
        // AWS's tools prefer the file of credentials.
        let mut merged = config.unwrap_or_default();
        merged.extend(credentials.unwrap_or_default());
        Profile::of(name, &merged)
    }
}

impl Profile {
    fn of(name: &str, said: &BTreeMap<String, String>) -> Result<Profile, ProfileError> {
        let get = |key: &str| said.get(key).filter(|value| !value.is_empty()).cloned();
        let source = match (get("aws_access_key_id"), get("aws_secret_access_key"), get("credential_process")) {
            (Some(id), Some(secret), _) => Some(Source::Keys { id, secret, token: get("aws_session_token") }),
            (None, None, Some(program)) => Some(Source::Process(program)),
            (None, None, None) => None,
            _ => return Err(ProfileError::Half { name: name.to_owned() }),
        };
        if source.is_none() {
            let beyond = ["role_arn", "sso_session", "sso_start_url", "login_session"];
            if let Some(key) = beyond.into_iter().find(|key| said.contains_key(*key)) {
                return Err(ProfileError::Beyond { name: name.to_owned(), key });
            }
        }
        Ok(Profile { name: name.to_owned(), region: get("region"), endpoint: get("endpoint_url"), source })
    }

    /// Whether it has any, or a program that gives them out.
    pub(super) fn has_credentials(&self) -> bool {
        self.source.is_some()
    }
}

/// The sections of a file; a missing one has none.
fn read(path: Option<&Path>) -> Result<Sections, ProfileError> {
    let Some(path) = path else { return Ok(Sections::new()) };
    match std::fs::read_to_string(path) {
        Ok(text) => sections(&text).map_err(|line| ProfileError::Text { path: path.to_owned(), line }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Sections::new()),
        Err(cause) => Err(ProfileError::Io { path: path.to_owned(), cause }),
    }
}

/// The sections of `text`, or the line that makes no sense.
fn sections(text: &str) -> Result<Sections, usize> {
    let mut found = Sections::new();
    let mut current: Option<String> = None;
    for (place, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        // Indented lines belong to the value above them; no value that is used here has any.
        if line.starts_with([' ', '\t']) {
            continue;
        }
        if let Some(rest) = trimmed.strip_prefix('[') {
            let name = rest.split(']').next().filter(|_| rest.contains(']')).ok_or(place + 1)?;
            let words: Vec<&str> = name.split_whitespace().collect();
            let name = words.join(" ");
            found.entry(name.clone()).or_default();
            current = Some(name);
            continue;
        }
        let (key, value) = trimmed.split_once('=').ok_or(place + 1)?;
        // A comment behind a value begins with a space: a secret may hold a #.
        let value = value.trim();
        let value = value.find(" #").or_else(|| value.find(" ;")).and_then(|end| value.get(..end)).unwrap_or(value);
        let section = current.as_ref().and_then(|name| found.get_mut(name)).ok_or(place + 1)?;
        section.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(found)
}

/// What `credential_process` prints, by
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html>.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<String>,
}

/// Gives the keys of a profile, as they are now.
#[derive(Debug)]
pub(super) struct ProfileProvider {
    profile: Profile,
    files: Files,
    known: Mutex<Option<(Arc<AwsCredential>, Instant)>>,
}

impl ProfileProvider {
    pub(super) fn new(profile: Profile, files: Files) -> ProfileProvider {
        ProfileProvider { profile, files, known: Mutex::new(None) }
    }

    fn fresh(name: &str, files: &Files, now: Instant) -> Result<(AwsCredential, Instant), ProfileError> {
        let kept = now.plus(limits::CREDENTIALS_KEPT);
        match files.profile(name, true)?.source {
            Some(Source::Keys { id, secret, token }) => {
                Ok((AwsCredential { key_id: id, secret_key: secret, token }, kept))
            }
            Some(Source::Process(program)) => {
                let failed = |why: String| ProfileError::Process { name: name.to_owned(), why };
                let printed = run(&program).map_err(failed)?;
                let end = match printed.expiration {
                    None => kept,
                    Some(text) => {
                        let end: jiff::Timestamp =
                            text.parse().map_err(|_| failed(format!("names no time as its Expiration: {text:?}")))?;
                        let nanos = i64::try_from(end.as_nanosecond()).unwrap_or(i64::MAX);
                        Instant::from_nanos(nanos.saturating_sub(60_000_000_000))
                    }
                };
                let (key_id, secret_key) = (printed.access_key_id, printed.secret_access_key);
                Ok((AwsCredential { key_id, secret_key, token: printed.session_token }, end))
            }
            None => Err(ProfileError::Absent { name: name.to_owned() }),
        }
    }
}

/// Runs a `credential_process`. What it says in error is the user's to see, on standard error.
fn run(program: &str) -> Result<Printed, String> {
    let output = foreign::program("/bin/sh")
        .args(["-c", program])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("failed: {}", output.status));
    }
    if output.stdout.len() as u64 > limits::CREDENTIALS_BYTES_MAX {
        return Err("prints too much".to_owned());
    }
    // The error of the parser could repeat what it has read.
    let printed: Printed =
        serde_json::from_slice(&output.stdout).map_err(|_| "does not print what AWS specifies".to_owned())?;
    if printed.version == 1 { Ok(printed) } else { Err(format!("prints Version {}, not 1", printed.version)) }
}

#[async_trait]
impl CredentialProvider for ProfileProvider {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let now = Env::system().now();
        if let Some((known, end)) = &*self.known.lock()
            && now < *end
        {
            return Ok(Arc::clone(known));
        }
        let (name, files) = (self.profile.name.clone(), self.files.clone());
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Unauthenticated {
            path: self.profile.name.clone(),
            source,
        };
        // A program may take its time, and a thread that drives requests has none.
        let asked = tokio::task::spawn_blocking(move || ProfileProvider::fresh(&name, &files, now)).await;
        let (credential, end) = asked.map_err(|error| failed(error.into()))?.map_err(|error| failed(error.into()))?;
        let credential = Arc::new(credential);
        *self.known.lock() = Some((Arc::clone(&credential), end));
        Ok(credential)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(credentials: &str, config: &str) -> (tempfile::TempDir, Files) {
        let place = tempfile::tempdir().unwrap();
        let paths = [("credentials", credentials), ("config", config)].map(|(name, text)| {
            let path = place.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        });
        let [credentials, config] = paths;
        (place, Files { credentials, config })
    }

    fn keys(profile: &Profile) -> (&str, &str, Option<&str>) {
        match profile.source.as_ref().unwrap() {
            Source::Keys { id, secret, token } => (id, secret, token.as_deref()),
            Source::Process(program) => panic!("a program: {program}"),
        }
    }

    #[test]
    fn profiles_are_put_together_from_both_files() {
        let credentials = "# mine\n[default]\naws_access_key_id = AK1\naws_secret_access_key=a#b=c # no part of it\n\n\
                           [ work ]\nAWS_ACCESS_KEY_ID=AK2\naws_secret_access_key = s2\naws_session_token = t2\n";
        let config = "[default]\nregion = eu-west-1\ns3 =\n  addressing_style = path\noutput = json\n\
                      [profile work]\nregion=us-west-2\nendpoint_url = http://127.0.0.1:9000\naws_access_key_id = other\n\
                      [only-here]\nregion = x\n[profile tool]\ncredential_process = /bin/print --it\n";
        let (_place, files) = files(credentials, config);
        let default = files.profile("default", true).unwrap();
        assert_eq!(keys(&default), ("AK1", "a#b=c", None));
        assert_eq!(default.region.as_deref(), Some("eu-west-1"));
        let work = files.profile("work", true).unwrap();
        assert_eq!(keys(&work), ("AK2", "s2", Some("t2")));
        assert_eq!(
            (work.region.as_deref(), work.endpoint.as_deref()),
            (Some("us-west-2"), Some("http://127.0.0.1:9000"))
        );
        assert_eq!(files.profile("tool", true).unwrap().source, Some(Source::Process("/bin/print --it".into())));
        // In the configuration only [default] goes without the word profile.
        assert!(matches!(files.profile("only-here", true), Err(ProfileError::Absent { .. })));
        assert!(!files.profile("absent", false).unwrap().has_credentials());
    }

    #[test]
    fn what_cannot_be_used_is_named_and_no_secret_is_repeated() {
        let config = "[profile role]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = default\n\
                      [profile sso]\nsso_session = me\n[profile half]\naws_access_key_id = AK\n";
        let (_place, files) = files("", config);
        let error = files.profile("role", true).unwrap_err().to_string();
        assert!(error.contains("export-credentials --profile role"), "{error}");
        assert!(files.profile("sso", true).unwrap_err().to_string().contains("sso_session"));
        assert!(matches!(files.profile("half", true), Err(ProfileError::Half { .. })));
        let (_place, broken) = self::files("[default]\nhunter2 without a sign\n", "");
        let error = broken.profile("default", true).unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
        assert!(
            !format!(
                "{:?}",
                Profile::of(
                    "x",
                    &BTreeMap::from([
                        ("aws_access_key_id".into(), "a".into()),
                        ("aws_secret_access_key".into(), "hunter2".into()),
                    ])
                )
                .unwrap()
            )
            .contains("hunter2")
        );
    }

    #[test]
    fn a_program_gives_keys_out_and_says_until_when() {
        let answer = r#"{"Version":1,"AccessKeyId":"AK","SecretAccessKey":"S","SessionToken":"T","Expiration":"2030-01-01T00:01:00Z"}"#;
        let config = format!(
            "[profile p]\ncredential_process = echo '{answer}'\n[profile bad]\ncredential_process = echo hunter2\n\
             [profile old]\ncredential_process = echo '{}'\n[profile fails]\ncredential_process = exit 3\n",
            answer.replace(":1,", ":2,")
        );
        let (_place, files) = files("", &config);
        let (keys, end) = ProfileProvider::fresh("p", &files, Instant::from_nanos(0)).unwrap();
        assert_eq!((&*keys.key_id, &*keys.secret_key, keys.token.as_deref()), ("AK", "S", Some("T")));
        assert_eq!(end, Instant::from_nanos(1_893_456_000_000_000_000), "a minute before its end");
        for (name, words) in [("bad", "what AWS specifies"), ("old", "Version 2"), ("fails", "exit status: 3")] {
            let error = ProfileProvider::fresh(name, &files, Instant::from_nanos(0)).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("hunter2"), "{error}");
        }
    }
}
