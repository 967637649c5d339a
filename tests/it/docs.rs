//! Documents that point nowhere are worse than none: links, the list of decisions, and the commands
//! that pages show are compared with what is there.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every page of documentation.
fn pages() -> Vec<PathBuf> {
    let mut found = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    for folder in ["docs", "docs/decisions"] {
        for item in fs::read_dir(root().join(folder)).unwrap() {
            let path = item.unwrap().path();
            if path.extension().is_some_and(|e| e == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// Targets of the links in `text` that are files.
fn links(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#', ' ']).next())
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect()
}

#[test]
fn every_link_leads_to_a_file() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let dir = page.parent().unwrap();
        broken.extend(links(&text).into_iter().filter(|t| !dir.join(t).exists()).map(|t| format!("{page:?}: {t}")));
    }
    assert_eq!(broken, Vec::<String>::new());
    assert_eq!(links("[a](b.md) [c](https://d) [e](f/g.md#h) [i](#j)"), ["b.md", "f/g.md"]);
}

#[test]
fn every_decision_is_in_the_list_and_says_when() {
    let folder = root().join("docs/decisions");
    let list = fs::read_to_string(folder.join("README.md")).unwrap();
    for item in fs::read_dir(&folder).unwrap() {
        let name = item.unwrap().file_name().into_string().unwrap();
        if name == "README.md" {
            continue;
        }
        assert!(list.contains(&format!("]({name})")), "docs/decisions/README.md does not list {name}");
        let text = fs::read_to_string(folder.join(&name)).unwrap();
        assert!(text.starts_with("# "), "{name} has no title");
    }
}

/// First words of commands that the shell blocks of `text` give to `amberfs`.
fn commands(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut in_shell = false;
    for line in text.lines() {
        if let Some(kind) = line.trim_start().strip_prefix("```") {
            in_shell = matches!(kind, "sh" | "bash" | "console");
            continue;
        }
        let line = line.trim_start_matches("$ ").trim();
        if in_shell
            && let Some(arguments) = line.strip_prefix("amberfs ").or(line.strip_prefix("cargo run --release -- "))
        {
            let mut words = arguments.split_whitespace();
            let mut verb = words.next();
            if verb == Some("-r") {
                verb = words.nth(1);
            }
            found.extend(verb);
        }
    }
    found
}

#[test]
fn commands_that_pages_show_exist() {
    let reference = fs::read_to_string(root().join("docs/cli.md")).unwrap();
    let mut shown = 0;
    for page in pages() {
        for verb in commands(&fs::read_to_string(&page).unwrap()) {
            shown += 1;
            assert!(
                reference.contains(&format!("## `amberfs {verb}`")),
                "{page:?} shows `amberfs {verb}`, which docs/cli.md does not know"
            );
        }
    }
    assert!(shown >= 8, "only {shown} commands seen: the reader of pages is blind");
}

/// The text of every Rust file below `dir`.
fn sources(dir: &Path, found: &mut String) {
    for item in fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn tests_that_pages_name_exist() {
    let mut code = String::new();
    sources(&root().join("src"), &mut code);
    sources(&root().join("tests"), &mut code);
    for page in ["docs/concurrency.md", "docs/coverage.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        // A test's name is a sentence; a quoted word of four parts or more is taken for one.
        let named: Vec<&str> = text.split('`').filter(|w| w.matches('_').count() >= 3 && !w.contains(' ')).collect();
        let missing: Vec<_> = named.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
        assert!(missing.is_empty(), "{page} names tests that do not exist: {missing:#?}");
        assert!(named.len() > 20, "{page}: only {} tests seen: the reader of the page is blind", named.len());
    }
}
