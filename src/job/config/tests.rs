use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

const SAMPLE: &str = r#"# my backups
[repository]
url = "/srv/backup"

# the family's photos
[[source]]
name = "photos"
path = "/data/photos"
# raw files are kept elsewhere
exclude = ["*.raw", "/cache/"]

# home
[[source]]
name = "home"  # of us all
path = "/home"
labels = ["nightly"]
one_file_system = false
exclude_caches = true
exclude_file = ["/home/.ignore"]

# the end
"#;

fn file() -> (tempfile::TempDir, ConfigFile) {
    let directory = tempfile::tempdir().unwrap();
    let file = ConfigFile::at(directory.path().join("config.toml"));
    (directory, file)
}

fn write(file: &ConfigFile, text: &str, mode: u32) {
    fs::write(file.path(), text).unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
}

fn text(file: &ConfigFile) -> String {
    fs::read_to_string(file.path()).unwrap()
}

#[test]
fn a_sample_means_what_it_says() {
    let config = Config::parse(SAMPLE, Path::new("x")).unwrap();
    assert_eq!(config.repository.as_ref().unwrap().url, "/srv/backup");
    let photos = config.source("photos").unwrap();
    assert_eq!(photos.exclude, ["*.raw", "/cache/"]);
    assert!(photos.one_file_system && !photos.exclude_caches);
    let home = config.source("home").unwrap();
    assert!(!home.one_file_system && home.exclude_caches);
    assert_eq!(home.exclude_file, [Path::new("/home/.ignore")]);
    assert_eq!(home.labels, ["nightly"]);
    assert_eq!(config.source("etc"), None);
}

#[test]
fn what_makes_no_sense_is_refused_with_place_and_suggestion() {
    for (text, why) in [
        ("[[source]]\nname = \"a\"\npaht = \"/a\"\n", "line 3: unknown key \"paht\"; did you mean \"path\"?"),
        ("[repo]\nurl = \"/x\"\n", "line 1: unknown key \"repo\"; known here: repository, cache, source"),
        ("[[source]]\nname = \"a\"\n", "missing field `path`"),
        ("[[source]]\nname = 3\n", "line 2: invalid type: integer `3`, expected a string"),
        ("[[source]\n", "line 1: "),
        ("[repository]\nurl = \"/x\"\nread_timeout = 0\n", "line 3: 0 is not a number of seconds from 0.01 to 3600"),
        ("[repository]\nurl = \"/x\"\nread_timeout = \"soon\"\n", "line 3: invalid type: string \"soon\""),
        ("[[source]]\nname = \"a/b\"\npath = \"/a\"\n", "\"a/b\" cannot name a source"),
        ("[[source]]\nname = \"a\"\npath = \"a\"\n", "must be an absolute path"),
        ("[[source]]\nname = \"a\"\npath = \"/a\"\nlabels = [\"-x\"]\n", "\"-x\" cannot be a label"),
        ("[[source]]\nname=\"a\"\npath=\"/a\"\n[[source]]\nname=\"a\"\npath=\"/b\"\n", "configured twice"),
    ] {
        let error = Config::parse(text, Path::new("/etc/amberfs/config.toml")).unwrap_err();
        assert!(error.to_string().contains(why), "{text}: {error}");
        assert!(error.to_string().contains("/etc/amberfs/config.toml"), "{error}");
        assert_eq!(error.class(), Class::Invalid);
    }
}

#[test]
fn timeouts_are_seconds() {
    let text = "[repository]\nurl = \"/x\"\nmetadata_timeout = 60\nread_timeout = 2.5\n";
    let repository = Config::parse(text, Path::new("x")).unwrap().repository.unwrap();
    let waits = (repository.metadata_timeout, repository.read_timeout);
    assert_eq!(waits, (Some(Duration::from_secs(60)), Some(Duration::from_millis(2500))));
}

#[test]
fn a_missing_file_is_empty_and_a_change_is_seen_at_once() {
    let (_directory, file) = file();
    assert_eq!(*file.current().unwrap(), Config::default());
    write(&file, SAMPLE, 0o600);
    let first = file.current().unwrap();
    assert_eq!(first.sources.len(), 2);
    assert!(Arc::ptr_eq(&first, &file.current().unwrap()));
    // As long, in the same second, in the same inode.
    write(&file, &SAMPLE.replace("/data/photos", "/data/fotos2"), 0o600);
    assert_eq!(file.current().unwrap().source("photos").unwrap().path, Path::new("/data/fotos2"));
}

#[test]
fn what_others_could_have_written_is_refused() {
    let (directory, file) = file();
    write(&file, SAMPLE, 0o620);
    let error = file.current().unwrap_err();
    assert_eq!(error.class(), Class::Denied);
    assert!(error.to_string().contains("its group can write to it (mode 0620)"), "{error}");
    assert!(error.to_string().contains("chmod go-w"), "{error}");
    write(&file, SAMPLE, 0o602);
    assert!(file.current().unwrap_err().to_string().contains("everybody can write"));
    write(&file, SAMPLE, 0o644);
    file.current().unwrap();

    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o770)).unwrap();
    let error = file.current().unwrap_err().to_string();
    assert!(error.contains(&format!("chmod go-w {:?}", directory.path())), "{error}");
    let error = file.add_source(&SourceConfig::new("a", "/a")).unwrap_err();
    assert_eq!(error.class(), Class::Denied);
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();

    let somebody = ConfigFile { user: file.user + 1, ..ConfigFile::at(file.path()) };
    match somebody.current() {
        // Root's files are trusted by everybody.
        Ok(_) => assert_eq!(file.user, 0),
        Err(error) => assert!(error.to_string().contains("it belongs to user"), "{error}"),
    }
}

#[test]
fn a_link_into_a_directory_of_others_is_refused() {
    let (directory, file) = file();
    let shared = directory.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("real.toml"), SAMPLE).unwrap();
    fs::set_permissions(shared.join("real.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("shared/real.toml", file.path()).unwrap();
    file.current().unwrap();
    file.add_source(&SourceConfig::new("etc", "/etc")).unwrap();
    assert!(file.path().is_symlink());
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(file.current().unwrap_err().class(), Class::Denied);
}

#[test]
fn a_source_is_added_behind_the_users_text() {
    let (directory, _) = file();
    let file = ConfigFile::at(directory.path().join("a/b/config.toml"));
    let vm = SourceConfig {
        disk: true,
        chunk_kib: Some(16),
        chain_max_points: std::num::NonZeroU32::new(7),
        stop: vec!["virsh".into(), "suspend it's".into()],
        start: vec!["true".into()],
        ..SourceConfig::new("vm", "/dev/vm")
    };
    let other = ConfigFile::at(directory.path().join("b/config.toml"));
    other.add_source(&vm).unwrap();
    assert_eq!(other.current().unwrap().sources, [vm]);
    let etc = SourceConfig {
        exclude: vec!["*.tmp".into(), "it's \"x\"\\".into()],
        exclude_file: vec!["/root/.ignore".into()],
        exclude_caches: true,
        one_file_system: false,
        labels: vec!["nightly".into()],
        ..SourceConfig::new("etc", "/etc")
    };
    file.add_source(&etc).unwrap();
    assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(file.path().parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(file.current().unwrap().sources, std::slice::from_ref(&etc));

    write(&file, SAMPLE, 0o640);
    file.add_source(&etc).unwrap();
    assert!(text(&file).starts_with(SAMPLE));
    assert_eq!(file.current().unwrap().sources.len(), 3);
    assert_eq!(file.current().unwrap().source("etc"), Some(&etc));
    assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o640);

    let error = file.add_source(&SourceConfig::new("home", "/other")).unwrap_err();
    assert_eq!(error.class(), Class::Conflict);
    assert!(error.to_string().contains("\"home\" is already configured"), "{error}");
    assert_eq!(file.add_source(&SourceConfig::new("x", "relative")).unwrap_err().class(), Class::Invalid);
}

#[test]
fn a_text_that_cannot_be_appended_to_is_left_alone() {
    let (_directory, file) = file();
    let inline = "source = [{ name = \"a\", path = \"/a\" }]\n";
    write(&file, inline, 0o600);
    let error = file.add_source(&SourceConfig::new("b", "/b")).unwrap_err();
    assert!(error.to_string().contains("edit it by hand"), "{error}");
    assert!(file.remove_source("a").is_err());
    assert_eq!(text(&file), inline);
}

#[test]
fn a_source_is_cut_out_and_the_rest_stays() {
    let (_directory, file) = file();
    write(&file, SAMPLE, 0o600);
    file.remove_source("photos").unwrap();
    let start = SAMPLE.find("# the family").unwrap();
    let end = SAMPLE.find("\n# home").unwrap();
    assert_eq!(text(&file), format!("{}{}", &SAMPLE[..start], &SAMPLE[end..]));
    file.remove_source("home").unwrap();
    assert!(text(&file).ends_with("\n# the end\n") && text(&file).starts_with("# my backups\n[repository]"));
    assert!(file.current().unwrap().sources.is_empty());

    write(&file, SAMPLE, 0o600);
    let error = file.remove_source("hom").unwrap_err();
    assert_eq!(error.class(), Class::NotFound);
    assert!(error.to_string().contains("did you mean \"home\"?"), "{error}");
    assert_eq!(text(&file), SAMPLE);
}

#[test]
fn every_order_of_tables_loses_exactly_the_named_source() {
    let tables = [
        "[repository]\nurl = '''\n[[source]]\n'''\n",
        "[[source]]\nname = \"a\"\npath = \"/a\"\n",
        "[[source]]\npath = \"/b\"\nname = \"b\"\nexclude = [\n  \"[[source]]\",\n]\n",
    ];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (_directory, file) = file();
        write(&file, &order.map(|place| tables[place]).join("# note\n"), 0o600);
        file.remove_source("b").unwrap();
        let config = file.current().unwrap();
        assert_eq!(config.sources, [SourceConfig::new("a", "/a")]);
        assert_eq!(config.repository.as_ref().unwrap().url, "[[source]]\n");
    }
}

#[test]
fn concurrent_changes_are_all_kept() {
    let (_directory, file) = file();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let file = &file;
            scope.spawn(move || file.add_source(&SourceConfig::new(format!("s{number}"), "/s")).unwrap());
        }
    });
    assert_eq!(file.current().unwrap().sources.len(), 8);
}

#[test]
fn the_sample_has_every_key_and_makes_sense() {
    let sample = include_str!("../../../docs/config.toml");
    let config = Config::parse(sample, Path::new("docs/config.toml")).unwrap();
    assert_eq!(config.source("etc"), Some(&SourceConfig::new("etc", "/etc")));
    let home = config.source("home").unwrap();
    let vm = config.source("vm").unwrap();
    // Each value differs from its default, so a key that is missing here would show.
    let SourceConfig { name: _, path: _, exclude, exclude_file, exclude_caches, one_file_system, labels, .. } = home;
    assert!(!exclude.is_empty() && !exclude_file.is_empty() && !labels.is_empty());
    assert!(*exclude_caches && !one_file_system);
    let SourceConfig { disk, chunk_kib, chain_max_points, stop, start, .. } = vm;
    assert!(*disk && chunk_kib.is_some() && chain_max_points.is_some() && !stop.is_empty() && !start.is_empty());
}
