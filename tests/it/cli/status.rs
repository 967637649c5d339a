//! `amberfs status`, as people and scripts read it.

use serde_json::Value;

use super::bench::Bench;
use super::key::{encrypted, good, keyed};

#[test]
fn status_says_that_a_repository_is_encrypted() {
    let bench = encrypted();
    let status = good(keyed(&bench, "key", &["--json", "status"])).json().pop().unwrap();
    assert_eq!((&status["encrypted"], &status["created"]), (&Value::from(true), &Value::Null));
    let text = good(keyed(&bench, "key", &["status"])).out;
    assert!(text.contains("encrypted   yes") && !text.contains("1970"), "{text}");
    let plain = Bench::new();
    plain.good(["init", "-q", "--unencrypted"]);
    let status = plain.run(["--json", "status"]).json().pop().unwrap();
    assert_eq!(status["encrypted"], Value::from(false));
    assert!(status["created"].as_str().unwrap().starts_with("20"), "{status}");
    assert!(plain.good(["status"]).contains("encrypted   no"));
}
