//! `/metrics` and `/health` over HTTP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use remoor_control::Door;
use remoor_control::http::{self, Page};
use remoor_control::prometheus::CONTENT_TYPE;

use super::{Desk, Pages};

/// Tells `pages` at `address`.
pub(super) fn serve(address: SocketAddr, pages: Pages, desk: Arc<Desk>) -> io::Result<Door> {
    let what = "there is /health, and /metrics where --metrics says so";
    http::serve(address, what, move |path| page(path, pages, &desk))
}

fn page(path: &str, pages: Pages, desk: &Desk) -> Option<Page> {
    match (path, pages) {
        ("/health", _) => Some(health(desk)),
        ("/metrics", Pages::All) => {
            Some(Page { status: "200 OK", content_type: CONTENT_TYPE, body: desk.metrics() })
        }
        _ => None,
    }
}

fn health(desk: &Desk) -> Page {
    let health = desk.health();
    let status = if health.healthy { "200 OK" } else { "503 Service Unavailable" };
    let body = serde_json::to_string(&health).unwrap_or_default() + "\n";
    Page { status, content_type: "application/json", body }
}
