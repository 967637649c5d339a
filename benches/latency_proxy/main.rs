//! Puts a journey of 30 ms and a line of 200 MB/s between a client and an HTTP server, for measurements.
//!
//! `cargo bench --bench latency_proxy -- LISTEN SERVER [MILLISECONDS [MEGABYTES_PER_SECOND [FILES]]]`, both places as
//! `host:port`; FILES is the directory in which the server keeps its objects, if their GETs are to be answered from there.
//! `curl http://LISTEN/-/take` says how many requests and bytes have passed since the last time, by method.

mod proxy;

use std::time::Duration;

fn main() {
    // Cargo says what it runs.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [listen, server, rest @ ..] = arguments.as_slice() else {
        eprintln!("usage: latency_proxy LISTEN SERVER [MILLISECONDS [MEGABYTES_PER_SECOND [FILES]]]");
        std::process::exit(2);
    };
    let number = |at: usize, default: u64| {
        rest.get(at).map_or(default, |text| text.parse().expect("a whole number of milliseconds or megabytes"))
    };
    let (journey, rate) = (Duration::from_millis(number(0, 30)), number(1, 200) * 1_000_000);
    let proxy = proxy::LatencyProxy::start(listen, server, rest.get(2).map(Into::into), journey, rate).expect("listen");
    println!("listening on {}", proxy.address());
    loop {
        std::thread::park();
    }
}
