//! Universal addresses, RFC 5665 section 5.2.3: an address as text, with the port's two bytes after it.

use std::net::{IpAddr, SocketAddr};

/// The universal address: `192.0.2.1.8.1` is port 2049 of 192.0.2.1.
pub fn universal(address: SocketAddr) -> String {
    let [high, low] = address.port().to_be_bytes();
    format!("{}.{high}.{low}", address.ip())
}

/// The socket address that a universal address means, if it is one of IPv4 or IPv6.
pub fn from_universal(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let mut parts = text.rsplitn(3, '.');
    let (low, high, address) = (byte(parts.next()?)?, byte(parts.next()?)?, parts.next()?);
    let address: IpAddr = address.parse().ok()?;
    Some(SocketAddr::new(address, u16::from_be_bytes([high, low])))
}

fn byte(text: &str) -> Option<u8> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_have_the_port_after_them() {
        let text = |address: &str| universal(address.parse().unwrap());
        assert_eq!(text("192.0.2.1:2049"), "192.0.2.1.8.1");
        assert_eq!(text("0.0.0.0:111"), "0.0.0.0.0.111");
        assert_eq!(text("[2001:db8::1]:65535"), "2001:db8::1.255.255");
    }

    #[test]
    fn what_is_no_address_is_none() {
        for text in
            ["", "8.1", ".8.1", "192.0.2.1", "192.0.2.1.256.1", "192.0.2.1.+8.1", "x.8.1", "/run/x.8.1"]
        {
            assert_eq!(from_universal(text.as_bytes()), None, "{text}");
        }
        assert_eq!(from_universal(b"\xff.8.1"), None);
    }

    proptest! {
        #[test]
        fn an_address_comes_back(ip: IpAddr, port: u16) {
            let address = SocketAddr::new(ip, port);
            prop_assert_eq!(from_universal(universal(address).as_bytes()), Some(address));
        }

        #[test]
        fn no_text_panics(text: Vec<u8>) {
            from_universal(&text);
        }
    }
}
