//! Keys of encrypted repositories that are given for less than is wanted.

use super::key::{encrypted, good, keyed};

#[test]
fn a_key_that_does_not_read_contents_says_so() {
    let bench = encrypted();
    for role in ["writer", "collector"] {
        good(keyed(&bench, "key", &["key", "add", role, "--role", role, "--new-keyfile", &format!("{role}.key")]));
    }
    good(keyed(&bench, "key", &["-q", "capture", "home=tree"]));
    for arguments in [["ls", "home"], ["cat", "home:file"]] {
        let ran = keyed(&bench, "writer.key", &arguments);
        ran.fails(1, "your key is a writer key, which cannot read contents");
        assert!(!ran.err.contains("damaged"), "{ran:?}");
    }
    let ran = keyed(&bench, "collector.key", &["cat", "home:file"]);
    ran.fails(1, "your key is a collector key, which cannot read contents");
    assert!(!ran.err.contains("damaged"), "{ran:?}");
}
