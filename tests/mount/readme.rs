//! The README's examples, run as they stand there.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::processes::Toy;

/// The commands of the README's section `title`.
fn commands(title: &str) -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let section = readme.split(&format!("\n## {title}\n")).nth(1).expect("the section is there");
    let block = section.split("\n```sh\n").nth(1).expect("it has commands");
    block.split("\n```").next().unwrap().to_owned()
}

#[test]
fn what_the_readme_says_to_type_works() {
    let place = Toy::unmounted();
    let dir = place.beside("");
    let dir = dir.to_str().unwrap().trim_end_matches('/');
    fs::create_dir_all(format!("{dir}/me/projects/one")).unwrap();
    fs::write(format!("{dir}/me/projects/one/file"), "text\n").unwrap();
    // Its paths, and the only time that a repository of this minute cannot have; a second point for `~1`.
    let script = commands("Use it")
        .replace("/srv/backup", &format!("{dir}/repository"))
        .replace("/home/me", &format!("{dir}/me"))
        .replace("/mnt/backups", &format!("{dir}/m"))
        .replace("/tmp/projects", &format!("{dir}/restored"))
        .replace("at/yesterday", "at/now");
    let capture = script.lines().find(|line| line.contains(" capture ")).unwrap();
    let script = script.replacen(capture, &format!("{capture}\n{capture}"), 1);
    let program = Path::new(env!("CARGO_BIN_EXE_amberfs")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let ran = Command::new("bash")
        .args(["-euxc", &script])
        .env("PATH", path)
        .env("AMBERFS_CONFIG", format!("{dir}/config.toml"))
        .env("AMBERFS_STATE_DIR", format!("{dir}/state"))
        .env("AMBERFS_CACHE_DIR", format!("{dir}/cache"))
        .env_remove("AMBERFS_REPOSITORY")
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    for copy in ["restored", "me/projects-as-captured"] {
        assert_eq!(fs::read_to_string(format!("{dir}/{copy}/one/file")).unwrap(), "text\n", "{copy}");
    }
    assert!(!place.is_mounted());
}
