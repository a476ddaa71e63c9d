//! Credentials and verifiers: AUTH_NONE and AUTH_SYS (RFC 5531 sections 8.2 and appendix A). Others are kept opaque.

use bytes::Bytes;

use crate::xdr::{self, Array, Opaque};

/// Longest body of a credential or verifier, in bytes.
pub const MAX_AUTH_BYTES: usize = 400;
/// Longest AUTH_SYS machine name, in bytes.
pub const MAX_MACHINE_NAME: usize = 255;
/// Supplementary groups AUTH_SYS can carry.
pub const MAX_GROUPS: usize = 16;

crate::xdr_open_enum! {
    /// Kinds of credential.
    pub enum Flavor {
        /// No identity.
        None = 0 "AUTH_NONE",
        /// User and group numbers the client vouches for.
        Sys = 1 "AUTH_SYS",
        /// A short form of a previous AUTH_SYS.
        Short = 2 "AUTH_SHORT",
        /// Diffie-Hellman, obsolete.
        Dh = 3 "AUTH_DH",
        /// RPCSEC_GSS, RFC 2203.
        Gss = 6 "RPCSEC_GSS",
        /// RPC-with-TLS probe, RFC 9289.
        Tls = 7 "AUTH_TLS",
    }
}

crate::xdr_struct! {
    /// A credential or verifier as it stands in a message.
    pub struct OpaqueAuth {
        /// Its kind.
        pub flavor: Flavor,
        /// Its body, at most 400 bytes.
        pub body: Opaque<MAX_AUTH_BYTES>,
    }

    /// AUTH_SYS: what the client says of its user.
    pub struct AuthSys {
        /// Arbitrary; Linux before 5.1 puts a time here, so it never identifies anything.
        pub stamp: u32,
        /// The client's host name.
        pub machine_name: Opaque<MAX_MACHINE_NAME>,
        /// Effective user.
        pub uid: u32,
        /// Effective group.
        pub gid: u32,
        /// Supplementary groups.
        pub gids: Array<u32, MAX_GROUPS>,
    }
}

impl OpaqueAuth {
    /// AUTH_NONE.
    pub fn none() -> Self {
        Self { flavor: Flavor::None, body: Opaque(Bytes::new()) }
    }

    /// AUTH_SYS with this body.
    pub fn sys(auth: &AuthSys) -> Self {
        Self { flavor: Flavor::Sys, body: Opaque(xdr::to_bytes(auth)) }
    }

    /// The AUTH_SYS body, if that is the flavor.
    pub fn as_sys(&self) -> Option<xdr::Result<AuthSys>> {
        (self.flavor == Flavor::Sys).then(|| xdr::from_bytes(self.body.0.clone(), "AUTH_SYS"))
    }
}

impl AuthSys {
    /// An identity with no supplementary groups and stamp 0.
    pub fn new(machine_name: &str, uid: u32, gid: u32) -> Self {
        Self { stamp: 0, machine_name: machine_name.into(), uid, gid, gids: Array(Vec::new()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sys_round_trips_through_a_credential() {
        let mut auth = AuthSys::new("client", 1000, 100);
        auth.gids.0 = vec![4, 27];
        assert_eq!(OpaqueAuth::sys(&auth).as_sys().unwrap().unwrap(), auth);
        assert!(OpaqueAuth::none().as_sys().is_none());
    }

    #[test]
    fn a_seventeenth_group_is_refused() {
        let mut auth = AuthSys::new("client", 1000, 100);
        auth.gids.0 = vec![0; MAX_GROUPS + 1];
        let error = OpaqueAuth::sys(&auth).as_sys().unwrap().unwrap_err();
        assert_eq!(error.what, "AuthSys.gids");
    }
}
