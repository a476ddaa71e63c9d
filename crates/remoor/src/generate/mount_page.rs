//! mount.remoor(8): the man page that people look for who write fstab(5), from the table of options.

use roff::{Roff, bold, roman};

use crate::mount_options::{description, head, sections};

/// The page's file name.
pub(super) const NAME: &str = "mount.remoor.8";

const DESCRIPTION: [&str; 3] = [
    "mount.remoor is remoor(1) as mount(8) calls it for file systems of the type remoor in fstab(5). It mounts an export \
     of an NFS version 3 server through FUSE and comes back when the server does, or another node takes over, from the \
     source port that the options choose.",
    "Server and export are written server:/export, [ADDRESS]:/export for an IPv6 address, or as a URL, \
     nfs://server[:port]/export[?option=value&...]. Several hosts, as in a,b:/export, are tried in turn: they have to be \
     one server, in which files have the same handles by each of them.",
    "Of options that contradict each other the last one counts. A value with commas stands in double quotes.",
];

const EXAMPLES: [&str; 2] = [
    "server:/srv/data  /mnt  remoor  resvport,rebind=fresh,nolock,_netdev,nofail  0  0",
    "server:/srv/data  /mnt  remoor  noresvport,nolock,_netdev,bg                 0  0",
];

/// The page.
pub(super) fn page() -> Roff {
    let mut roff = Roff::new();
    let source = concat!("remoor ", env!("CARGO_PKG_VERSION"));
    roff.control("TH", ["mount.remoor", "8", " ", source]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("mount.remoor - mount an NFS export that survives failover")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold("mount.remoor"), roman(" SERVER:/EXPORT DIR [-sfnv] [-o OPTIONS]")]);
    roff.control("SH", ["DESCRIPTION"]);
    for paragraph in DESCRIPTION {
        roff.control("PP", []).text([roman(paragraph)]);
    }
    options(&mut roff);
    roff.control("SH", ["EXAMPLES"]).control("nf", []);
    for example in EXAMPLES {
        roff.text([roman(example)]);
    }
    roff.control("fi", []);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman("remoor(1), mount(8), fstab(5), nfs(5), exports(5), fusermount3(1)")]);
    roff
}

fn options(roff: &mut Roff) {
    roff.control("SH", ["OPTIONS"]);
    roff.text([roman("[remount] marks what -o remount can change on a mount that is in use.")]);
    for (title, rows) in sections() {
        roff.control("SS", [title]);
        for row in rows {
            roff.control("TP", []).text([bold(head(row))]).text([roman(description(row))]);
        }
    }
}

#[cfg(test)]
mod tests {
    use remoor_mount::options::{Parsed, fstab::Line, table};

    use super::*;

    #[test]
    fn every_option_is_in_the_page() {
        let page = page().to_roff().replace("\\-", "-");
        for row in table() {
            assert!(page.contains(&head(row)), "{}", row.name);
        }
        assert!(page.contains(".SS \"Source ports and failover\"\n"), "{page}");
    }

    #[test]
    fn examples_are_lines_without_risk() {
        for example in EXAMPLES {
            let line = Line::parse(example).unwrap().unwrap();
            let spec = line.spec.parse().unwrap();
            let parsed = Parsed::new(&spec, &line.options, false).unwrap();
            let warns = |level| level == remoor_mount::options::check::Level::Warning;
            assert!(parsed.review(&spec).iter().all(|finding| !warns(finding.level)), "{example}");
            assert!(parsed.review_fstab().iter().all(|finding| !warns(finding.level)), "{example}");
        }
    }
}
