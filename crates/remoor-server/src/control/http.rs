//! `/metrics` and `/health` over HTTP/1.1: GET and HEAD, one request a connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Desk, Door, Pages};
use crate::metrics::CONTENT_TYPE;

/// Longest head of a request, in bytes.
const MAX_HEAD: usize = 8 << 10;
/// How long a visitor may take for its request, and again for the response.
const PATIENCE: Duration = Duration::from_secs(2);

/// A response without its head.
struct Response {
    status: &'static str,
    content_type: &'static str,
    body: String,
}

/// Tells `pages` at `address`.
pub(super) fn serve(address: SocketAddr, pages: Pages, desk: Arc<Desk>) -> io::Result<Door> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let mut door = Door::open("http", listener, move |stream| {
        if let Err(e) = visit(stream, pages, &desk) {
            tracing::debug!("HTTP connection ended: {e}");
        }
    })?;
    door.address = Some(address);
    Ok(door)
}

fn visit(mut stream: TcpStream, pages: Pages, desk: &Desk) -> io::Result<()> {
    let head = read_head(&mut stream)?;
    let (response, with_body) = respond(&head, pages, desk);
    let Response { status, content_type, body } = response;
    let mut out = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    if with_body {
        out += &body;
    }
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(out.as_bytes())
}

/// What comes before the empty line; too long a head is cut, which leaves no request.
fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let (mut head, mut chunk) = (Vec::new(), [0; 1024]);
    while head.len() <= MAX_HEAD {
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            head.truncate(end);
            return Ok(head);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => head.extend_from_slice(&chunk[..n]),
        }
    }
    Ok(Vec::new())
}

/// The response, and whether its body is wanted.
fn respond(head: &[u8], pages: Pages, desk: &Desk) -> (Response, bool) {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = words[..] else { return (text("400 Bad Request", "bad request"), true) };
    if !version.starts_with("HTTP/1.") {
        return (text("400 Bad Request", "bad request"), true);
    }
    if !["GET", "HEAD"].contains(&method) {
        return (text("405 Method Not Allowed", "only GET and HEAD"), true);
    }
    let path = target.split('?').next().unwrap_or_default();
    let response = match (path, pages) {
        ("/health", _) => health(desk),
        ("/metrics", Pages::All) => {
            Response { status: "200 OK", content_type: CONTENT_TYPE, body: desk.metrics() }
        }
        _ => text("404 Not Found", "there is /health, and /metrics where --metrics says so"),
    };
    (response, method == "GET")
}

fn health(desk: &Desk) -> Response {
    let health = desk.health();
    let status = if health.healthy { "200 OK" } else { "503 Service Unavailable" };
    let body = serde_json::to_string(&health).unwrap_or_default() + "\n";
    Response { status, content_type: "application/json", body }
}

fn text(status: &'static str, text: &str) -> Response {
    Response { status, content_type: "text/plain; charset=utf-8", body: format!("{text}\n") }
}
