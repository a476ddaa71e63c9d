//! Where a server can be looked at, as options.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use remoor_server::Builder;

use crate::{Failure, control};

/// Control socket, metrics, health.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Watching")]
pub(super) struct WatchArgs {
    /// Socket for remoor status and remoor exportfs, or "none" [default: /run/remoor/NODE.sock as root,
    /// else $XDG_RUNTIME_DIR/remoor/NODE.sock or, without that, ~/.local/state/remoor/NODE.sock]
    #[arg(long, value_name = "PATH|none")]
    control: Option<PathBuf>,
    /// Tell /metrics (Prometheus) and /health over HTTP there; a port alone is one of loopback; may be repeated
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = address)]
    metrics: Vec<SocketAddr>,
    /// Tell only /health over HTTP there, for the probes of a balancer: 200, or 503 while an exported file system
    /// does not answer or the server stops; may be repeated
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = address)]
    health: Vec<SocketAddr>,
    /// Seconds that an exported file system may be silent before the server is not healthy
    #[arg(long, value_name = "SECS", default_value_t = 3.0, value_parser = seconds)]
    health_limit: f64,
}

impl WatchArgs {
    pub(super) fn apply(&self, mut server: Builder, node: Option<&str>) -> Result<Builder, Failure> {
        server = match &self.control {
            Some(path) if path.as_os_str() == "none" => server,
            Some(path) => server.control(path, true),
            None => server.control(control::default_socket(node)?, false),
        };
        for address in &self.metrics {
            server = server.metrics(*address);
        }
        for address in &self.health {
            server = server.health(*address);
        }
        Ok(server.health_limit(Duration::from_secs_f64(self.health_limit)))
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().map_err(|_| "write PORT, ADDR:PORT or [ADDR]:PORT, as in 9464 or 0.0.0.0:9464".to_owned())
}

/// Between what a probe can see and what a balancer would wait for.
fn seconds(text: &str) -> Result<f64, String> {
    let secs: f64 = text.parse().map_err(|_| "write a number of seconds, as in 2.5".to_owned())?;
    if (0.1..=3600.0).contains(&secs) { Ok(secs) } else { Err("from 0.1 to 3600 seconds".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_one_of_loopback() {
        assert_eq!(address("9464"), Ok("127.0.0.1:9464".parse().unwrap()));
        assert_eq!(address("0.0.0.0:9464"), Ok("0.0.0.0:9464".parse().unwrap()));
        assert_eq!(address("[::1]:9464"), Ok("[::1]:9464".parse().unwrap()));
        assert!(address("localhost:9464").unwrap_err().contains("as in 9464"));
        assert_eq!((seconds("2.5"), seconds("NaN").is_err(), seconds("0").is_err()), (Ok(2.5), true, true));
    }
}
