//! Captures against tshark, which reads the file with a decoder of its own.

use std::fs::File;
use std::io::BufWriter;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use remoor_drill::capture::{Capture, Recording, Sighting};
use remoor_drill::topology::{Node, Topology};

use crate::Test;
use crate::bench::{PATIENCE, Server, connect, exchange};

pub(crate) const TESTS: &[Test] = &[("tshark_sees_the_same_syns", tshark_sees_the_same_syns)];

/// Interface name, source port, raw sequence number, time as seconds with nanoseconds.
type Syn = (String, u16, u32, String);

fn tshark_sees_the_same_syns() -> Result<()> {
    if Command::new("tshark").arg("--version").output().is_err() {
        println!("SKIPPED tshark_sees_the_same_syns: install the package tshark (apt-get install tshark)");
        return Ok(());
    }
    let topology = Topology::build()?;
    let capture = Capture::start(&topology)?;
    for node in Node::ALL {
        let _server = Server::start(&topology, node)?;
        for _ in 0..3 {
            let stream = connect(topology.balancer(), Topology::node_service(node), PATIENCE)??;
            exchange(&stream, &[1; 3000])?;
        }
    }
    let recording = capture.finish()?;
    ensure!(recording.missing_frames() == 0);
    let ours = our_syns(&recording.sightings());
    ensure!(ours.len() == 6, "six connections were made, and {} seen", ours.len());
    let theirs = tshark_syns(&recording)?;
    ensure!(ours == theirs, "tshark read other SYNs\nours:   {ours:?}\ntheirs: {theirs:?}");
    Ok(())
}

fn our_syns(sightings: &[Sighting]) -> Vec<Syn> {
    let syns = sightings.iter().filter(|s| s.segment.flags.is_lone_syn());
    syns.map(|Sighting { time, tap, segment, .. }| {
        let time = format!("{}.{:09}", time.as_secs(), time.subsec_nanos());
        (tap.interface().to_owned(), segment.src.port(), segment.seq, time)
    })
    .collect()
}

fn tshark_syns(recording: &Recording) -> Result<Vec<Syn>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("drill.pcapng");
    recording.write_pcapng(BufWriter::new(File::create(&path)?))?;
    let mut command = Command::new("tshark");
    command.arg("-r").arg(&path).args(["-Y", "tcp.flags.syn==1 && tcp.flags.ack==0", "-T", "fields"]);
    for field in ["frame.interface_name", "tcp.srcport", "tcp.seq_raw", "frame.time_epoch"] {
        command.args(["-e", field]);
    }
    let output = command.output()?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)?.lines().map(parse_syn).collect()
}

fn parse_syn(line: &str) -> Result<Syn> {
    let mut fields = line.split('\t').map(str::to_owned);
    let mut next = || fields.next().with_context(|| format!("tshark printed {line:?}"));
    Ok((next()?, next()?.parse()?, next()?.parse()?, next()?))
}
