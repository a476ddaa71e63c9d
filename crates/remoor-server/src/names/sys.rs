//! Name lookups of the C library.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ptr;

use socket2::SockAddr;

/// Longest name, in bytes (`NI_MAXHOST`).
const MAX_NAME: usize = 1025;
/// Addresses of one name; more are ignored.
const MAX_ADDRESSES: usize = 1024;
/// Room for an entry of the user database, in bytes: at first, and at most.
const PASSWD_BYTES: [usize; 2] = [1 << 12, 1 << 20];
/// Groups of one user (NGROUPS_MAX).
const MAX_GROUPS: usize = 65_536;

/// Why a name lookup has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LookupError {
    /// There is no such name or address.
    #[error("it does not exist")]
    NoName,
    /// No server answered, or something else went wrong that may be right later.
    #[error("{0}")]
    Failed(String),
}

fn lookup_error(code: c_int) -> LookupError {
    // glibc: "no address associated with hostname", which libc does not name.
    const EAI_NODATA: c_int = -5;
    if code == libc::EAI_NONAME || code == EAI_NODATA {
        return LookupError::NoName;
    }
    // SAFETY: gai_strerror returns a C string that is never freed.
    let text = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
    LookupError::Failed(text.to_string_lossy().into_owned())
}

/// The addresses of a host, getaddrinfo(3).
pub(crate) fn addresses(host: &str) -> Result<Vec<IpAddr>, LookupError> {
    let host = CString::new(host).map_err(|_| LookupError::NoName)?;
    // SAFETY: all-zero is a valid addrinfo: numbers and null pointers.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = ptr::null_mut();
    // SAFETY: the host is a C string, no service is asked for, `hints` lives through the call, and `list` is written.
    let code = unsafe { libc::getaddrinfo(host.as_ptr(), ptr::null(), &raw const hints, &raw mut list) };
    if code != 0 {
        return Err(lookup_error(code));
    }
    let mut out = Vec::new();
    let mut next = list;
    while !next.is_null() && out.len() < MAX_ADDRESSES {
        // SAFETY: a non-null link of the list that getaddrinfo made and that is freed below.
        let info = unsafe { &*next };
        out.extend(address(info));
        next = info.ai_next;
    }
    // SAFETY: getaddrinfo made the list, and nothing of it is used any more.
    unsafe { libc::freeaddrinfo(list) };
    Ok(out)
}

fn address(info: &libc::addrinfo) -> Option<IpAddr> {
    match info.ai_family {
        libc::AF_INET => {
            // SAFETY: of this family ai_addr points to a sockaddr_in; it is read unaligned.
            let address = unsafe { ptr::read_unaligned(info.ai_addr.cast::<libc::sockaddr_in>()) };
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: of this family ai_addr points to a sockaddr_in6; it is read unaligned.
            let address = unsafe { ptr::read_unaligned(info.ai_addr.cast::<libc::sockaddr_in6>()) };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// The name of an address, getnameinfo(3).
pub(crate) fn name(address: IpAddr) -> Result<String, LookupError> {
    let address = SockAddr::from(SocketAddr::new(address, 0));
    let mut name = [0; MAX_NAME];
    // SAFETY: the address has the length it says, the buffer the length that is told, and no service is asked for.
    let code = unsafe {
        libc::getnameinfo(
            address.as_ptr().cast(),
            address.len(),
            name.as_mut_ptr(),
            MAX_NAME as libc::socklen_t,
            ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if code != 0 {
        return Err(lookup_error(code));
    }
    // SAFETY: on success the buffer holds a C string.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    name.to_str().map(str::to_owned).map_err(|_| LookupError::NoName)
}

/// Whether the C library has innetgr(3).
#[cfg(target_env = "gnu")]
pub(crate) const NETGROUPS: bool = true;
#[cfg(not(target_env = "gnu"))]
pub(crate) const NETGROUPS: bool = false;

/// Whether a host is a member of a netgroup, whatever users and domains the group names with it.
#[cfg(target_env = "gnu")]
pub(crate) fn in_netgroup(netgroup: &str, host: &str) -> bool {
    use std::ffi::c_char;
    unsafe extern "C" {
        fn innetgr(
            netgroup: *const c_char,
            host: *const c_char,
            user: *const c_char,
            domain: *const c_char,
        ) -> c_int;
    }
    let (Ok(netgroup), Ok(host)) = (CString::new(netgroup), CString::new(host)) else { return false };
    // SAFETY: two C strings and two null pointers, which match every user and domain; glibc takes a lock of its own.
    unsafe { innetgr(netgroup.as_ptr(), host.as_ptr(), ptr::null(), ptr::null()) != 0 }
}

/// Exports with netgroups are refused where there are none.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn in_netgroup(_: &str, _: &str) -> bool {
    false
}

/// The groups of a user, getpwuid_r(3) and getgrouplist(3); `None` if there is no such user.
pub(crate) fn groups(uid: u32) -> Result<Option<Vec<u32>>, LookupError> {
    let [mut room, most] = PASSWD_BYTES;
    loop {
        let mut buffer = vec![0; room];
        // SAFETY: all-zero is a valid passwd: numbers and null pointers.
        let mut user: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = ptr::null_mut();
        // SAFETY: every pointer is good for writing during the call, and the buffer has the length that is told.
        let code = unsafe {
            libc::getpwuid_r(uid, &raw mut user, buffer.as_mut_ptr(), buffer.len(), &raw mut found)
        };
        match code {
            0 if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: on success pw_name is a C string within `buffer`, which lives to the end of this block.
                let name = unsafe { CStr::from_ptr(user.pw_name) };
                return group_list(name, user.pw_gid).map(Some);
            }
            // Mostly because the entry needs more room.
            _ if room < most => room *= 4,
            code => return Err(LookupError::Failed(format!("getpwuid_r fails with {code}"))),
        }
    }
}

fn group_list(user: &CStr, primary: u32) -> Result<Vec<u32>, LookupError> {
    let mut room = 64;
    loop {
        let mut groups = vec![0; room];
        let mut count = room as c_int;
        // SAFETY: the user is a C string, and the array has room for the number of groups that is told.
        let done = unsafe { libc::getgrouplist(user.as_ptr(), primary, groups.as_mut_ptr(), &raw mut count) };
        if done >= 0 {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            return Ok(groups);
        }
        if room >= MAX_GROUPS {
            return Err(LookupError::Failed(format!("the user has more than {MAX_GROUPS} groups")));
        }
        room *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_tell_never_from_not_now() {
        assert_eq!(lookup_error(libc::EAI_NONAME), LookupError::NoName);
        let again = lookup_error(libc::EAI_AGAIN);
        assert!(matches!(&again, LookupError::Failed(text) if !text.is_empty()), "{again:?}");
        assert_eq!(addresses("a\0b"), Err(LookupError::NoName));
    }

    #[test]
    fn addresses_are_read_in_both_families() {
        assert_eq!(addresses("192.0.2.7"), Ok(vec!["192.0.2.7".parse().unwrap()]));
        assert_eq!(addresses("2001:db8::7"), Ok(vec!["2001:db8::7".parse().unwrap()]));
    }

    #[test]
    fn a_user_has_its_primary_group() {
        assert!(groups(0).unwrap().unwrap().contains(&0));
        assert_eq!(groups(3_999_999_999).unwrap(), None);
    }
}
