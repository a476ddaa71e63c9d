//! URLs of exports (RFC 2224), with the arguments that libnfs takes.
//!
//! A path is absolute, as in every client that mounts: `nfs://server/srv` is `server:/srv`, and so is `nfs://server//srv`.

use super::spec::{Spec, SpecError, hosts_of, path_of};
use super::{Host, find};

/// What an argument of a URL is to a mount.
enum Meaning {
    /// This option, with the argument's value.
    Option(&'static str),
    /// Options by value: value, options.
    Choice(&'static [(&'static str, &'static str)]),
    /// Nothing: it is about the insides of libnfs.
    Nothing,
    /// Something a mount cannot have.
    Refused(&'static str),
}

use Meaning::{Choice, Nothing, Refused};

const CALLERS: &str = "a mount calls as the user of each process; remove it, and choose users by all_squash,anonuid= \
                       in the server's exports, or how owners are shown by -o uid=,gid=";

/// Arguments of libnfs that are not options of the same name and meaning here.
const ARGUMENTS: &[(&str, Meaning)] = &[
    ("version", Meaning::Option("vers")),
    ("nfsport", Meaning::Option("port")),
    ("readonly", Choice(&[("", "ro"), ("1", "ro"), ("0", "rw")])),
    ("autoreconnect", Choice(&[("-1", "hard"), ("", "hard")])),
    ("uid", Refused(CALLERS)),
    ("gid", Refused(CALLERS)),
    ("if", Refused("the route chooses the interface; add a route, or remove it")),
    ("tcp-syncnt", Nothing),
    ("debug", Nothing),
    ("auto-traverse-mounts", Nothing),
    ("dircache", Nothing),
    ("readdir-buffer", Nothing),
];

pub(super) fn parse(url: &str) -> Result<Spec, SpecError> {
    let wrong = |why| SpecError::Url { url: url.into(), why };
    let rest = url.get("nfs://".len()..).unwrap_or_default();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if url.contains('#') {
        return Err(wrong("a # has to be written %23"));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = host_and_port(authority);
    let hosts: Vec<Host> = hosts_of(url, host)?;
    let port = port.map(|port| match port.parse::<u16>() {
        Ok(1..) if port.bytes().all(|byte| byte.is_ascii_digit()) => Ok(format!("port={port}")),
        _ => Err(wrong("the port must be a number from 1 to 65535")),
    });
    let path = decoded(path).ok_or_else(|| wrong("a path has %XX in hexadecimal digits, and is UTF-8"))?;
    let path = path_of(url, &format!("/{}", path.trim_start_matches('/')))?;
    let arguments = query.split('&').filter(|argument| !argument.is_empty());
    let mut options: Vec<String> = port.transpose()?.into_iter().collect();
    for argument in arguments {
        options.extend(option(url, argument)?);
    }
    Ok(Spec { hosts, path, options: options.join(",") })
}

/// The colon before a port is the last one, and stands behind the brackets of an IPv6 address.
fn host_and_port(authority: &str) -> (&str, Option<&str>) {
    let end = authority.rfind(']').unwrap_or(0);
    match authority[end..].find(':') {
        Some(colon) => (&authority[..end + colon], Some(&authority[end + colon + 1..])),
        None => (authority, None),
    }
}

/// The option that an argument stands for, if there is one. Whether an option is known is told where all of them are read.
fn option(url: &str, argument: &str) -> Result<Option<String>, SpecError> {
    let wrong = |why| SpecError::UrlArgument { url: url.into(), argument: argument.into(), why };
    let decode = |text| decoded(text).ok_or_else(|| wrong("has %XX in hexadecimal digits, and is UTF-8"));
    let (name, value) = argument.split_once('=').map_or((argument, None), |(n, v)| (n, Some(v)));
    let (name, value) = (decode(name)?, value.map(decode).transpose()?);
    if [Some(&name), value.as_ref()].into_iter().flatten().any(|text| text.contains([',', '"'])) {
        return Err(wrong("a comma or a quote cannot stand in an argument; write the option after -o"));
    }
    let given = || value.as_deref().unwrap_or_default();
    let of_libnfs = ARGUMENTS.iter().find(|(its, _)| *its == name);
    match of_libnfs.map(|(_, meaning)| meaning) {
        Some(Nothing) => Ok(None),
        Some(Refused(why)) => Err(wrong(why)),
        Some(Choice(choices)) => {
            let choice = choices.iter().find(|(value, _)| *value == given());
            let none = || wrong("a mount always reconnects; write -o soft for calls that give up");
            choice.map(|(_, option)| Some((*option).into())).ok_or_else(none)
        }
        Some(Meaning::Option(option)) => Ok(Some(format!("{option}={}", given()))),
        None => Ok(Some(written(name, value))),
    }
}

/// An argument of our own table. Flags are often written `soft=1` in URLs.
fn written(name: String, value: Option<String>) -> String {
    let is_flag = find(&name).is_some_and(|row| row.argument == super::Argument::None);
    match value {
        Some(value) if !(is_flag && value == "1") => format!("{name}={value}"),
        _ => name,
    }
}

/// Text of which each `%XX` is a byte.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                bytes.push(digit(*high)? << 4 | digit(*low)?);
                after
            }
            (b'%', _) => return None,
            _ => {
                bytes.push(*first);
                after
            }
        };
    }
    String::from_utf8(bytes).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> (String, String) {
        let spec = url.parse::<Spec>().unwrap_or_else(|error| panic!("{error}"));
        (spec.to_string(), spec.options)
    }

    #[track_caller]
    fn is(url: &str, spec: &str, options: &str) {
        assert_eq!(shown(url), (spec.to_owned(), options.to_owned()), "{url}");
    }

    #[test]
    fn urls_are_specs_with_options() {
        is("nfs://nas/srv/data", "nas:/srv/data", "");
        is("NFS://nas//srv/", "nas:/srv", "");
        is("nfs://nas", "nas:/", "");
        is("nfs://nas:2050/a%20b%2Fc", "nas:/a b/c", "port=2050");
        is("nfs://[::1]:2050/a?soft&timeo=50", "[::1]:/a", "port=2050,soft,timeo=50");
        is("nfs://nas/a?soft=1&", "nas:/a", "soft");
        is("nfs://a,b/x", "a,b:/x", "");
    }

    #[test]
    fn arguments_of_libnfs_have_their_meaning() {
        is(
            "nfs://nas/a?version=3&nfsport=2050&mountport=635&readonly",
            "nas:/a",
            "vers=3,port=2050,mountport=635,ro",
        );
        is("nfs://nas/a?autoreconnect=-1&debug=2&dircache=0&tcp-syncnt=3", "nas:/a", "hard");
    }

    #[test]
    fn mistakes_are_told_with_the_remedy() {
        let urls = [
            "nfs:///a",
            "nfs://nas:0/a",
            "nfs://nas:x/a",
            "nfs://nas/a%2",
            "nfs://nas/a%ff",
            "nfs://nas/a%00",
            "nfs://nas/a#b",
            "nfs://me@nas/a",
            "nfs://nas/a?uid=0",
            "nfs://nas/a?if=eth0",
            "nfs://nas/a?autoreconnect=0",
            "nfs://nas/a?comment=x,y",
            "nfs://nas/a?%zz",
        ];
        let told = urls.map(|url| url.parse::<Spec>().unwrap_err().to_string()).join("\n");
        insta::assert_snapshot!(told);
    }
}
