//! Options of a mount, what is mounted, and lines of fstab(5).

use remoor_mount::options::fstab::Line;
use remoor_mount::options::{Parsed, Spec};

/// Inputs to start from.
pub fn seeds() -> Vec<Vec<u8>> {
    let inputs = [
        "nas:/a\nrw,soft,timeo=50,noresvport,rebind=same,stuck=700,suspect=50,abandon=silent",
        "[2001:db8::1]:/a\nac,actimeo=7,acregmin=100,lookupcache=pos,nocto,rsize=100,wsize=66000,noac,sync",
        "nfs://nas:2050/a%20b?soft&nfsport=2049&readonly=1\nuser,exec,comment=\"a,b\",x-systemd.automount,vers=3",
        "a,192.0.2.1,[fe80::1%eth0]:/x\nport=0,mountport=635,mounthost=nas,addr=[::1],proto=tcp6,sec=krb5:sys,frob",
        "nas:/a /mnt\\040x remoor defaults,_netdev,nofail 0 0\nallow_other,default_permissions,uid=5,gid=5,bg,retry=3",
    ];
    inputs.map(|input| input.as_bytes().to_vec()).into()
}

/// Parses the first line as what is mounted and as a line of fstab(5), the rest as options; what was understood is read
/// back as it is shown, and a mount that is changed to its own options does not change.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (first, list) = text.split_once('\n').unwrap_or((text, ""));
    fstab(first);
    let Ok(spec) = first.parse::<Spec>() else { return };
    let again: Spec = spec.to_string().parse().expect("a spec is parsed as it is shown");
    assert_eq!((&again.hosts, &again.path), (&spec.hosts, &spec.path));
    for sloppy in [false, true] {
        let Ok(parsed) = Parsed::new(&spec, list, sloppy) else { continue };
        let shown = parsed.options.to_string();
        assert_eq!(shown.parse().as_ref(), Ok(&parsed.options), "{shown}");
        let same = parsed.options.remount(&shown, false).expect("nothing changes");
        assert!(same.removed.is_empty() && same.added.is_empty(), "{same:?}");
        assert_eq!(parsed.effects().len(), parsed.given.len());
        parsed.review(&spec);
    }
}

fn fstab(text: &str) {
    if let Ok(Some(line)) = Line::parse(text) {
        let shown = line.to_string();
        assert_eq!(Line::parse(&shown), Ok(Some(line)), "{shown}");
    }
}
