//! Real servers for a test, started by the scripts in `tests/servers/` and stopped with the process that wanted them.
//!
//! A script serves until its standard input ends, so a server goes with whoever started it, however that dies.
//! `tests/run` installs what CI needs before any test; a server that is not there is installed by its test, and one
//! that cannot be had fails it. Include it with `#[path = "../support/servers.rs"] mod servers;`.

#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// A server that runs.
pub(crate) struct Server {
    /// What its script says behind `ready`.
    pub(crate) words: Vec<String>,
    child: Child,
    stdin: Option<ChildStdin>,
    _directory: tempfile::TempDir,
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers").join(name)
}

/// Installs it, unless it is there.
fn install(name: &str) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap();
    let output = Command::new(script("install")).arg(name).output().unwrap();
    assert!(output.status.success(), "tests/servers/install {name}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Server {
    /// Starts a server of that name on a free port.
    pub(crate) fn start(name: &str) -> Server {
        Server::start_at(name, None)
    }

    /// The same, on this port.
    pub(crate) fn start_at(name: &str, port: Option<u16>) -> Server {
        install(match name {
            "gcs-shim" | "deaf" => "moto",
            name => name,
        });
        // Between finding a port and listening on it, somebody else may have taken it.
        (0..3)
            .find_map(|_| Server::try_start(name, port))
            .unwrap_or_else(|| panic!("tests/servers/{name} does not start"))
    }

    fn try_start(name: &str, port: Option<u16>) -> Option<Server> {
        let directory = tempfile::Builder::new().prefix("amberfs-server-").tempdir().unwrap();
        let port = port.unwrap_or_else(free_port);
        let mut child = Command::new(script(name))
            .arg(directory.path())
            .arg(port.to_string())
            // A server that serves a whole process is dropped by nobody.
            .env("AMBERFS_SERVER_LEAVES_NOTHING", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("ready"));
        let Some(ready) = ready else {
            let output = child.wait_with_output().unwrap();
            eprintln!("tests/servers/{name}: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        };
        let words = ready.split_whitespace().skip(1).map(str::to_owned).collect();
        Some(Server { words, child, stdin, _directory: directory })
    }

    /// `http://127.0.0.1:PORT`, or what its script says first.
    pub(crate) fn endpoint(&self) -> &str {
        &self.words[0]
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stdin.take());
        drop(self.child.wait());
    }
}

/// A port on which nobody listens at the moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The one moto of this process. It ends with the process: its standard input does.
pub(crate) fn moto() -> &'static Server {
    static MOTO: OnceLock<Server> = OnceLock::new();
    MOTO.get_or_init(|| Server::start("moto"))
}

/// What a client of an S3 server needs in its environment: keys, and no others of whoever runs the tests.
pub(crate) fn s3_environment(server: &Server) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ACCESS_KEY_ID", server.words[1].clone()),
        ("AWS_SECRET_ACCESS_KEY", server.words[2].clone()),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent".to_owned()),
        ("AWS_CONFIG_FILE", "/nonexistent".to_owned()),
    ]
}
