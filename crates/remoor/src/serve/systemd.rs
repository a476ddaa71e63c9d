//! A server that systemd starts: sockets it hands over (sd_listen_fds(3)), and what it wants to hear (sd_notify(3)).
//! Without systemd none of this does anything.

use std::net::TcpListener;

use anyhow::anyhow;
use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::Failure;

/// The listening TCP sockets that were handed over. To be called once, before there are threads: the variables that tell
/// of them are removed.
pub(super) fn listeners() -> Result<Vec<TcpListener>, Failure> {
    let mut handed = ListenFd::from_env();
    let count = handed.len();
    let take = |n| {
        let taken = handed.take_tcp_listener(n);
        let wrong = |e| {
            anyhow!(
                "cannot use socket {} of those that systemd hands over: {e}; let the unit have ListenStream=ADDRESS:PORT only",
                n + 1
            )
        };
        taken.map_err(|e| Failure::Usage(wrong(e)))
    };
    (0..count).map(take).filter_map(Result::transpose).collect()
}

/// The server serves.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The server reads its exports again; [`ready`] follows. systemd wants to know since when.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(e) => tracing::warn!("systemd does not hear that exports are read again: no clock: {e}"),
    }
}

/// The server ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        tracing::warn!("systemd does not hear of this server (NOTIFY_SOCKET): {e}");
    }
}
