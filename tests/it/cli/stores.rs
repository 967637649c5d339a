//! Repositories by URL: what they are called, how keys reach them, and that keys reach nobody else. The server is moto,
//! which accepts any key and wants one.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::bench::{Bench, Ran};
use crate::servers::{Server, free_port, moto};

const SECRET: &str = "hunter2";

/// Runs with no keys at hand but those in `environment`: the home is empty, and so is the place of a machine's role.
fn run(bench: &Bench, url: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command = bench.command(["-r", url]);
    command.args(arguments).env("AWS_METADATA_ENDPOINT", format!("http://127.0.0.1:{}", free_port()));
    command.envs(environment.iter().copied());
    let ran = Ran::of(command.output().unwrap());
    assert!(!ran.out.contains(SECRET) && !ran.err.contains(SECRET), "{ran:?}");
    ran
}

fn url(place: &str) -> String {
    format!("s3://amber/{place}?endpoint={}", moto().endpoint())
}

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AK"), ("AWS_SECRET_ACCESS_KEY", SECRET)];

fn private(bench: &Bench, name: &str, text: &str, mode: u32) {
    let path = bench.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_url_names_a_repository_wherever_a_path_does() {
    let bench = Bench::new();
    let url = url("named/a");
    run(&bench, &url, &KEYS, &["status"]).fails(10, "there is no repository at s3://amber/named/a");
    let told = run(&bench, &url, &KEYS, &["init", "--unencrypted"]);
    assert!(told.code == 0 && told.out.contains("created at s3://amber/named/a"), "{told:?}");
    run(&bench, &url, &KEYS, &["init", "--unencrypted"]).fails(11, "already");
    std::fs::create_dir(bench.path("source")).unwrap();
    std::fs::write(bench.path("source/file"), "content").unwrap();
    let source = format!("home={}", bench.path("source").display());
    assert_eq!(run(&bench, &url, &KEYS, &["-q", "capture", &source]).code, 0);
    assert_eq!(run(&bench, &url, &KEYS, &["cat", "home:file"]).out, "content");
    // Another prefix of the same bucket is another place.
    run(&bench, &self::url("named"), &KEYS, &["status"]).fails(10, "no repository");
    // The configuration names it just as well, and its options hold also where -r names the place.
    let config =
        format!("[repository]\nurl = \"s3://amber/named/a\"\noptions = {{ endpoint = {:?} }}\n", moto().endpoint());
    std::fs::write(bench.path("config.toml"), config).unwrap();
    for repository in ["", "s3://amber/named/a"] {
        assert_eq!(run(&bench, repository, &KEYS, &["cat", "home:file"]).out, "content", "{repository:?}");
    }
    std::fs::write(bench.path("config.toml"), "[repository]\nurl = \"s3://b/p\"\noptions = { endpiont = \"x\" }\n")
        .unwrap();
    run(&bench, "", &KEYS, &["status"]).fails(2, "did you mean \"endpoint\"?");
}

#[test]
fn keys_come_from_the_environment_a_profile_a_program_or_a_private_file() {
    let bench = Bench::new();
    let url = url("keys");
    run(&bench, &url, &[], &["init", "--unencrypted"]).fails(1, "no AWS credentials were found");
    assert_eq!(run(&bench, &url, &KEYS, &["init", "--unencrypted"]).code, 0);

    private(
        &bench,
        ".aws/credentials",
        &format!("[default]\naws_access_key_id=A\naws_secret_access_key={SECRET}\n"),
        0o600,
    );
    assert_eq!(run(&bench, &url, &[], &["status"]).code, 0);
    let answer = format!(r#"{{"Version":1,"AccessKeyId":"A","SecretAccessKey":"{SECRET}"}}"#);
    private(
        &bench,
        ".aws/config",
        &format!("[profile p]\ncredential_process = echo '{answer}'\n[profile r]\nrole_arn = x\n"),
        0o600,
    );
    assert_eq!(run(&bench, &url, &[("AWS_PROFILE", "p")], &["status"]).code, 0);
    assert_eq!(run(&bench, &format!("{url}&profile=p"), &[], &["status"]).code, 0);
    run(&bench, &url, &[("AWS_PROFILE", "nobody")], &["status"]).fails(2, "nobody");
    run(&bench, &url, &[("AWS_PROFILE", "r")], &["status"]).fails(2, "credential_process = aws configure");
    std::fs::remove_dir_all(bench.path(".aws")).unwrap();

    let file = bench.path("keys.toml");
    let config = format!("[repository]\nurl = {url:?}\ncredentials_file = {file:?}\n");
    std::fs::write(bench.path("config.toml"), config).unwrap();
    private(&bench, "keys.toml", &format!("access_key_id = \"A\"\nsecret_access_key = \"{SECRET}\"\n"), 0o640);
    run(&bench, &url, &[], &["status"]).fails(1, "chmod 600");
    private(&bench, "keys.toml", &format!("access_key_id = \"A\"\nsecret_access_key = \"{SECRET}\"\n"), 0o600);
    assert_eq!(run(&bench, &url, &[], &["status"]).code, 0);
    private(&bench, "keys.toml", &format!("access_key = \"{SECRET}\"\n"), 0o600);
    run(&bench, &url, &[], &["status"]).fails(2, "unknown key \"access_key\"");
}

#[test]
fn a_secret_in_a_url_is_refused_and_not_repeated() {
    let bench = Bench::new();
    for url in [
        format!("s3://AK:{SECRET}@bucket/p"),
        format!("s3://bucket/p?secret_access_key={SECRET}"),
        format!("az://c/p?sig={SECRET}"),
        format!("s3://b/p?endpoint=https://me:{SECRET}@host"),
    ] {
        run(&bench, &url, &[], &["status"]).fails(2, "credentials_file");
    }
}

#[test]
fn a_store_that_is_not_there_is_told_from_a_repository_that_is_not() {
    let bench = Bench::new();
    let bucket = format!("s3://no-such-bucket/p?endpoint={}", moto().endpoint());
    for arguments in [&["status"][..], &["init", "--unencrypted"]] {
        run(&bench, &bucket, &KEYS, arguments).fails(2, "no such bucket");
    }
    let began = Instant::now();
    let dead = format!("s3://amber/p?endpoint=http://127.0.0.1:{}", free_port());
    for arguments in [&["status"][..], &["init", "--unencrypted"], &["repo", "check"]] {
        let began = Instant::now();
        let ran = run(&bench, &dead, &KEYS, arguments);
        assert!(ran.code == 1 && ran.err.contains("cannot reach http://127.0.0.1:"), "{arguments:?}: {ran:?}");
        assert!(ran.err.contains("Connection refused") && ran.err.contains("check the endpoint"), "{ran:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "{arguments:?} took {:?}", began.elapsed());
    }
    let unknown = "s3://amber/p?endpoint=http://no-such-host.invalid:9000";
    let ran = run(&bench, unknown, &KEYS, &["status"]);
    assert!(ran.code == 1 && ran.err.contains("cannot reach http://no-such-host.invalid:9000"), "{ran:?}");
    assert!(began.elapsed() < Duration::from_secs(70), "it took {:?}", began.elapsed());
    run(&bench, "s4://bucket/p", &[], &["status"]).fails(1, "did you mean \"s3\"?");
}

#[test]
fn a_store_is_checked_in_words_and_as_json() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("empty")).unwrap();
    let told = bench.good(["-r", "empty", "repo", "check", "--large", "9"]);
    assert!(told.contains("kept    create-raced") && !told.contains("BROKEN"), "{told}");
    assert!(told.ends_with("keeps all that amberfs relies on\n"), "{told}");
    // It is as empty as it was.
    bench.good(["-r", "empty", "init", "--unencrypted"]);
    let ran = run(&bench, &url("checked"), &KEYS, &["--json", "repo", "check", "--large", "9"]);
    let answer = &ran.json()[0];
    assert_eq!((ran.code, &answer["kept"], &answer["several_writers"]), (0, &true.into(), &true.into()), "{ran:?}");
    assert_eq!(answer["store"], "s3://amber/checked");
    let bucket = format!("s3://no-such-bucket/p?endpoint={}", moto().endpoint());
    run(&bench, &bucket, &KEYS, &["repo", "check"]).fails(2, "no such bucket");
}

#[test]
fn a_check_that_is_ended_early_leaves_nothing_and_removes_what_killed_ones_left() {
    let bench = Bench::new();
    let probe = bench.path("place/probe");
    let killed = probe.join("0123456789abcdef0123456789abcdef");
    let many = || -> BTreeSet<_> {
        let checks = std::fs::read_dir(&probe).into_iter().flatten().flatten().map(|check| check.path());
        checks.filter(|check| check.join("many").exists()).collect()
    };
    for signal in ["KILL", "INT"] {
        std::fs::create_dir_all(bench.path("place")).unwrap();
        let before = many();
        let check = bench
            .command(["-r", "place", "repo", "check", "--large", "9"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while many().is_subset(&before) {
            assert!(began.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(2));
        }
        let killed = std::process::Command::new("kill").args([format!("-{signal}"), check.id().to_string()]).status();
        assert!(killed.unwrap().success());
        let ended = check.wait_with_output().unwrap();
        if signal == "KILL" {
            assert_eq!(many().len(), 1);
        } else {
            let ran = Ran::of(ended);
            assert!(ran.code != 0 && ran.err.contains("ended early"), "{ran:?}");
            assert!(!probe.exists(), "{:?}", std::fs::read_dir(&probe).unwrap().collect::<Vec<_>>());
        }
    }
    // What an older one left is no obstacle to a repository, and what is no test's stays.
    std::fs::create_dir_all(killed.join("many")).unwrap();
    std::fs::write(killed.join("many/1"), "x").unwrap();
    std::fs::write(probe.join("0123456789abcdef0123456789abcdee#1"), "x").unwrap();
    bench.good(["-r", "place", "init", "--unencrypted", "-q"]);
    std::fs::write(probe.join("notes"), "mine").unwrap();
    bench.good(["-r", "place", "repo", "check", "--large", "9"]);
    assert!(!killed.exists() && probe.join("notes").exists());
    std::fs::create_dir_all(bench.path("other/probe")).unwrap();
    std::fs::write(bench.path("other/probe/notes"), "mine").unwrap();
    bench.run(["-r", "other", "init", "--unencrypted"]).fails(11, "is not empty");
}

#[test]
fn a_store_that_does_not_answer_is_waited_for_as_long_as_somebody_says() {
    let bench = Bench::new();
    // The kernel takes the connections, and nobody answers.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("s3://amber/mute?endpoint=http://{}", mute.local_addr().unwrap());
    // What is told is the whole time, or that of the last attempt, a third of it.
    let waits = |arguments: &[&str], seconds: f32| {
        let told = run(&bench, &url, &KEYS, arguments);
        let within = |seconds: f32| told.err.contains(&format!("no answer within {seconds} s"));
        assert!(told.code == 1 && (within(seconds) || within(seconds / 3.0)), "{seconds}: {told:?}");
    };
    waits(&["--read-timeout", "1.5", "points"], 1.5);
    std::fs::write(bench.path("config.toml"), format!("[repository]\nurl = {url:?}\nread_timeout = 2.25\n")).unwrap();
    waits(&["points"], 2.25);
    waits(&["--read-timeout=0.75", "points"], 0.75);
    waits(&["--metadata-timeout", "1.5", "repo", "check"], 1.5);
    for option in ["--read-timeout=0", "--metadata-timeout=3601", "--read-timeout=soon"] {
        let told = run(&bench, &url, &KEYS, &[option, "points"]);
        assert!(told.code == 2 && told.err.contains("a number of seconds from 0.01 to 3600"), "{told:?}");
    }
    std::fs::write(bench.path("config.toml"), format!("[repository]\nurl = {url:?}\nread_timeout = 0\n")).unwrap();
    run(&bench, &url, &KEYS, &["points"]).fails(2, "0 is not a number of seconds");
}

#[test]
fn no_repository_lies_inside_another() {
    let bench = Bench::new();
    let go = |place: &str, arguments: &[&str]| run(&bench, &url(place), &KEYS, arguments);
    let init = ["init", "--unencrypted"];
    assert_eq!(go("nest/outer", &init).code, 0);
    go("nest/outer/inner", &init).fails(11, "lies inside the repository at s3://amber/nest/outer");
    go("nest/outer/a/b", &["init", "--new-keyfile", "key"]).fails(11, "lies inside");
    assert!(!bench.path("key").exists(), "nothing was made for it");
    go("nest", &init).fails(11, "it holds outer/amberfs");
    assert_eq!(go("nest/outside", &init).code, 0);
    // Directories above may hold anything, also of that name.
    for (name, content) in [("file", Some("no marker")), ("directory", None)] {
        std::fs::create_dir(bench.path(name)).unwrap();
        match content {
            Some(content) => std::fs::write(bench.path(name).join("amberfs"), content).unwrap(),
            None => std::fs::create_dir(bench.path(name).join("amberfs")).unwrap(),
        }
        bench.good(["-r", &format!("{name}/repo"), "init", "--unencrypted"]);
    }
    std::fs::create_dir(bench.path("file/repo/below")).unwrap();
    bench.run(["-r", "file/repo/below/inner", "init", "--unencrypted"]).fails(11, "lies inside the repository at");
}

#[test]
fn a_store_that_overwrites_is_used_by_one_writer_who_said_so_and_everybody_hears_of_it() {
    let bench = Bench::new();
    let server = Server::start("deaf");
    let url = format!("s3://amber/p?endpoint={}", server.endpoint());
    std::fs::create_dir(bench.path("source")).unwrap();
    let source = format!("home={}", bench.path("source").display());
    let go = |url: &str, arguments: &[&str]| run(&bench, url, &KEYS, arguments);
    go(&url, &["init", "--unencrypted"]).fails(1, "--single-writer");
    let told = go(&url, &["init", "--unencrypted", "--single-writer"]);
    assert!(told.code == 0 && told.err.contains("SINGLE-WRITER MODE"), "{told:?}");
    go(&url, &["capture", &source]).fails(1, "does not honour conditional creation");
    // Who wants to hear errors only hears of this as well.
    let deaf: Vec<_> = KEYS.into_iter().chain([("AMBERFS_LOG", "off")]).collect();
    let told = run(&bench, &url, &deaf, &["--single-writer", "-q", "capture", &source]);
    assert!(told.code == 0 && told.err.starts_with("amberfs: warning: SINGLE-WRITER MODE: s3://amber/p"), "{told:?}");
    assert_eq!(told.err.lines().count(), 1, "{told:?}");
    assert!(go(&url, &["status"]).out.contains("SINGLE-WRITER MODE"));
    assert_eq!(go(&url, &["--json", "status"]).json()[0]["single_writer"], true);
    assert_eq!(go(&url, &["--json", "points"]).json().len(), 1);
    assert_eq!(go(&url, &["verify"]).code, 0, "its objects are no strangers");
    // Another host for which the probe passes: the repository itself says what it is.
    let honest = format!("s3://amber/p?endpoint={}", server.words[1]);
    go(&honest, &["capture", &source]).fails(1, "--single-writer");
    // The configuration may say so as well, for jobs.
    let config = format!("[repository]\nurl = {url:?}\nsingle_writer = true\n");
    std::fs::write(bench.path("config.toml"), config).unwrap();
    assert_eq!(go(&url, &["-q", "capture", &source]).code, 0);
    let checked = go(&url, &["--json", "repo", "check", "--large", "9"]);
    assert_eq!((checked.code, &checked.json()[0]["several_writers"]), (1, &false.into()), "{checked:?}");
}

#[test]
fn keys_are_written_to_a_store_that_overwrites_by_one_writer_who_said_so() {
    let bench = Bench::new();
    let server = Server::start("deaf");
    let url = format!("s3://amber/keys?endpoint={}", server.endpoint());
    let go = |arguments: &[&str]| run(&bench, &url, &KEYS, arguments);
    let keys = || go(&["--keyfile", "key", "--json", "key", "list"]).json().len();
    go(&["init", "--new-keyfile", "key"]).fails(1, "--single-writer");
    assert_eq!(go(&["init", "--new-keyfile", "key", "--single-writer"]).code, 0);
    let own = |arguments: &[&str]| go(&[&["--keyfile", "key"], arguments].concat());
    for change in [&["add", "other", "--new-keyfile", "other"][..], &["change", "--new-keyfile", "other"], &["rotate"]]
    {
        own(&[&["key"], change].concat()).fails(1, "--single-writer");
        assert_eq!(keys(), 1, "{change:?}");
    }
    assert_eq!(own(&["--single-writer", "key", "add", "other", "--new-keyfile", "other"]).code, 0);
    own(&["key", "remove", "other"]).fails(1, "--single-writer");
    assert_eq!(keys(), 2);
    let began = Instant::now();
    let told = own(&["--single-writer", "key", "rotate", "--yes"]);
    assert!(told.code == 0 && told.err.contains("SINGLE-WRITER MODE"), "{told:?}");
    assert!(began.elapsed() < Duration::from_secs(60), "it waits for no lease but its own");
    assert_eq!(keys(), 1);
}

/// One URL is two places, where the environment says which server is meant.
#[test]
fn what_is_known_of_a_store_is_known_of_its_server() {
    let bench = Bench::new();
    let server = Server::start("deaf");
    let (deaf, honest) = (server.endpoint(), &*server.words[1]);
    std::fs::create_dir(bench.path("source")).unwrap();
    let source = format!("home={}", bench.path("source").display());
    let at = |endpoint: &str, place: &str, arguments: &[&str]| {
        let environment: Vec<_> = KEYS.into_iter().chain([("AWS_ENDPOINT_URL", endpoint)]).collect();
        run(&bench, &format!("s3://amber/{place}"), &environment, arguments)
    };
    assert_eq!(at(honest, "p", &["init", "--unencrypted"]).code, 0);
    assert_eq!(at(honest, "p", &["-q", "capture", &source]).code, 0);
    // The same objects behind a server that has proven nothing.
    at(deaf, "p", &["capture", &source]).fails(1, "--single-writer");
    assert_eq!(at(honest, "p", &["-q", "capture", &source]).code, 0);
    // Two repositories of one URL are no exchanged one.
    assert_eq!(at(honest, "q", &["init", "--unencrypted"]).code, 0);
    assert_eq!(at(moto().endpoint(), "q", &["init", "--unencrypted"]).code, 0);
    assert_eq!(at(honest, "q", &["-q", "capture", &source]).code, 0);
    assert_eq!(at(moto().endpoint(), "q", &["-q", "capture", &source]).code, 0);
}
