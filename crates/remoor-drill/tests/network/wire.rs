//! Captures against tshark, which reads the file with a decoder of its own.

use std::fs::File;
use std::io::BufWriter;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use remoor_drill::capture::{Capture, Recording, Sighting, Tap};
use remoor_drill::topology::{Node, SERVICE, Topology};
use remoor_flow::Health;

use crate::Test;
use crate::balancers::start;
use crate::bench::{PATIENCE, Server, connect, exchange};

pub(crate) const TESTS: &[Test] = &[
    ("tshark_sees_the_same_syns", tshark_sees_the_same_syns),
    ("tshark_finds_every_checksum_good", tshark_finds_every_checksum_good),
    ("frames_are_as_on_a_real_wire", frames_are_as_on_a_real_wire),
];

/// Interface name, source port, raw sequence number, time as seconds with nanoseconds.
type Syn = (String, u16, u32, String);

/// A TCP checksum that comes to 0 is sent as 0xffff by a kernel whose interface does not do it
/// (`skb_checksum_help`, `CSUM_MANGLED_0`). The two are one number to a receiver (RFC 1071); tshark finds the second odd.
const GOOD_CHECKSUMS: &str = "ip.checksum.status == 1 && (tcp.checksum.status == 1 || tcp.checksum.ffff)";

/// Connections made to each node in [`session`].
const CONNECTIONS: usize = 3;

/// Ethernet header and MTU of every link.
const MAX_WIRE_BYTES: usize = 14 + 1500;

/// Connections through the balancer to A and, after a change of health, to B.
fn session() -> Result<Recording> {
    let topology = Topology::build()?;
    let _servers = [Server::start(&topology, Node::A)?, Server::start(&topology, Node::B)?];
    let Some(mut balancer) = start(&topology, "nf-conntrack")? else { bail!("the model runs everywhere") };
    let capture = Capture::start(&topology)?;
    for health_of_a in [Health::Up, Health::Down] {
        balancer.set_health(Node::A, health_of_a)?;
        for _ in 0..CONNECTIONS {
            exchange(&connect(topology.client(), SERVICE, PATIENCE)??, &[1; 100_000])?;
        }
    }
    let recording = capture.finish()?;
    ensure!(recording.missing_frames() == 0);
    Ok(recording)
}

fn tshark_sees_the_same_syns() -> Result<()> {
    let recording = session()?;
    let ours = our_syns(&recording.sightings());
    ensure!(ours.len() == 2 * 2 * CONNECTIONS, "each SYN is seen on both sides: {ours:?}");
    let fields = ["frame.interface_name", "tcp.srcport", "tcp.seq_raw", "frame.time_epoch"];
    let Some(lines) = tshark(&recording, "tcp.flags.syn==1 && tcp.flags.ack==0", &fields)? else {
        return Ok(());
    };
    let theirs = lines.iter().map(|line| parse_syn(line)).collect::<Result<Vec<Syn>>>()?;
    ensure!(ours == theirs, "tshark read other SYNs\nours:   {ours:?}\ntheirs: {theirs:?}");
    Ok(())
}

fn tshark_finds_every_checksum_good() -> Result<()> {
    let recording = session()?;
    let bad = format!("!({GOOD_CHECKSUMS})");
    let fields =
        ["frame.number", "frame.interface_name", "ip.checksum.status", "tcp.checksum.status", "tcp.checksum"];
    let Some(lines) = tshark(&recording, &bad, &fields)? else { return Ok(()) };
    ensure!(lines.is_empty(), "frames with bad checksums (number, interface, IP, TCP): {lines:?}");
    let good = tshark(&recording, GOOD_CHECKSUMS, &["frame.number"])?.unwrap_or_default().len();
    let frames: usize = Tap::ALL.iter().map(|tap| recording.frames(*tap).len()).sum();
    ensure!(good == frames, "tshark read {good} of {frames} frames");
    Ok(())
}

fn frames_are_as_on_a_real_wire() -> Result<()> {
    let recording = session()?;
    for tap in Tap::ALL {
        let frames = recording.frames(tap);
        let longest = frames.iter().map(|frame| frame.wire_len).max().context("nothing was captured")?;
        ensure!(longest == MAX_WIRE_BYTES, "{}: {longest} bytes in a frame", tap.interface());
        ensure!(frames.iter().all(|frame| frame.data.len() == frame.wire_len));
        ensure!(frames.is_sorted_by_key(|frame| frame.time), "{}: out of order", tap.interface());
    }
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

/// The `fields` of the frames that match `filter`, one line each; `None`, with a note, when tshark is not here.
fn tshark(recording: &Recording, filter: &str, fields: &[&str]) -> Result<Option<Vec<String>>> {
    if Command::new("tshark").arg("--version").output().is_err() {
        println!("SKIPPED the comparison with tshark: install the package tshark (apt-get install tshark)");
        return Ok(None);
    }
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("drill.pcapng");
    recording.write_pcapng(BufWriter::new(File::create(&path)?))?;
    let mut command = Command::new("tshark");
    // In a user namespace tshark takes this user for root, whose preferences it may not read.
    command.env("HOME", directory.path()).env_remove("XDG_CONFIG_HOME");
    command.arg("-r").arg(&path).args(["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]);
    command.args(["-Y", filter, "-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output()?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    Ok(Some(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect()))
}

fn parse_syn(line: &str) -> Result<Syn> {
    let mut fields = line.split('\t').map(str::to_owned);
    let mut next = || fields.next().with_context(|| format!("tshark printed {line:?}"));
    Ok((next()?, next()?.parse()?, next()?.parse()?, next()?))
}
