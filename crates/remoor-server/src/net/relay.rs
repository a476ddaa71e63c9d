//! A connection that a relay made for a client, which the relay names first: who the calls are from.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, OnceLock};

use ipnet::IpNet;

use super::locked;
use super::proxy::{NoHeader, Parsed, Tlv, parse};

/// What is known of the client behind a relay's connection.
#[derive(Default)]
pub(crate) struct Relay {
    /// The header as far as it has come; empty again when it was read.
    header: Mutex<Vec<u8>>,
    /// Set when the header was read.
    client: OnceLock<Option<SocketAddr>>,
}

impl Relay {
    /// The relay at the other end, if the peer is one of those that must name their clients.
    pub(super) fn of(peer: SocketAddr, relays: &[IpNet]) -> Option<Self> {
        let ip: IpAddr = peer.ip().to_canonical();
        relays.iter().any(|net| net.contains(&ip)).then(Self::default)
    }

    /// Whom the relay named; `None` if nobody, or not yet.
    pub(crate) fn client(&self) -> Option<SocketAddr> {
        self.client.get().copied().flatten()
    }

    /// Whether the header was read.
    pub(crate) fn has_spoken(&self) -> bool {
        self.client.get().is_some()
    }

    /// Whether the stream stands in the middle of the header.
    pub(super) fn is_midway(&self) -> bool {
        !locked(&self.header).is_empty()
    }

    /// Takes the header off what was received; what follows it is the client's, and put into `rest`. `None` is as it was
    /// received.
    pub(crate) fn strip(&self, peer: SocketAddr, input: &[u8]) -> Result<Option<Vec<u8>>, NoHeader> {
        if self.has_spoken() {
            return Ok(None);
        }
        let mut header = locked(&self.header);
        header.extend_from_slice(input);
        let parsed = match parse(&header) {
            Err(NoHeader::NeedMore) => return Ok(Some(Vec::new())),
            parsed => parsed?,
        };
        told(peer, &parsed);
        let rest = header.split_off(parsed.consumed);
        *header = Vec::new();
        let _ = self.client.set(parsed.source);
        Ok(Some(rest))
    }
}

fn told(peer: SocketAddr, parsed: &Parsed) {
    let remarks: Vec<String> = parsed
        .tlvs
        .iter()
        .map(|Tlv { kind, value }| format!("{kind:#04x} ({} bytes)", value.len()))
        .collect();
    match parsed.source {
        Some(client) => tracing::debug!(relay = %peer, %client, "relayed; remarks: [{}]", remarks.join(", ")),
        None => tracing::debug!(relay = %peer, "the relay's own connection: only NULL is answered"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc0\0\x02\x01\x03\x20\x08\x01";

    fn peer() -> SocketAddr {
        "192.0.2.1:4000".parse().unwrap()
    }

    #[test]
    fn listed_peers_are_relays_whatever_their_address_is_written_as() {
        let relays = ["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        for (peer, is_relay) in [
            ("192.0.2.9:1", true),
            ("[::ffff:192.0.2.9]:1", true),
            ("[2001:db8::1]:1", true),
            ("192.0.3.1:1", false),
        ] {
            assert_eq!(Relay::of(peer.parse().unwrap(), &relays).is_some(), is_relay, "{peer}");
        }
        assert!(Relay::of(peer(), &[]).is_none());
    }

    #[test]
    fn the_header_is_taken_off_once_however_it_is_cut() {
        let bytes = [HEADER, b"call"].concat();
        for cut in 1..bytes.len() {
            let relay = Relay::default();
            let (first, second) = bytes.split_at(cut);
            let mut seen = relay.strip(peer(), first).unwrap().unwrap();
            assert_eq!(relay.is_midway(), cut < HEADER.len());
            seen.extend(relay.strip(peer(), second).unwrap().unwrap_or(second.to_vec()));
            assert_eq!(seen, b"call", "cut at {cut}");
            assert_eq!(relay.client(), Some("192.0.2.7:800".parse().unwrap()));
            assert_eq!(relay.strip(peer(), HEADER), Ok(None), "a second one is the client's own bytes");
        }
    }

    #[test]
    fn a_relay_that_names_nobody_at_all_is_refused() {
        assert_eq!(Relay::default().strip(peer(), b"\x80\0\0\x28"), Err(NoHeader::Missing));
    }
}
