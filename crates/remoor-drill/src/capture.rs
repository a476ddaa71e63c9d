//! Captures on the client's interface and on the balancer's interfaces towards the nodes.

use std::borrow::Cow;
use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::{PcapError, PcapResult};
use serde::Serialize;

use crate::link::{LinkError, index_of};
use crate::namespace::NamespaceError;
use crate::segment::Segment;
use crate::stop::{StopSignal, Woken};
use crate::sys::{Direction, PacketSocket};
use crate::topology::{Node, Topology};

/// Memory one tap spends on whole frames; later frames keep their first [`HEADER_BYTES`].
pub const WHOLE_FRAME_BYTES: usize = 48 << 20;

/// Memory one tap spends in all; frames beyond it are counted and dropped.
pub const TAP_BYTES: usize = 64 << 20;

/// Enough for Ethernet, IPv4 and TCP headers with all options.
pub const HEADER_BYTES: usize = 134;

/// The largest frame an interface here can carry (IPv4 length limit plus the Ethernet header).
const MAX_FRAME_BYTES: usize = 65_535 + 14;

/// Kernel buffer of a tap: bridges the time in which its thread does not run.
const SOCKET_BUFFER_BYTES: i32 = 8 << 20;

/// How long the kernel may take to switch time stamping on; a worker of its own does it.
const STAMPING_TIMEOUT: Duration = Duration::from_secs(5);

const MIN_FRAME_BYTES: usize = 60;

/// To nobody, of the ethertype for local experiments (IEEE 802, 0x88b5).
const LOOPBACK_PROBE: [u8; MIN_FRAME_BYTES] = {
    let mut frame = [0; MIN_FRAME_BYTES];
    (frame[12], frame[13]) = (0x88, 0xb5);
    frame
};

/// Frames read after the signal to stop; a tap on a busy interface ends all the same.
const DRAIN_FRAMES: usize = 65_536;

/// Where frames are captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Tap {
    /// The client's interface.
    Client,
    /// The balancer's interface towards this node.
    Node(Node),
}

impl Tap {
    /// All taps of a drill.
    pub const ALL: [Self; 3] = [Self::Client, Self::Node(Node::A), Self::Node(Node::B)];

    /// The interface, as named in the pcapng file.
    pub const fn interface(self) -> &'static str {
        match self {
            Self::Client => Topology::client_link().far.interface,
            Self::Node(node) => Topology::node_link(node).near.interface,
        }
    }

    const fn position(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Node(node) => 1 + node.index(),
        }
    }
}

/// A segment, where it was seen and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Wall-clock time since the Unix epoch.
    pub time: Duration,
    /// Where.
    pub tap: Tap,
    /// Sent by the interface (true) or received.
    pub outgoing: bool,
    /// What.
    pub segment: Segment,
}

/// Why a capture could not start or went blind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The host of the tap could not be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The interface is not there.
    #[error("cannot capture: {0}; build the topology first")]
    Interface(#[from] LinkError),
    /// The packet socket failed.
    #[error("cannot capture on {interface}: {source}; the kernel needs CONFIG_PACKET (modprobe af_packet)")]
    Socket {
        /// The interface.
        interface: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel does not tell when it handled a frame.
    #[error("cannot capture: the kernel put no time on a frame for {} s; is the machine overloaded? try again", .0.as_secs())]
    NoTimes(Duration),
    /// The thread of a tap ended early.
    #[error("the capture on {0} ended early; please report this with RUST_BACKTRACE=1 output")]
    Ended(&'static str),
}

/// A running capture on every tap.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<StopSignal>,
    taps: Vec<RunningTap>,
}

#[derive(Debug)]
struct RunningTap {
    tap: Tap,
    shared: Arc<Mutex<TapRecording>>,
    thread: JoinHandle<Result<(), CaptureError>>,
}

impl Capture {
    /// Starts capturing; on return every later frame is seen.
    ///
    /// # Errors
    /// [`CaptureError`] when a packet socket cannot be opened.
    pub fn start(topology: &Topology) -> Result<Self, CaptureError> {
        let broken = |source| CaptureError::Socket { interface: "every interface", source };
        let mut capture = Self { stop: Arc::new(StopSignal::new().map_err(broken)?), taps: Vec::new() };
        for tap in Tap::ALL {
            let running = start_tap(topology, tap, Arc::clone(&capture.stop))?;
            capture.taps.push(running);
        }
        topology.client().run(wait_for_times)??;
        Ok(capture)
    }

    /// The TCP segments seen so far, in order of time.
    pub fn sightings(&self) -> Vec<Sighting> {
        let shared = self.taps.iter().map(|running| lock(&running.shared));
        in_order(shared.flat_map(|recording| recording.sightings().collect::<Vec<_>>()).collect())
    }

    /// Reads what has arrived up to now and ends the capture.
    ///
    /// # Errors
    /// [`CaptureError`] when a tap failed on the way.
    pub fn finish(mut self) -> Result<Recording, CaptureError> {
        self.stop.stop();
        let mut taps = Vec::new();
        for RunningTap { tap, shared, thread } in mem::take(&mut self.taps) {
            thread.join().unwrap_or(Err(CaptureError::Ended(tap.interface())))?;
            let mut recording = mem::replace(&mut *lock(&shared), TapRecording::new(tap));
            // Two processors stamp frames of the two directions, and queue them in either order.
            recording.frames.sort_by_key(|frame| frame.time);
            taps.push(recording);
        }
        Ok(Recording { taps })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

/// What a capture saw.
#[derive(Debug)]
pub struct Recording {
    taps: Vec<TapRecording>,
}

impl Recording {
    /// The TCP segments of every tap, in order of time.
    pub fn sightings(&self) -> Vec<Sighting> {
        in_order(self.taps.iter().flat_map(TapRecording::sightings).collect())
    }

    /// Every frame at a tap, TCP or not, in order of time.
    pub fn frames(&self, tap: Tap) -> &[Frame] {
        &self.taps[tap.position()].frames
    }

    /// Frames that are missing from the record: dropped by the kernel, without a time, or beyond [`TAP_BYTES`].
    pub fn missing_frames(&self) -> u64 {
        self.taps.iter().map(TapRecording::missing).sum()
    }

    /// Writes a pcapng file: one interface description per tap with its name, nanosecond times, the direction of
    /// each frame, and the drop counters.
    ///
    /// # Errors
    /// Whatever `out` fails with.
    pub fn write_pcapng(&self, out: impl Write) -> io::Result<()> {
        self.write_blocks(out).map_err(|e| match e {
            PcapError::IoError(e) => e,
            other => io::Error::other(other.to_string()),
        })
    }

    fn write_blocks(&self, out: impl Write) -> PcapResult<()> {
        let mut writer = PcapNgWriter::new(out)?;
        for tap in Tap::ALL {
            writer.write_pcapng_block(interface_block(tap))?;
        }
        let mut frames: Vec<(Tap, &Frame)> =
            self.taps.iter().flat_map(|t| t.frames.iter().map(|frame| (t.tap, frame))).collect();
        frames.sort_by_key(|(_, frame)| frame.time);
        for (tap, frame) in &frames {
            writer.write_pcapng_block(frame_block(*tap, frame))?;
        }
        let end = frames.last().map_or(Duration::ZERO, |(_, frame)| frame.time);
        for tap in &self.taps {
            writer.write_pcapng_block(statistics_block(tap, end))?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct TapRecording {
    tap: Tap,
    frames: Vec<Frame>,
    bytes: usize,
    kernel_drops: u64,
    over_limit: u64,
    unstamped: u64,
}

/// One captured Ethernet frame.
#[derive(Debug)]
pub struct Frame {
    /// Wall-clock time since the Unix epoch.
    pub time: Duration,
    /// Sent by the interface (true) or received.
    pub outgoing: bool,
    /// Bytes on the wire.
    pub wire_len: usize,
    /// The bytes kept, from the first on.
    pub data: Box<[u8]>,
}

impl TapRecording {
    const fn new(tap: Tap) -> Self {
        Self { tap, frames: Vec::new(), bytes: 0, kernel_drops: 0, over_limit: 0, unstamped: 0 }
    }

    fn push(&mut self, time: Duration, outgoing: bool, wire_len: usize, data: &[u8]) {
        let keep = if self.bytes < WHOLE_FRAME_BYTES { data.len() } else { data.len().min(HEADER_BYTES) };
        if self.bytes + keep + size_of::<Frame>() > TAP_BYTES {
            self.over_limit += 1;
            return;
        }
        self.bytes += keep + size_of::<Frame>();
        self.frames.push(Frame { time, outgoing, wire_len, data: data[..keep].into() });
    }

    fn missing(&self) -> u64 {
        self.kernel_drops + self.over_limit + self.unstamped
    }

    fn sightings(&self) -> impl Iterator<Item = Sighting> {
        self.frames.iter().filter_map(|frame| {
            let segment = Segment::decode(&frame.data)?;
            Some(Sighting { time: frame.time, tap: self.tap, outgoing: frame.outgoing, segment })
        })
    }
}

fn start_tap(topology: &Topology, tap: Tap, stop: Arc<StopSignal>) -> Result<RunningTap, CaptureError> {
    let host = match tap {
        Tap::Client => topology.client(),
        Tap::Node(_) => topology.balancer(),
    };
    let interface = tap.interface();
    let socket = host.run(|| {
        let open = |index| PacketSocket::open(index)?.with_times()?.with_buffer(SOCKET_BUFFER_BYTES);
        open(index_of(interface)?).map_err(|source| CaptureError::Socket { interface, source })
    })??;
    let shared = Arc::new(Mutex::new(TapRecording::new(tap)));
    let sink = Arc::clone(&shared);
    let body =
        move || record(&socket, &sink, &stop).map_err(|source| CaptureError::Socket { interface, source });
    let thread = host.spawn_thread(&format!("tap-{interface}"), body)?;
    Ok(RunningTap { tap, shared, thread })
}

/// Sends frames over the loopback device of this host until one comes back with a time: the switch is the machine's.
fn wait_for_times() -> Result<(), CaptureError> {
    let broken = |source| CaptureError::Socket { interface: "lo", source };
    let index = index_of("lo")?;
    let probe = PacketSocket::open(index).and_then(PacketSocket::with_times).map_err(broken)?;
    let mut buffer = [0; MIN_FRAME_BYTES];
    let start = Instant::now();
    while start.elapsed() < STAMPING_TIMEOUT {
        probe.send(&LOOPBACK_PROBE).map_err(broken)?;
        while let Some(info) = probe.recv(&mut buffer).map_err(broken)? {
            if info.time.is_some() {
                return Ok(());
            }
        }
        thread::yield_now();
    }
    Err(CaptureError::NoTimes(STAMPING_TIMEOUT))
}

fn record(socket: &PacketSocket, sink: &Mutex<TapRecording>, stop: &StopSignal) -> io::Result<()> {
    let mut buffer = vec![0; MAX_FRAME_BYTES];
    loop {
        let woken = stop.wait(&[socket], None)?;
        drain(socket, sink, &mut buffer)?;
        lock(sink).kernel_drops += u64::from(socket.take_drops()?);
        if woken == Woken::Stopped {
            return Ok(());
        }
    }
}

fn drain(socket: &PacketSocket, sink: &Mutex<TapRecording>, buffer: &mut [u8]) -> io::Result<()> {
    for _ in 0..DRAIN_FRAMES {
        let Some(info) = socket.recv(buffer)? else { return Ok(()) };
        // A frame for another station is not seen by an interface out of promiscuous mode; showing it here would
        // make a silenced node look alive.
        if info.direction == Direction::Stray {
            continue;
        }
        let data = &buffer[..info.wire_len.min(buffer.len())];
        match info.time {
            Some(time) => lock(sink).push(time, info.direction == Direction::Out, info.wire_len, data),
            None => lock(sink).unstamped += 1,
        }
    }
    Ok(())
}

fn in_order(mut sightings: Vec<Sighting>) -> Vec<Sighting> {
    sightings.sort_by_key(|sighting| sighting.time);
    sightings
}

/// Recordings hold no invariant that a panic could break halfway.
fn lock(recording: &Mutex<TapRecording>) -> MutexGuard<'_, TapRecording> {
    recording.lock().unwrap_or_else(PoisonError::into_inner)
}

fn interface_block(tap: Tap) -> InterfaceDescriptionBlock<'static> {
    /// if_tsresol: units of 10^-9 s.
    const NANOSECONDS: u8 = 9;
    InterfaceDescriptionBlock {
        linktype: DataLink::ETHERNET,
        snaplen: 0,
        options: vec![
            InterfaceDescriptionOption::IfName(Cow::Borrowed(tap.interface())),
            InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
        ],
    }
}

fn frame_block(tap: Tap, frame: &Frame) -> EnhancedPacketBlock<'_> {
    /// epb_flags, bits 0-1: inbound, outbound.
    const DIRECTION: [u32; 2] = [1, 2];
    EnhancedPacketBlock {
        interface_id: tap.position() as u32,
        timestamp: frame.time,
        original_len: frame.wire_len as u32,
        data: Cow::Borrowed(&frame.data),
        options: vec![EnhancedPacketOption::Flags(DIRECTION[usize::from(frame.outgoing)])],
    }
}

fn statistics_block(recording: &TapRecording, end: Duration) -> InterfaceStatisticsBlock<'static> {
    // The block's timestamp is two 32-bit words, high first, and this writer stores a u64 as it stands.
    let nanos = end.as_nanos() as u64;
    let timestamp = if cfg!(target_endian = "little") { nanos.rotate_left(32) } else { nanos };
    InterfaceStatisticsBlock {
        interface_id: recording.tap.position() as u32,
        timestamp,
        options: vec![
            InterfaceStatisticsOption::IsbIfRecv(recording.frames.len() as u64 + recording.missing()),
            InterfaceStatisticsOption::IsbIfDrop(recording.missing()),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn memory_is_bounded_and_what_is_left_out_is_counted() {
        let mut tap = TapRecording::new(Tap::Client);
        let frame = vec![0; MAX_FRAME_BYTES];
        let offered = 200_000;
        for _ in 0..offered {
            tap.push(SECOND, true, frame.len(), &frame);
        }
        assert!(tap.bytes <= TAP_BYTES);
        assert!(tap.over_limit > 0);
        assert_eq!(tap.frames.len() as u64 + tap.missing(), offered);
    }

    #[test]
    fn headers_are_kept_when_whole_frames_no_longer_fit() {
        let mut tap = TapRecording::new(Tap::Client);
        tap.bytes = WHOLE_FRAME_BYTES;
        tap.push(SECOND, false, 1514, &[9; 1514]);
        assert_eq!((tap.frames[0].data.len(), tap.frames[0].wire_len), (HEADER_BYTES, 1514));
    }

    #[test]
    fn each_tap_has_its_place_in_the_file() {
        for (position, tap) in Tap::ALL.into_iter().enumerate() {
            assert_eq!(tap.position(), position);
        }
    }
}
