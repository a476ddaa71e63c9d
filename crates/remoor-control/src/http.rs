//! Pages over HTTP/1.1: GET and HEAD, one request a connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::Door;

/// Longest head of a request, in bytes.
const MAX_HEAD: usize = 8 << 10;
/// How long a visitor may take for its request, and again for the response.
const PATIENCE: Duration = Duration::from_secs(2);

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Status code and phrase, as in `200 OK`.
    pub status: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// Its text.
    pub body: String,
}

/// Shows what `page` has for a path at `address`, on threads of its own; where it has nothing, `what` is there.
pub fn serve(
    address: SocketAddr,
    what: &'static str,
    page: impl Fn(&str) -> Option<Page> + Send + Sync + 'static,
) -> io::Result<Door> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let mut door = Door::open("http", listener, move |stream| {
        if let Err(e) = visit(stream, what, &page) {
            tracing::debug!("HTTP connection ended: {e}");
        }
    })?;
    door.address = Some(address);
    Ok(door)
}

fn visit(mut stream: TcpStream, what: &str, page: impl Fn(&str) -> Option<Page>) -> io::Result<()> {
    let head = read_head(&mut stream)?;
    let (response, with_body) = respond(&head, what, page);
    let Page { status, content_type, body } = response;
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
fn respond(head: &[u8], what: &str, page: impl Fn(&str) -> Option<Page>) -> (Page, bool) {
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
    (page(path).unwrap_or_else(|| text("404 Not Found", what)), method == "GET")
}

fn text(status: &'static str, text: &str) -> Page {
    Page { status, content_type: "text/plain; charset=utf-8", body: format!("{text}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is answered to a request, as it is on the wire.
    fn answer(request: &str) -> String {
        let page = |path: &str| {
            (path == "/x").then(|| Page { status: "200 OK", content_type: "a/b", body: "it\n".to_owned() })
        };
        let door = serve(([127, 0, 0, 1], 0).into(), "there is /x", page).unwrap();
        let mut stream = TcpStream::connect(door.address.unwrap()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn pages_are_shown_and_others_are_not_there() {
        let page = answer("GET /x?y HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 3\r\n"), "{page}");
        assert!(page.ends_with("\r\n\r\nit\n"), "{page}");
        assert!(answer("HEAD /x HTTP/1.0\r\n\r\n").ends_with("\r\n\r\n"));
        let absent = answer("GET / HTTP/1.1\r\n\r\n");
        assert!(absent.starts_with("HTTP/1.1 404 ") && absent.ends_with("there is /x\n"), "{absent}");
        assert!(answer("POST /x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
        assert!(answer("nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    }
}
