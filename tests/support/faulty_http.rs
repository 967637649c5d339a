//! An HTTP proxy before an S3 server that does what networks, load balancers and overloaded servers do.
//!
//! A plan says of each request what becomes of it; without one, all pass. The proxy counts requests, and those that came
//! although it had asked to be left alone. It speaks HTTP/1.1 without encryption to its clients, and holds whole bodies in memory.
//! Include it with `#[path = "../support/faulty_http.rs"] mod faulty_http;`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// It gets no answer, and does not reach the server.
    Silence,
    /// It is done, and gets no answer.
    Mute,
    /// The connection breaks before the server has the request.
    Reset,
    /// The connection breaks when it is done.
    Lost,
    /// 429 or 503, and the wish to be left alone for a second.
    Busy,
    /// The same for ten minutes.
    VeryBusy,
    /// 503, and no such wish.
    SlowDown,
    /// 500.
    Broken,
    /// 200, with an error for a body.
    ErrorPage,
    /// Half a body, and the connection breaks.
    Half,
    /// Half a body that ends as if it were whole: without a length, with the connection.
    Short,
    /// A byte each second.
    Trickle,
    /// Another range than the one that was asked for.
    WrongRange,
    /// All of the object, where a range of it was asked for.
    Whole,
    /// A listing without the newest entries.
    Stale,
    /// A listing that has each entry twice.
    Doubled,
    /// A listing whose page comes a second time as the next one.
    Again,
    /// 403, since a token has expired.
    Expired,
}

impl Fault {
    pub(crate) const ALL: [Fault; 18] = [
        Fault::Silence,
        Fault::Mute,
        Fault::Reset,
        Fault::Lost,
        Fault::Busy,
        Fault::VeryBusy,
        Fault::SlowDown,
        Fault::Broken,
        Fault::ErrorPage,
        Fault::Half,
        Fault::Short,
        Fault::Trickle,
        Fault::WrongRange,
        Fault::Whole,
        Fault::Stale,
        Fault::Doubled,
        Fault::Again,
        Fault::Expired,
    ];
}

/// A request that has come.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With everything behind it.
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    /// How many requests came before, since the plan was made.
    pub(crate) number: u64,
    /// How many of them were the same.
    pub(crate) same: u64,
}

impl Asked {
    pub(crate) fn is_listing(&self) -> bool {
        self.method == "GET" && self.path.contains("list-type=2")
    }

    /// Whether `fault` can happen to it.
    pub(crate) fn suffers(&self, fault: Fault) -> bool {
        match fault {
            Fault::Silence | Fault::Mute | Fault::Reset | Fault::Lost | Fault::Expired => true,
            Fault::Busy | Fault::VeryBusy | Fault::SlowDown | Fault::Broken | Fault::ErrorPage => true,
            Fault::Half | Fault::Short | Fault::Trickle => self.method == "GET",
            Fault::WrongRange | Fault::Whole => self.range.is_some(),
            Fault::Stale | Fault::Doubled => self.is_listing(),
            // Once more, and not for ever.
            Fault::Again => self.is_listing() && !self.path.contains(NEXT_PAGE),
        }
    }
}

type Plan = dyn Fn(&Asked) -> Option<Fault> + Send + Sync;

/// The proxy; it ends when it is dropped.
pub(crate) struct FaultyHttp {
    address: SocketAddr,
    line: Arc<Line>,
}

struct Line {
    server: String,
    closing: AtomicBool,
    /// Bytes of a body that a connection takes in a second; none where it takes what comes.
    rate: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    plan: Option<Arc<Plan>>,
    requests: u64,
    same: BTreeMap<String, u64>,
    injected: BTreeMap<Fault, u64>,
    /// When it wanted to be left alone.
    respites: Vec<(Instant, Instant)>,
    early: Vec<String>,
}

/// For so long after such a wish requests may come that had left before it arrived.
const ON_THEIR_WAY: Duration = Duration::from_millis(400);
/// How often a connection that waits looks whether it should end.
const LOOK: Duration = Duration::from_millis(100);
const NEXT_PAGE: &str = "continuation-token=the-same-page";

impl FaultyHttp {
    /// Before `endpoint`, `http://host:port`.
    pub(crate) fn start(endpoint: &str) -> FaultyHttp {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = endpoint.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
        let line = Arc::new(Line {
            server,
            closing: AtomicBool::new(false),
            rate: AtomicU64::new(0),
            state: Mutex::default(),
        });
        let proxy = FaultyHttp { address: listener.local_addr().unwrap(), line: Arc::clone(&line) };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if line.closing.load(Ordering::SeqCst) {
                    return;
                }
                let line = Arc::clone(&line);
                // A connection that breaks is its two ends' matter.
                std::thread::spawn(move || drop(line.serve(&client)));
            }
        });
        proxy
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, this becomes of requests; the counts begin anew.
    pub(crate) fn plan(&self, plan: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) {
        *self.line.state.lock().unwrap() = State { plan: Some(Arc::new(plan)), ..State::default() };
    }

    /// From now on, all pass; the counts stay.
    pub(crate) fn clear(&self) {
        self.line.state.lock().unwrap().plan = None;
    }

    /// From now on, each connection takes so many bytes in a second.
    pub(crate) fn throttle(&self, bytes_per_second: u64) {
        self.line.rate.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Requests that came.
    pub(crate) fn requests(&self) -> u64 {
        self.line.state.lock().unwrap().requests
    }

    /// How often each fault happened.
    pub(crate) fn injected(&self) -> BTreeMap<Fault, u64> {
        self.line.state.lock().unwrap().injected.clone()
    }

    /// Requests that came though it had asked to be left alone.
    pub(crate) fn early(&self) -> Vec<String> {
        self.line.state.lock().unwrap().early.clone()
    }
}

impl Drop for FaultyHttp {
    fn drop(&mut self) {
        self.line.closing.store(true, Ordering::SeqCst);
        // Wakes whoever accepts connections.
        drop(TcpStream::connect(self.address));
    }
}

/// The first line, the header fields and the body of a request or an answer.
struct Message {
    first: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Message {
    /// All but the body; none where the other side has closed the connection.
    fn head(from: &mut impl BufRead) -> Result<Option<Message>> {
        let mut first = String::new();
        if from.read_line(&mut first)? == 0 {
            return Ok(None);
        }
        let mut fields = Vec::new();
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => fields.push((name.to_ascii_lowercase(), value.trim().to_owned())),
                None if line.trim_end().is_empty() && !line.is_empty() => break,
                None => return Err(ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(Some(Message { first: first.trim_end().to_owned(), fields, body: Vec::new() }))
    }

    fn answer(status: &str, fields: &[(&str, &str)], body: &str) -> Message {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Message { first: format!("HTTP/1.1 {status}"), fields, body: body.as_bytes().to_vec() }
    }

    fn error(status: &str, fields: &[(&str, &str)], code: &str) -> Message {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>By the plan of a test.\
             </Message><RequestId>1</RequestId></Error>"
        );
        Message::answer(status, &[&[("content-type", "application/xml")], fields].concat(), &body)
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    fn without(&mut self, names: &[&str]) {
        self.fields.retain(|(name, _)| !names.contains(&name.as_str()));
    }

    fn word(&self, index: usize) -> &str {
        self.first.split_whitespace().nth(index).unwrap_or_default()
    }

    /// Reads the body that the head announces; of an answer without a length, all that comes.
    fn read_body(&mut self, from: &mut impl BufRead, to_end: bool) -> Result<()> {
        if self.field("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            loop {
                let mut line = String::new();
                from.read_line(&mut line)?;
                let size = u64::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16);
                let size = size.map_err(Error::other)?;
                from.take(size).read_to_end(&mut self.body)?;
                from.read_line(&mut line)?;
                if size == 0 {
                    return Ok(());
                }
            }
        }
        match self.field("content-length").and_then(|length| length.parse::<u64>().ok()) {
            Some(length) if from.take(length).read_to_end(&mut self.body)? as u64 != length => {
                Err(ErrorKind::UnexpectedEof.into())
            }
            None if to_end => from.read_to_end(&mut self.body).map(drop),
            Some(_) | None => Ok(()),
        }
    }

    /// The head, with `length` as the body's, or none.
    fn head_bytes(&self, length: Option<u64>) -> Vec<u8> {
        let mut head = format!("{}\r\n", self.first);
        for (name, value) in &self.fields {
            if !["content-length", "transfer-encoding", "connection"].contains(&name.as_str()) {
                head += &format!("{name}: {value}\r\n");
            }
        }
        head += &match length {
            Some(length) => format!("content-length: {length}\r\n\r\n"),
            None => "connection: close\r\n\r\n".to_owned(),
        };
        head.into_bytes()
    }
}

/// Gives no more bytes in a second.
struct Throttled<'r, R> {
    from: &'r mut R,
    rate: u64,
}

impl<R: BufRead> Read for Throttled<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> Result<usize> {
        let piece = to.len().min(1 << 16);
        let read = self.from.read(&mut to[..piece])?;
        std::thread::sleep(Duration::from_secs_f64(read as f64 / self.rate as f64));
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Throttled<'_, R> {
    fn fill_buf(&mut self) -> Result<&[u8]> {
        self.from.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.from.consume(bytes);
    }
}

impl Line {
    fn serve(&self, client: &TcpStream) -> Result<()> {
        client.set_nodelay(true)?;
        let mut from_client = BufReader::with_capacity(1 << 16, client.try_clone()?);
        let mut to_client = client.try_clone()?;
        while let Some(mut request) = Message::head(&mut from_client)? {
            let asked = self.asked(&request);
            let fault = self.fault(&asked);
            if fault == Some(Fault::Reset) {
                // Where a body is under way, the kernel resets what is closed with that unread.
                return client.shutdown(Shutdown::Both);
            }
            if request.field("expect").is_some() {
                to_client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            match self.rate.load(Ordering::SeqCst) {
                0 => request.read_body(&mut from_client, false)?,
                rate => request.read_body(&mut Throttled { from: &mut from_client, rate }, false)?,
            }
            let own = match fault {
                Some(Fault::Silence) => return self.hang(client),
                Some(Fault::Busy) => Some(self.busy(asked.number, 1)),
                Some(Fault::VeryBusy) => Some(self.busy(asked.number, 600)),
                Some(Fault::SlowDown) => Some(Message::error("503 Slow Down", &[], "SlowDown")),
                Some(Fault::Broken) => Some(Message::error("500 Internal Server Error", &[], "InternalError")),
                Some(Fault::ErrorPage) => {
                    let code = ["InternalError", "SlowDown", "ServiceUnavailable"][asked.number as usize % 3];
                    Some(Message::error("200 OK", &[], code))
                }
                Some(Fault::Expired) => Some(Message::error("403 Forbidden", &[], "ExpiredToken")),
                _ => None,
            };
            let is_head = asked.method == "HEAD";
            if let Some(own) = own {
                to_client.write_all(&own.head_bytes(Some(if is_head { 0 } else { own.body.len() as u64 })))?;
                to_client.write_all(if is_head { &[] } else { &own.body })?;
                continue;
            }
            if fault == Some(Fault::Whole) {
                request.without(&["range"]);
            }
            if let (Some(Fault::WrongRange), Some(range)) = (fault, &asked.range) {
                let other = if range == "bytes=0-0" { "bytes=1-1" } else { "bytes=0-0" };
                request.fields.iter_mut().filter(|(name, _)| name == "range").for_each(|(_, r)| *r = other.to_owned());
            }
            let mut answer = self.forward(&request, is_head)?;
            match fault {
                Some(Fault::Mute) => return self.hang(client),
                Some(Fault::Lost) => return client.shutdown(Shutdown::Both),
                Some(Fault::Stale | Fault::Doubled | Fault::Again) if answer.word(1) == "200" => {
                    answer.body = listing(&String::from_utf8_lossy(&answer.body), fault).into_bytes();
                }
                _ => {}
            }
            let length = match is_head {
                true => answer.field("content-length").and_then(|length| length.parse().ok()),
                false => Some(answer.body.len() as u64),
            };
            let body = &answer.body[..];
            match fault {
                Some(Fault::Half) => {
                    to_client.write_all(&answer.head_bytes(length))?;
                    to_client.write_all(&body[..body.len() / 2])?;
                    return client.shutdown(Shutdown::Both);
                }
                Some(Fault::Short) => {
                    to_client.write_all(&answer.head_bytes(None))?;
                    to_client.write_all(&body[..body.len() / 2])?;
                    return client.shutdown(Shutdown::Both);
                }
                Some(Fault::Trickle) => {
                    to_client.write_all(&answer.head_bytes(length))?;
                    for byte in body {
                        to_client.write_all(&[*byte])?;
                        self.wait(client, Duration::from_secs(1))?;
                    }
                }
                _ => {
                    to_client.write_all(&answer.head_bytes(Some(length.unwrap_or(0))))?;
                    to_client.write_all(body)?;
                }
            }
        }
        Ok(())
    }

    fn asked(&self, request: &Message) -> Asked {
        let (method, path) = (request.word(0).to_owned(), request.word(1).to_owned());
        let range = request.field("range").map(str::to_owned);
        let mut state = self.state.lock().unwrap();
        let number = state.requests;
        state.requests += 1;
        let same = state.same.entry(format!("{method} {path} {range:?}")).or_default();
        *same += 1;
        let asked = Asked { method, path, range, number, same: *same - 1 };
        let now = Instant::now();
        if state.respites.iter().any(|(begin, end)| *begin <= now && now < *end) {
            state.early.push(format!("{asked:?}"));
        }
        asked
    }

    fn fault(&self, asked: &Asked) -> Option<Fault> {
        let plan = self.state.lock().unwrap().plan.clone()?;
        let fault = plan(asked).filter(|fault| asked.suffers(*fault))?;
        *self.state.lock().unwrap().injected.entry(fault).or_default() += 1;
        Some(fault)
    }

    /// 429 or 503, and the wish to be left alone, in each form that it has.
    fn busy(&self, number: u64, seconds: u32) -> Message {
        let now = Instant::now();
        let end = now + Duration::from_secs(seconds.into()) - Duration::from_millis(20);
        self.state.lock().unwrap().respites.push((now + ON_THEIR_WAY, end));
        let status = if number.is_multiple_of(2) { "503 Slow Down" } else { "429 Too Many Requests" };
        let date = |seconds: u32| format!("Sun, 06 Nov 1994 08:{:02}:{:02} GMT", seconds / 60, seconds % 60);
        let fields = match number % 4 {
            0 | 1 => vec![("retry-after", seconds.to_string())],
            _ => vec![("date", date(7)), ("retry-after", date(7 + seconds))],
        };
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Message::error(status, &fields, "SlowDown")
    }

    fn forward(&self, request: &Message, is_head: bool) -> Result<Message> {
        let server = TcpStream::connect(&self.server)?;
        server.set_nodelay(true)?;
        let mut head = Message { first: request.first.clone(), fields: request.fields.clone(), body: Vec::new() };
        head.first = head.first.replace(&format!("&{NEXT_PAGE}"), "").replace(&format!("{NEXT_PAGE}&"), "");

        (&server).write_all(&head.head_bytes(Some(request.body.len() as u64)))?;
        (&server).write_all(&request.body)?;
        let mut from_server = BufReader::new(server);
        let mut answer = Message::head(&mut from_server)?.ok_or(ErrorKind::UnexpectedEof)?;
        if !is_head && !matches!(answer.word(1), "204" | "304") {
            answer.read_body(&mut from_server, true)?;
        }
        Ok(answer)
    }

    /// Until the client gives up.
    fn hang(&self, client: &TcpStream) -> Result<()> {
        loop {
            self.wait(client, Duration::from_secs(3600))?;
        }
    }

    /// For so long, unless the client gives up or the proxy ends.
    fn wait(&self, client: &TcpStream, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            client.set_read_timeout(Some(left.min(LOOK)))?;
            match client.peek(&mut [0]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                // It asks for something else meanwhile, which comes after.
                Ok(_) => return Err(ErrorKind::InvalidData.into()),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
            if self.closing.load(Ordering::SeqCst) {
                return Err(ErrorKind::Interrupted.into());
            }
        }
        client.set_read_timeout(None)
    }
}

/// A listing as `fault` makes it.
fn listing(page: &str, fault: Option<Fault>) -> String {
    const END: &str = "</Contents>";
    let Some(begin) = page.find("<Contents>") else { return page.to_owned() };
    let end = page.rfind(END).unwrap() + END.len();
    let mut entries: Vec<&str> = page[begin..end].split_inclusive(END).collect();
    match fault {
        Some(Fault::Stale) => {
            let time = |entry: &str| entry.split("<LastModified>").nth(1).unwrap_or_default()[..24].to_owned();
            let mut times: Vec<String> = entries.iter().map(|entry| time(entry)).collect();
            times.sort_unstable();
            // A half of them, and one at least.
            let first_missing = times[times.len() / 2].clone();
            entries.retain(|entry| time(entry) < first_missing);
        }
        Some(Fault::Doubled) => entries = entries.iter().flat_map(|entry| [*entry, *entry]).collect(),
        _ => {}
    }
    let mut changed = format!("{}{}{}", &page[..begin], entries.concat(), &page[end..]);
    if fault == Some(Fault::Again) && page.contains("<IsTruncated>false</IsTruncated>") {
        let token = NEXT_PAGE.rsplit('=').next().unwrap();
        let next = format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>");
        changed = changed.replace("<IsTruncated>false</IsTruncated>", &next);
    }
    changed
}
