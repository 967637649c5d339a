//! What programs read from a mount.

use crate::processes::Toy;

#[test]
fn a_mount_answers_once_the_command_returns() {
    let toy = Toy::mounted("");
    assert_eq!(std::fs::read_to_string(toy.join("tree/hello")).unwrap(), "hello\n");
}
