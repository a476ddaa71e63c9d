//! Answers what is asked of a running server, wherever it is asked.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use remoor_nfs::replay;
use remoor_nfs::v3::WriteVerf;

use super::health::{self, Health};
use super::monitor::{LOOK_EVERY, Monitor};
use super::status::{self, ExportStatus, Status};
use super::{Answer, Request};
use crate::exporter::{ChangeError, Changes, Exporter};
use crate::exports::{Origin, ParseError};
use crate::metrics::{self, ExportFacts, Facts};
use crate::net::Census;
use crate::server::StartError;
use crate::state::State;
use crate::table::ServedExport;

/// Everything that answers are made of.
pub(crate) struct Desk {
    exporter: Arc<Exporter>,
    census: Box<dyn Fn() -> Census + Send + Sync>,
    replays: Box<dyn Fn() -> replay::Counters + Send + Sync>,
    listen: Vec<SocketAddr>,
    health_limit: Duration,
    monitor: Monitor,
}

impl Desk {
    /// Of a server that listens there; `census` counts its connections, `replays` what its reply cache did.
    pub(crate) fn new(
        exporter: Arc<Exporter>,
        census: Box<dyn Fn() -> Census + Send + Sync>,
        replays: Box<dyn Fn() -> replay::Counters + Send + Sync>,
        listen: Vec<SocketAddr>,
        health_limit: Duration,
    ) -> Self {
        Self { exporter, census, replays, listen, health_limit, monitor: Monitor::default() }
    }

    fn state(&self) -> &State {
        self.exporter.state()
    }

    /// Looks once a second, as long as `goes_on` says so.
    pub(crate) fn monitor(&self, goes_on: impl Fn() -> bool) {
        while goes_on() {
            let now = Instant::now();
            self.monitor.look(now, self.state().metrics.procedures.calls());
            self.monitor.tell(&self.health(), now);
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    /// Answers a request.
    pub(crate) fn answer(&self, request: &Request) -> Answer {
        match request {
            Request::Exports => Answer::Exports(self.exporter.list()),
            Request::Reload { how } => changed(self.exporter.reload(*how)),
            Request::Export { place, options } => changed(self.exporter.add(place, options)),
            Request::Unexport { place } => changed(self.exporter.remove(place)),
            Request::UnexportAll => changed(self.exporter.remove_all()),
            Request::Status => Answer::Status(Box::new(self.status())),
            Request::Metrics => Answer::Metrics(self.metrics()),
            Request::Health => Answer::Health(self.health()),
        }
    }

    /// Whether the server is well.
    pub(crate) fn health(&self) -> Health {
        Health::of(self.state(), self.health_limit)
    }

    /// In the text format of Prometheus.
    pub(crate) fn metrics(&self) -> String {
        let state = self.state();
        let table = state.table();
        let export = |export: &ServedExport| ExportFacts {
            path: export.shown(),
            calls: export.watch.calls.load(Relaxed),
            healthy: export.watch.is_well(self.health_limit),
        };
        metrics::render(&Facts {
            metrics: &state.metrics,
            connections: (self.census)().connections,
            port_refusals: state.port_refusals(),
            replays: (self.replays)(),
            exports: table.exports().iter().map(export).collect(),
            procedures: state.metrics.procedures.stats(),
        })
    }

    /// What the server does.
    pub(crate) fn status(&self) -> Status {
        let (state, census) = (self.state(), (self.census)());
        let uptime = state.metrics.began.elapsed();
        let calls = state.metrics.procedures.calls();
        let clients = state.metrics.clients.list();
        let mut procedures = state.metrics.procedures.stats();
        procedures.retain(|row| row.calls > 0);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node: self.exporter.node().to_owned(),
            listen: self.listen.clone(),
            uptime_secs: uptime.as_secs_f64(),
            write_verifier: hex(state.write_verf),
            stopping: state.is_stopping(),
            connections: census.connections,
            calls,
            calls_per_second: self.monitor.rate(Instant::now(), calls),
            port_refusals: state.port_refusals(),
            replays: (self.replays)().into(),
            clients: status::clients(&census.peers, &clients, &state.mounts(), uptime.as_millis() as u64),
            exports: self.exports(),
            procedures,
        }
    }

    fn exports(&self) -> Vec<ExportStatus> {
        let table = self.state().table();
        let mut by: HashMap<u64, HashSet<IpAddr>> = HashMap::new();
        for (client, path) in self.state().mounts() {
            let may_use = |export: &&ServedExport| export.is_for(client, self.state().names);
            if let Some(export) = table.above(&path).filter(may_use) {
                by.entry(export.id).or_default().insert(client);
            }
        }
        let of = |export: &ServedExport| {
            let path = export.shown();
            ExportStatus {
                clients: export.rules.iter().map(|rule| rule.client.to_string()).collect(),
                mounted_by: by.get(&export.id).map_or(0, HashSet::len),
                calls: export.watch.calls.load(Relaxed),
                write_verifier: hex(export.write_verf(self.state().write_verf, export.vfs.write_epoch())),
                unhealthy: health::reason(export.watch.health(self.health_limit)),
                path,
            }
        };
        let mut exports: Vec<ExportStatus> = table.exports().iter().map(of).collect();
        exports.sort_by(|a, b| a.path.cmp(&b.path));
        exports
    }
}

fn hex(verifier: WriteVerf) -> String {
    verifier.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn changed(result: Result<Changes, ChangeError>) -> Answer {
    match result {
        Ok(changes) => Answer::Changes(changes),
        Err(error) => {
            let message = match &error {
                ChangeError::Parse(ParseError { origin: Origin::File(..), .. }) => {
                    format!("exports stay as they were: {error} (all errors: remoor exports check)")
                }
                _ => format!("exports stay as they were: {error}"),
            };
            tracing::error!("{message}");
            let cannot = matches!(error, ChangeError::Busy | ChangeError::Open(StartError::Silent { .. }));
            Answer::Error { usage: !cannot, message }
        }
    }
}
