//! From call to reply: program 100000, versions 2 to 4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use remoor_rpc::auth::Flavor;
use remoor_rpc::message::{self, AuthStat, Call, Message, RPC_VERSION, ReplyStatus, encode_reply};
use remoor_rpc::portmap::rpcb::{self, MAX_SOCKADDR, Netbuf, Rpcb};
use remoor_rpc::portmap::v2::Mapping;
use remoor_rpc::portmap::{NUMBER, Text, from_universal, universal, v2, v3, v4};
use remoor_rpc::program::Procedure;
use remoor_rpc::record::Record;
use remoor_rpc::xdr::{self, ErrorKind, List, Opaque, Xdr};

use super::table::{Entry, Table, Transport};

/// Who owns what is told, in the words of rpcbind for root.
const OWNER: &str = "superuser";

/// How a call came.
pub(super) struct Asked<'a> {
    pub(super) transport: Transport,
    pub(super) peer: SocketAddr,
    /// The address of this host that it came to; asked for only where the answer depends on it.
    pub(super) local: &'a dyn Fn() -> IpAddr,
}

type Answer = Result<Record, ReplyStatus>;

/// The reply to a call.
///
/// # Errors
/// What was received is no call, and so gets no reply.
pub(super) fn answer(table: &Table, asked: &Asked<'_>, message: Bytes) -> xdr::Result<Record> {
    match Message::decode(message) {
        Ok(Message::Call(call)) => {
            let xid = call.xid;
            Ok(execute(table, asked, call).unwrap_or_else(|status| encode_reply(xid, &status, &())))
        }
        // A reply to a reply would go to and fro for ever between two portmappers.
        Ok(Message::Reply(reply)) => {
            Err(reply.result.error("message type", ErrorKind::BadValue { value: 1 }))
        }
        Err(message::Error::RpcVersion { xid, .. }) => {
            let status = ReplyStatus::RpcMismatch { low: RPC_VERSION, high: RPC_VERSION };
            Ok(encode_reply(xid, &status, &()))
        }
        Err(message::Error::Auth { xid, stat, .. }) => {
            Ok(encode_reply(xid, &ReplyStatus::AuthError(stat), &()))
        }
        Err(message::Error::Xdr(e)) => Err(e),
    }
}

fn execute(table: &Table, asked: &Asked<'_>, call: Call) -> Answer {
    let header = &call.header;
    if header.program != NUMBER {
        return Err(ReplyStatus::ProgUnavail);
    }
    // AUTH_TLS must hear that nobody answers its handshake (RFC 9289 section 4.1).
    if !matches!(header.credential.flavor, Flavor::None | Flavor::Sys) {
        return Err(ReplyStatus::AuthError(AuthStat::RejectedCred));
    }
    match header.version {
        2 => version_2(table, asked, call),
        3 | 4 => rpcbind(table, asked, call),
        _ => Err(ReplyStatus::ProgMismatch { low: 2, high: 4 }),
    }
}

fn version_2(table: &Table, asked: &Asked<'_>, call: Call) -> Answer {
    match call.header.procedure {
        v2::Null::NUMBER => run::<v2::Null>(call, |()| ()),
        v2::Set::NUMBER => run::<v2::Set>(call, |mapping| refuse(asked, mapping.program)),
        v2::Unset::NUMBER => run::<v2::Unset>(call, |mapping| refuse(asked, mapping.program)),
        v2::GetPort::NUMBER => run::<v2::GetPort>(call, |mapping| port(table, asked, &mapping)),
        v2::Dump::NUMBER => run::<v2::Dump>(call, |()| List(mappings(table))),
        // CALLIT among them: whoever relays calls is an amplifier, and hides who calls.
        _ => Err(ReplyStatus::ProcUnavail),
    }
}

/// Procedures 0 to 8 are the same in version 3 and in version 4.
fn rpcbind(table: &Table, asked: &Asked<'_>, call: Call) -> Answer {
    match (call.header.procedure, call.header.version) {
        (v4::Null::NUMBER, _) => run::<v4::Null>(call, |()| ()),
        (v4::Set::NUMBER, _) => run::<v4::Set>(call, |rpcb| refuse(asked, rpcb.program)),
        (v4::Unset::NUMBER, _) => run::<v4::Unset>(call, |rpcb| refuse(asked, rpcb.program)),
        (v4::GetAddr::NUMBER, _) => run::<v4::GetAddr>(call, |rpcb| seen(asked, &rpcb, Table::find, table)),
        (v4::Dump::NUMBER, _) => run::<v4::Dump>(call, |()| List(table.entries().iter().map(rpcb).collect())),
        (v4::GetTime::NUMBER, _) => run::<v4::GetTime>(call, |()| seconds()),
        (v4::UaddrToTaddr::NUMBER, _) => run::<v4::UaddrToTaddr>(call, |text| to_netbuf(&text)),
        (v4::TaddrToUaddr::NUMBER, _) => run::<v4::TaddrToUaddr>(call, |netbuf| from_netbuf(&netbuf)),
        (v4::GetVersAddr::NUMBER, 4) => {
            run::<v4::GetVersAddr>(call, |rpcb| seen(asked, &rpcb, Table::find_version, table))
        }
        (v4::GetAddrList::NUMBER, 4) => run::<v4::GetAddrList>(call, |rpcb| ways(table, asked, &rpcb)),
        _ => Err(ReplyStatus::ProcUnavail),
    }
}

const _: () = assert!(
    v3::GetAddr::NUMBER == v4::GetAddr::NUMBER && v3::TaddrToUaddr::NUMBER == v4::TaddrToUaddr::NUMBER
);

/// Executes procedure `P`.
fn run<P: Procedure>(call: Call, handle: impl FnOnce(P::Args) -> P::Res) -> Answer {
    let mut r = call.args;
    let args = P::Args::decode(&mut r).and_then(|args| r.finish(P::NAME).map(|()| args));
    let args = args.map_err(|_| ReplyStatus::GarbageArgs)?;
    Ok(encode_reply(call.xid, &ReplyStatus::Success, &handle(args)))
}

/// Registrations of others are not kept, whoever asks: this portmapper speaks for its own process.
fn refuse(asked: &Asked<'_>, program: u32) -> bool {
    tracing::debug!(client = %asked.peer, program, "registration refused: this portmapper is remoor's own");
    false
}

/// The port, or 0: not registered.
fn port(table: &Table, asked: &Asked<'_>, wanted: &Mapping) -> u32 {
    let Some(transport) = Transport::of_number(wanted.protocol) else { return 0 };
    let found = table.find(wanted.program, wanted.version, transport, (asked.local)());
    found.map_or(0, |address| address.port().into())
}

type Find = fn(&Table, u32, u32, Transport, IpAddr) -> Option<SocketAddr>;

/// The universal address, or an empty string: not registered. The transport is that of the call, whatever the
/// arguments say (RFC 1833 section 2.2.1).
fn seen(asked: &Asked<'_>, wanted: &Rpcb, find: Find, table: &Table) -> Text {
    let local = (asked.local)();
    let found = find(table, wanted.program, wanted.version, asked.transport, local);
    found.map_or_else(Text::default, |address| text(&universal(as_called(address, wanted))))
}

/// With the address by which the caller knows this host, where it tells one. It differs from the one its call came to
/// if a balancer or NAT stands in between, and is then the only one it can reach.
fn as_called(address: SocketAddr, wanted: &Rpcb) -> SocketAddr {
    let hint = from_universal(&wanted.address.0).map(|hint| hint.ip());
    let usable = hint.filter(|ip| !ip.is_unspecified() && ip.is_ipv4() == address.is_ipv4());
    SocketAddr::new(usable.unwrap_or(address.ip()), address.port())
}

fn ways(table: &Table, asked: &Asked<'_>, wanted: &Rpcb) -> List<rpcb::Entry> {
    let entry = |way: Entry| rpcb::Entry {
        address: text(&universal(as_called(way.address, wanted))),
        netid: text(way.transport.netid(way.address.ip())),
        semantics: way.transport.semantics(),
        family: text(if way.address.is_ipv4() { "inet" } else { "inet6" }),
        protocol: text(way.transport.name()),
    };
    List(table.ways(wanted.program, wanted.version, (asked.local)()).map(entry).collect())
}

/// Each once: version 2 tells no address, so entries of several addresses can look alike.
fn mappings(table: &Table) -> Vec<Mapping> {
    let mut told: Vec<Mapping> = Vec::new();
    for mapping in table.entries().iter().filter_map(mapping) {
        if !told.contains(&mapping) {
            told.push(mapping);
        }
    }
    told
}

/// Version 2 knows IPv4 only.
fn mapping(entry: &Entry) -> Option<Mapping> {
    entry.address.is_ipv4().then(|| Mapping {
        program: entry.program,
        version: entry.version,
        protocol: entry.transport.number(),
        port: entry.address.port().into(),
    })
}

fn rpcb(entry: &Entry) -> Rpcb {
    Rpcb {
        program: entry.program,
        version: entry.version,
        netid: text(entry.transport.netid(entry.address.ip())),
        address: text(&universal(entry.address)),
        owner: text(OWNER),
    }
}

fn text(text: &str) -> Text {
    Text::from(text)
}

/// Seconds since 1970, in the protocol's 32 bits.
fn seconds() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as u32
}

/// `AF_INET` and `AF_INET6`.
const FAMILIES: [u16; 2] = [libc::AF_INET as u16, libc::AF_INET6 as u16];

/// `struct sockaddr_in` or `sockaddr_in6` of this host; empty if the text is no address.
fn to_netbuf(address: &Text) -> Netbuf {
    let bytes = match from_universal(&address.0) {
        Some(SocketAddr::V4(v4)) => {
            [&FAMILIES[0].to_ne_bytes()[..], &v4.port().to_be_bytes(), &v4.ip().octets(), &[0; 8]].concat()
        }
        Some(SocketAddr::V6(v6)) => {
            [&FAMILIES[1].to_ne_bytes()[..], &v6.port().to_be_bytes(), &[0; 4], &v6.ip().octets(), &[0; 4]]
                .concat()
        }
        None => Vec::new(),
    };
    Netbuf { max_len: MAX_SOCKADDR as u32, bytes: Opaque(bytes.into()) }
}

fn from_netbuf(netbuf: &Netbuf) -> Text {
    sockaddr(&netbuf.bytes.0).map_or_else(Text::default, |address| text(&universal(address)))
}

fn sockaddr(bytes: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = bytes.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let ip: IpAddr = match u16::from_ne_bytes(*family) {
        family if family == FAMILIES[0] => Ipv4Addr::from(*rest.first_chunk::<4>()?).into(),
        family if family == FAMILIES[1] => Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_addresses_of_this_host_come_back() {
        for wire in ["192.0.2.1.8.1", "2001:db8::1.0.111"] {
            let netbuf = to_netbuf(&text(wire));
            assert_eq!(from_netbuf(&netbuf), text(wire));
            for len in 0..netbuf.bytes.0.len().min(8) {
                let cut = Netbuf { max_len: 0, bytes: Opaque(netbuf.bytes.0.slice(..len)) };
                assert_eq!(from_netbuf(&cut), Text::default());
            }
        }
        assert!(to_netbuf(&text("/run/rpcbind.sock")).bytes.0.is_empty());
    }

    #[test]
    fn what_looks_alike_without_its_address_is_listed_once() {
        let at = |port: u16| [[192, 0, 2, 1], [192, 0, 2, 2]].map(|ip| SocketAddr::from((ip, port)));
        let nfs = [at(2049), at(3049)].concat();
        let listed = mappings(&Table::new(&nfs, &at(111)));
        let ports = |program: u32| -> Vec<(u32, u32)> {
            let of = listed.iter().filter(|m| m.program == program);
            of.map(|m| (m.version, m.port)).collect()
        };
        assert_eq!(ports(100_003), [(3, 2049), (3, 3049)]);
        assert_eq!(ports(NUMBER).len(), 6, "three versions over TCP and UDP");
    }

    #[test]
    fn the_callers_view_of_this_host_is_kept() {
        let seen = |hint: &str| {
            let wanted =
                Rpcb { program: 1, version: 1, netid: text("tcp"), address: text(hint), owner: text("") };
            as_called("10.0.0.5:2049".parse().unwrap(), &wanted).to_string()
        };
        assert_eq!(seen("203.0.113.9.0.111"), "203.0.113.9:2049", "through NAT");
        for useless in ["", "0.0.0.0.0.111", "2001:db8::1.0.111", "nonsense"] {
            assert_eq!(seen(useless), "10.0.0.5:2049", "{useless}");
        }
    }
}
