//! A test file that no `main.rs` names is compiled by nobody and passes for ever: none may exist.

use std::fs;
use std::path::Path;

/// The only test binaries there are; another top-level file in `tests/` would be linked by itself.
const BINARIES: &[&str] = &["it", "mount", "engines", "sim"];
/// Folders in `tests/` that hold no binary.
const FOLDERS: &[&str] = &["golden", "servers", "support"];

/// Modules that stand beside `main.rs` in `dir` and that it does not name.
fn forgotten(dir: &Path) -> Vec<String> {
    let main = fs::read_to_string(dir.join("main.rs")).unwrap();
    let mut found = Vec::new();
    for item in fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let module = if path.is_dir() {
            path.join("mod.rs").exists()
        } else {
            path.extension().is_some_and(|e| e == "rs") && stem != "main"
        };
        let named = main.lines().any(|line| line.trim().trim_start_matches("pub ") == format!("mod {stem};"));
        if module && !named {
            found.push(stem);
        }
    }
    found
}

#[test]
fn every_test_file_is_named_by_its_binary() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for binary in BINARIES {
        let dir = tests.join(binary);
        if dir.exists() {
            assert_eq!(forgotten(&dir), Vec::<String>::new(), "tests/{binary}/main.rs does not name these modules");
        }
    }
}

#[test]
fn there_are_no_other_test_binaries() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for item in fs::read_dir(tests).unwrap() {
        let path = item.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            assert!(
                BINARIES.contains(&name.as_str()) || FOLDERS.contains(&name.as_str()),
                "tests/{name} is neither a known test binary nor a known folder"
            );
        } else {
            assert!(!name.ends_with(".rs"), "tests/{name} would be a binary of its own: make it a module of tests/it");
        }
    }
}

#[test]
fn the_check_finds_a_planted_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("main.rs"), "mod named;\n").unwrap();
    fs::write(dir.path().join("named.rs"), "").unwrap();
    fs::write(dir.path().join("forgotten.rs"), "").unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    fs::write(dir.path().join("folder/mod.rs"), "").unwrap();
    let mut found = forgotten(dir.path());
    found.sort();
    assert_eq!(found, ["folder", "forgotten"]);
}
