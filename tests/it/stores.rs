//! What stores do, by one suite of trials (`store::conformance`): in CI in memory, in a directory, on moto and on a shim
//! of GCS; in `.ci/long` (`AMBERFS_SERVERS`) on every real server that there is. Stores that must not be trusted are found out.

use std::ffi::OsStr;

use amberfs::base::{Class, Classed, Env};
use amberfs::store::conformance::{Extent, Finding, check};
use amberfs::store::{Access, Address, CreateSupport, Credentials, Store};

use crate::servers::{Server, moto};
use crate::skip;

/// The store at `url`, with keys as a file of credentials would give them.
fn store(url: &str, keys: &[(&str, &str)]) -> Store {
    let pairs = keys.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned().into())).collect();
    let credentials = (!keys.is_empty()).then(|| Credentials { path: "keys".into(), pairs, again: None });
    let address = Address::parse(OsStr::new(url)).unwrap();
    Store::open(&address, &Access { credentials, ..Access::default() }).unwrap()
}

fn s3(server: &Server, bucket: &str) -> Store {
    let keys = [("access_key_id", &*server.words[1]), ("secret_access_key", &*server.words[2])];
    let url =
        format!("s3://{bucket}/a%20prefix/b?endpoint={}&region={}&checksum=sha256", server.endpoint(), server.words[3]);
    store(&url, &keys)
}

/// Everything that a store breaks; the trials leave nothing.
fn broken(store: &Store) -> Vec<Finding> {
    let findings = check(store, &Env::system(), Extent::default(), &|| false, |_| {}).unwrap();
    assert_eq!(store.list("", None, None).unwrap(), [], "what the trials wrote is gone");
    findings.into_iter().filter(|finding| finding.broken.is_some()).collect()
}

#[track_caller]
fn conforms(store: &Store) {
    assert_eq!(broken(store), [], "{}", store.describe());
    assert_eq!(store.probe(&Env::system()).unwrap(), CreateSupport::Honoured);
}

/// Its other promises may be kept or not; this one is broken, and the probe says so.
#[track_caller]
fn is_found_out(store: &Store) {
    let broken = broken(store);
    eprintln!("{} breaks {broken:#?}", store.describe());
    assert!(broken.iter().any(|finding| finding.name.starts_with("create-")), "{broken:#?}");
    // A race may by chance have one winner; six in a row have not.
    let found = (0..6).any(|_| store.probe(&Env::system()).unwrap() == CreateSupport::Ignored);
    assert!(found, "{} passes for honest", store.describe());
}

/// The server, if longer campaigns ask for it.
fn wanted(name: &str) -> Option<Server> {
    let servers = std::env::var("AMBERFS_SERVERS").unwrap_or_default();
    if servers.split_whitespace().any(|server| server == name) {
        return Some(Server::start(name));
    }
    skip::untried(&format!("the trials of stores on {name}; .ci/long does, or AMBERFS_SERVERS={name}"));
    None
}

#[test]
fn memory_keeps_all_promises() {
    conforms(&store("memory://conformance/p", &[]));
    conforms(&Store::memory_as_remote(Env::system()));
}

#[test]
fn a_directory_keeps_all_promises() {
    let place = tempfile::tempdir().unwrap();
    conforms(&Store::create_local(&place.path().join("store")).unwrap());
}

#[test]
fn moto_keeps_all_promises_with_versions_and_locks_too() {
    for bucket in ["amber", "versioned"] {
        conforms(&s3(moto(), bucket));
    }
}

#[test]
fn the_shim_of_gcs_keeps_all_promises() {
    let server = Server::start("gcs-shim");
    conforms(&store(&format!("gs://amber/p?anonymous=true&endpoint={}", server.endpoint()), &[]));
}

#[test]
fn azurite_keeps_all_promises() {
    let Some(server) = wanted("azurite") else { return };
    let keys = [("account_key", &*server.words[2])];
    let url =
        |container: &str| format!("az://{container}/p?endpoint={}&account={}", server.endpoint(), server.words[1]);
    conforms(&store(&url("amber"), &keys));
    let absent = store(&url("nobody"), &keys).list("", None, None).unwrap_err();
    assert!(absent.to_string().contains("no such bucket"), "{absent}");
}

#[test]
fn hdfs_keeps_all_promises() {
    let Some(server) = wanted("hdfs") else { return };
    conforms(&store(&format!("{}/a/prefix", server.endpoint()), &[]));
}

#[test]
fn ceph_keeps_all_promises_but_in_a_bucket_with_versions() {
    let Some(server) = wanted("radosgw") else { return };
    conforms(&s3(&server, "amber"));
    is_found_out(&s3(&server, "versioned"));
    // Locked buckets have versions, too.
    is_found_out(&s3(&server, "locked"));
    let url = format!("s3://amber/p?endpoint={}", server.endpoint());
    for (key, secret) in [("amberkey", "wrong"), ("nobody", "ambersecret")] {
        let stranger = store(&url, &[("access_key_id", key), ("secret_access_key", secret)]);
        for error in [
            stranger.get(&amberfs::format::object::Object::Marker.name(), 9).unwrap_err(),
            stranger.list("", None, None).unwrap_err(),
            stranger.create(&amberfs::format::object::Object::Marker.name(), vec![1]).unwrap_err(),
        ] {
            assert_eq!(error.class(), Class::Denied, "{error}");
            assert!(!error.to_string().contains(secret), "{error}");
        }
    }
}

#[test]
fn garage_is_found_out() {
    let Some(server) = wanted("garage") else { return };
    is_found_out(&s3(&server, "amber"));
}

#[test]
fn s3s_is_found_out_by_races() {
    let Some(server) = wanted("s3s-fs") else { return };
    is_found_out(&s3(&server, "amber"));
}
