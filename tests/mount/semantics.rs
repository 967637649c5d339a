//! The examples of `docs/semantics.md`, run: each `$` line in bash, in a mount; what follows is what it says.

use crate::processes::{Toy, shell};

/// The commands of one block with what each should say.
fn examples(page: &str) -> Vec<Vec<(String, String)>> {
    let mut blocks = Vec::new();
    for block in page.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let mut commands: Vec<(String, String)> = Vec::new();
        for line in block.lines() {
            match line.strip_prefix("$ ") {
                Some(command) => commands.push((command.to_owned(), String::new())),
                None => {
                    let says = &mut commands.last_mut().expect("a command before its output").1;
                    says.push_str(line);
                    says.push('\n');
                }
            }
        }
        blocks.push(commands);
    }
    blocks
}

#[test]
fn the_page_about_semantics_tells_the_truth() {
    let page = include_str!("../../docs/semantics.md");
    let blocks = examples(page);
    assert!(blocks.len() >= 5 && blocks.iter().map(Vec::len).sum::<usize>() >= 15, "the page has lost its examples");
    for block in blocks {
        let toy = Toy::mounted("");
        for (command, says) in block {
            let (text, _) = shell("bash", &format!("exec 2>&1; {command}"), &toy);
            assert_eq!(text, says, "$ {command}");
        }
    }
}

#[test]
fn the_deadlines_on_the_page_are_the_ones_in_force() {
    let page = include_str!("../../docs/semantics.md");
    let options = amberfs::fuse::MountOptions::default();
    let stated = format!(
        "{} s for names and attributes (`-o metadata_timeout=`), {} s for contents (`-o read_timeout=`)",
        options.metadata_deadline.as_secs(),
        options.data_deadline.as_secs()
    );
    assert!(page.contains(&stated), "{stated}");
}
