//! An HTTP proxy that makes the server behind it as far away as one is over a network, and counts what passes.
//!
//! Each request waits for one journey there and back before it is passed on, and all bodies together take the time that a
//! line of a given rate takes. Requests and bytes are counted by method. It speaks HTTP/1.1 without encryption, keeps
//! connections alive, and passes on what it does not understand as it is.
//!
//! Servers for tests are slow at what a real one does in a millisecond: s3s-fs hashes a whole object for each range of it.
//! Given the directory in which the server keeps its objects as files, the proxy answers GETs of objects from there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Requests of one method, and the bytes of their bodies.
#[derive(Debug, Default)]
struct Count {
    requests: u64,
    bytes_up: u64,
    bytes_down: u64,
}

/// A proxy that serves until its process ends.
#[derive(Debug)]
pub(crate) struct LatencyProxy {
    address: SocketAddr,
}

/// The line that all connections share.
#[derive(Debug)]
struct Line {
    server: String,
    /// Where the server's objects are.
    files: Option<PathBuf>,
    journey: Duration,
    bytes_per_second: f64,
    /// When the line will have carried all that was given to it.
    busy_until: Mutex<Instant>,
    /// By method.
    counts: Mutex<BTreeMap<String, Count>>,
}

impl LatencyProxy {
    /// Listens on `listen` for requests to `server`, both `host:port`, whose objects are the files in `files`.
    pub(crate) fn start(
        listen: &str,
        server: &str,
        files: Option<PathBuf>,
        journey: Duration,
        bytes_per_second: u64,
    ) -> Result<LatencyProxy> {
        let listener = TcpListener::bind(listen)?;
        let line = Arc::new(Line {
            server: server.to_owned(),
            files,
            journey,
            bytes_per_second: bytes_per_second as f64,
            busy_until: Mutex::new(Instant::now()),
            counts: Mutex::default(),
        });
        let proxy = LatencyProxy { address: listener.local_addr()? };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let line = Arc::clone(&line);
                // A connection that breaks is its two ends' matter.
                std::thread::spawn(move || drop(line.serve(client)));
            }
        });
        Ok(proxy)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The first line and the header fields of a request or an answer, as they came.
struct Head {
    bytes: Vec<u8>,
}

impl Head {
    /// None where the other side has closed the connection.
    fn read(from: &mut impl BufRead) -> Result<Option<Head>> {
        let mut bytes = Vec::new();
        loop {
            let before = bytes.len();
            if from.read_until(b'\n', &mut bytes)? == 0 {
                return if before == 0 { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
            if bytes.len() > 1 << 20 {
                return Err(Error::other("a head of more than a megabyte"));
            }
            if matches!(&bytes[before..], b"\r\n" | b"\n") {
                return Ok(Some(Head { bytes }));
            }
        }
    }

    fn word(&self, index: usize) -> &str {
        let line = self.bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        std::str::from_utf8(line).unwrap_or_default().split_whitespace().nth(index).unwrap_or_default()
    }

    fn field(&self, name: &str) -> Option<String> {
        self.bytes.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
            let (field, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
        })
    }

    fn is_chunked(&self) -> bool {
        self.field("transfer-encoding").is_some_and(|value| value.contains("chunked"))
    }

    fn length(&self) -> Option<u64> {
        self.field("content-length")?.parse().ok()
    }
}

impl Line {
    fn serve(&self, client: TcpStream) -> Result<()> {
        client.set_nodelay(true)?;
        let server = TcpStream::connect(&self.server)?;
        server.set_nodelay(true)?;
        let (mut from_client, mut to_client) = (BufReader::with_capacity(1 << 16, client.try_clone()?), client);
        let (mut from_server, mut to_server) = (BufReader::with_capacity(1 << 16, server.try_clone()?), server);
        while let Some(request) = Head::read(&mut from_client)? {
            if request.word(1) == "/-/take" {
                self.tell(&mut to_client)?;
                continue;
            }
            let method = request.word(0).to_owned();
            let began = Instant::now();
            if let Some((head, mut file, bytes)) = self.file(&request)? {
                std::thread::sleep(self.journey.saturating_sub(began.elapsed()));
                to_client.write_all(&head)?;
                let bytes_down = self.carry(bytes, &mut file, &mut to_client)?;
                self.count(method, 0, bytes_down);
                continue;
            }
            to_server.write_all(&request.bytes)?;
            if request.field("expect").is_some() {
                // The client waits for a word before it sends its body.
                to_client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let bytes_up = self.body(&request, true, &mut from_client, &mut to_server)?;
            let answer = loop {
                let head = Head::read(&mut from_server)?.ok_or(ErrorKind::UnexpectedEof)?;
                if head.word(1) != "100" {
                    break head;
                }
            };
            // What the server itself takes is part of the journey.
            std::thread::sleep(self.journey.saturating_sub(began.elapsed()));
            to_client.write_all(&answer.bytes)?;
            let has_body = method != "HEAD" && !matches!(answer.word(1), "204" | "304");
            let bytes_down = if has_body { self.body(&answer, false, &mut from_server, &mut to_client)? } else { 0 };
            self.count(method, bytes_up, bytes_down);
            if has_body && !answer.is_chunked() && answer.length().is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn count(&self, method: String, bytes_up: u64, bytes_down: u64) {
        let mut counts = self.counts.lock().expect("no holder panics");
        let count = counts.entry(method).or_default();
        count.requests += 1;
        count.bytes_up += bytes_up;
        count.bytes_down += bytes_down;
    }

    /// The answer to a GET of an object that is a file here: its head, the file where the answer begins, and its bytes.
    fn file(&self, request: &Head) -> Result<Option<(Vec<u8>, File, u64)>> {
        let path = request.word(1);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
        let Some(files) = self.files.as_ref().filter(|_| request.word(0) == "GET") else { return Ok(None) };
        if !path.bytes().all(plain) || path.contains("..") {
            return Ok(None);
        }
        let Ok(mut file) = File::open(files.join(path.trim_start_matches('/'))) else { return Ok(None) };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Ok(None);
        }
        let size = meta.len();
        let asked = request.field("range").and_then(|range| {
            let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            Some(match (first.parse::<u64>().ok(), last.parse::<u64>().ok()) {
                (Some(first), last) => first..last.map_or(size, |last| size.min(last + 1)),
                (None, last) => size.saturating_sub(last?)..size,
            })
        });
        let (status, range) = match &asked {
            Some(range) if range.is_empty() => return Ok(None),
            Some(range) => ("206 Partial Content", range.clone()),
            None => ("200 OK", 0..size),
        };
        file.seek(SeekFrom::Start(range.start))?;
        let bytes = range.end - range.start;
        let mut head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {bytes}\r\nETag: \"{size:x}\"\r\nAccept-Ranges: bytes\r\n\
             Last-Modified: Fri, 20 Nov 2026 12:00:00 GMT\r\nContent-Type: application/octet-stream\r\n"
        );
        if asked.is_some() {
            head += &format!("Content-Range: bytes {}-{}/{size}\r\n", range.start, range.end - 1);
        }
        head += "\r\n";
        Ok(Some((head.into_bytes(), file, bytes)))
    }

    /// Passes a body on, and says how long it was. An answer without a length ends with its connection.
    fn body(&self, head: &Head, request: bool, from: &mut impl BufRead, to: &mut impl Write) -> Result<u64> {
        if head.is_chunked() {
            let mut total = 0;
            loop {
                let mut line = Vec::new();
                from.read_until(b'\n', &mut line)?;
                to.write_all(&line)?;
                let size = std::str::from_utf8(&line).unwrap_or_default().trim();
                let size = u64::from_str_radix(size.split(';').next().unwrap_or_default(), 16);
                let size = size.map_err(Error::other)?;
                // The last one is empty, and what follows each is an empty line.
                self.carry(size, from, to)?;
                let mut end = Vec::new();
                from.read_until(b'\n', &mut end)?;
                to.write_all(&end)?;
                total += size;
                if size == 0 {
                    return Ok(total);
                }
            }
        }
        match head.length() {
            Some(length) => self.carry(length, from, to),
            None if request => Ok(0),
            None => self.carry(u64::MAX, from, to),
        }
    }

    /// Carries up to `bytes` bytes at the line's rate.
    fn carry(&self, bytes: u64, from: &mut impl Read, to: &mut impl Write) -> Result<u64> {
        let mut buffer = vec![0; 64 << 10];
        let mut left = bytes;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = from.read(&mut buffer[..most])?;
            if count == 0 {
                break;
            }
            let done = {
                let mut busy_until = self.busy_until.lock().expect("no holder panics");
                let begin = (*busy_until).max(Instant::now());
                *busy_until = begin + Duration::from_secs_f64(count as f64 / self.bytes_per_second);
                *busy_until
            };
            // The kernel sleeps no shorter than this.
            if let Some(ahead) = done.checked_duration_since(Instant::now() + Duration::from_micros(500)) {
                std::thread::sleep(ahead);
            }
            to.write_all(&buffer[..count])?;
            left -= count as u64;
        }
        to.flush()?;
        Ok(bytes - left)
    }

    /// Answers with the counts since the last time, as JSON.
    fn tell(&self, to: &mut impl Write) -> Result<()> {
        let counts = std::mem::take(&mut *self.counts.lock().expect("no holder panics"));
        let methods: Vec<String> = counts
            .iter()
            .map(|(method, count)| {
                let Count { requests, bytes_up, bytes_down } = count;
                format!(r#""{method}":{{"requests":{requests},"bytes_up":{bytes_up},"bytes_down":{bytes_down}}}"#)
            })
            .collect();
        let body = format!("{{{}}}\n", methods.join(","));
        write!(to, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }
}
