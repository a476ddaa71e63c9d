//! Answers what is asked of a running mount: from memory, on threads of their own, so that it answers while the server
//! hangs.

use std::net::SocketAddr;
use std::sync::Arc;

use remoor_control::Door;
use remoor_control::http::{self, Page};
use remoor_control::prometheus::CONTENT_TYPE;
use remoor_mount::control::{self, Answer, Request};
use remoor_mount::mounting::Handle;
use remoor_mount::status;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::exit::{self, Failed};
use super::log::Filter;

/// Everything that answers are made of.
pub(super) struct Desk {
    mount: Handle,
    filter: Filter,
    unmount: Sender<()>,
}

/// What was asked for that the serving task has to do.
pub(super) struct Wishes(Receiver<()>);

impl Wishes {
    /// When the mount is to be unmounted.
    pub(super) async fn unmount(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

impl Desk {
    pub(super) fn new(mount: Handle, filter: Filter) -> (Self, Wishes) {
        let (unmount, wishes) = channel(1);
        (Self { mount, filter, unmount }, Wishes(wishes))
    }
}

impl control::Desk for Desk {
    fn answer(&self, request: &Request) -> Answer {
        match request {
            Request::Status => Answer::Status(Box::new(self.mount.status())),
            Request::Metrics => Answer::Metrics(status::metrics(&self.mount.status())),
            Request::Remount { options, sloppy } => match self.mount.remount(options, *sloppy) {
                Ok(changes) => {
                    tracing::info!("remounted: {}", changes.summary());
                    Answer::Remounted(changes)
                }
                Err(error) => Answer::Error { usage: true, message: error.to_string() },
            },
            Request::Unmount => {
                // A wish that is there already is as good.
                let _ = self.unmount.try_send(());
                Answer::Done
            }
            Request::LogLevel { filter } => match self.filter.set(filter) {
                Ok(()) => Answer::Done,
                Err(why) => Answer::Error {
                    usage: true,
                    message: format!(
                        "{filter:?} is no filter of RUST_LOG: {why}; write info or remoor_client=debug"
                    ),
                },
            },
        }
    }
}

/// Tells `/metrics` at `address`.
pub(super) fn metrics(address: SocketAddr, desk: Arc<Desk>) -> Result<Door, Failed> {
    let page = move |path: &str| {
        let body = || status::metrics(&desk.mount.status());
        (path == "/metrics").then(|| Page { status: "200 OK", content_type: CONTENT_TYPE, body: body() })
    };
    http::serve(address, "there is /metrics", page).map_err(|e| {
        Failed::new(
            exit::USAGE,
            format!("cannot tell metrics over HTTP at {address}: {e}; choose another address"),
        )
    })
}
