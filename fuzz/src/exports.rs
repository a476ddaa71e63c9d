//! Files in the form of exports(5).

use std::path::Path;

use remoor_server::exports::{Origin, Parsed};

/// Inputs to start from.
pub fn seeds() -> Vec<Vec<u8>> {
    let lines: [&[u8]; 6] = [
        b"/a *(rw,no_subtree_check) # why\n\"/b c\"\\040d -ro,sync @group(insecure) \\\n *.example.org\n",
        b"/a 192.0.2.0/24(ro,squash_uids=0-15,20,anonuid=-2) 2001:db8::/32 host[0-9].example.org()",
        b"memory:/x 10.0.0.0/255.255.255.0(fsid=0x10) (rw)\n/y\n",
        b"/a h(mp,nordirplus) i(mountpoint=/b,fsid=12345678-1234-1234-1234-123456789abc)",
        b"/a *(rw,ro,crossmnt,sec=krb5,frobnicate)\nx\n\"",
        b"/a [2001:db8::1] gss/krb5 @ 192.0.2.0/33 [z-a] -x",
    ];
    lines.map(<[u8]>::to_vec).into()
}

/// Parses the input; every error has a line, and what was understood is read back as it is shown.
pub fn run(data: &[u8]) {
    let parsed = Parsed::from_text(Path::new("exports"), data);
    let has_line = |origin: &Origin| matches!(origin, Origin::File(_, 1..));
    assert!(parsed.errors.iter().all(|error| has_line(&error.origin)), "{:?}", parsed.errors);
    let shown = text(&parsed);
    let again = Parsed::from_text(Path::new("shown"), shown.as_bytes());
    assert!(again.errors.is_empty(), "{:?} in {shown:?}", again.errors);
    assert_eq!(text(&again), shown);
}

fn text(parsed: &Parsed) -> String {
    parsed.exports.list.iter().map(|export| format!("{export}\n")).collect()
}
