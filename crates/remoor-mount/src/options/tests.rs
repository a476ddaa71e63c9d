use proptest::prelude::*;

use super::*;
use crate::fs::config::LookupCache;

fn options(list: &str) -> MountOptions {
    list.parse().unwrap_or_else(|error| panic!("{list}: {error}"))
}

fn error(list: &str) -> String {
    list.parse::<MountOptions>().unwrap_err().to_string()
}

/// A value that an option takes.
fn example(row: &OptionRow) -> String {
    let value = match (row.name, row.argument) {
        (_, Argument::None) => return row.name.replace('*', "a"),
        ("vers" | "mountvers", _) => "3",
        ("proto" | "mountproto", _) => "tcp6",
        ("mounthost", _) => "nas",
        ("metrics", _) => "[::1]:9465",
        ("addr" | "mountaddr", _) => "192.0.2.7",
        ("sec", _) => "sys",
        ("write", _) => "lazy",
        ("xprtsec", _) => "none",
        ("local_lock", _) => "all",
        ("lookupcache", _) => "none",
        ("rebind", _) => "fresh",
        ("abandon", _) => "fin",
        _ => "8",
    };
    format!("{}={value}", row.name.replace('*', "a"))
}

/// Every option of the mount that is specified, by name.
const SPECIFIED: &str = "vers nfsvers proto port mountport mountproto mountvers rsize wsize hard soft softerr timeo retrans \
    resvport noresvport rebind nconnect ac noac acregmin acregmax acdirmin acdirmax actimeo lookupcache cto nocto bg fg \
    retry sec nolock lock local_lock intr sync async ro rw noexec nosuid nodev noatime relatime defaults _netdev nofail \
    nouser user addr clientaddr sharecache fsc posix allow_other default_permissions uid gid suspect stuck abandon";

#[test]
fn every_specified_option_is_in_the_table() {
    for name in SPECIFIED.split_whitespace() {
        assert!(find(name).is_some(), "{name}");
    }
    for its in CONNECTION {
        let row = find(its.name).unwrap();
        assert!(matches!(row.status, Status::Connection), "{} has a meaning of its own here", its.name);
    }
}

#[test]
fn every_name_stands_once_and_every_row_has_its_words() {
    let names = || table().iter().flat_map(|row| [row.name].into_iter().chain(row.aliases.iter().copied()));
    for name in names() {
        assert_eq!(names().filter(|other| *other == name).count(), 1, "{name}");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.*".contains(c)), "{name}");
    }
    for row in table() {
        assert!(row.meaning.len() > 8 && !row.default.is_empty(), "{}", row.name);
        assert!(row.reason().is_none_or(|reason| reason.len() > 8), "{}", row.name);
    }
}

#[test]
fn every_row_is_obeyed_or_refused_and_shown_so_that_it_is_parsed_back() {
    for row in table() {
        let word = example(row);
        match row.class() {
            Class::Refused => assert!(error(&word).contains("is refused: "), "{word}"),
            _ => {
                let once = options(&word);
                assert_eq!(options(&once.to_string()), once, "{word}");
                assert_eq!(options(&format!("{word},{word}")), once, "{word} twice");
            }
        }
        if row.class() == Class::NoEffect {
            assert_eq!(options(&word), MountOptions::default(), "{word} has an effect");
        }
    }
}

#[test]
fn flags_that_are_the_default_change_nothing() {
    for row in table().iter().filter(|row| row.default == "yes" && row.class() == Class::Implemented) {
        assert_eq!(options(row.name), MountOptions::default(), "{}", row.name);
    }
    let valued =
        table().iter().filter(|row| row.argument != Argument::None && row.class() == Class::Implemented);
    for row in valued.filter(|row| row.default.parse::<u32>().is_ok()) {
        assert_eq!(
            options(&format!("{}={}", row.name, row.default)),
            MountOptions::default(),
            "{}",
            row.name
        );
    }
}

#[test]
fn a_later_option_takes_back_an_earlier_one() {
    for (list, same) in [
        ("ro,rw", ""),
        ("soft,hard", ""),
        ("hard,softerr,soft", "soft"),
        ("noac,ac", ""),
        ("ac,noac", "noac"),
        ("acregmin=9,actimeo=7", "actimeo=7"),
        ("actimeo=7,acdirmax=9", "acregmin=7,acregmax=7,acdirmin=7,acdirmax=9"),
        ("noresvport,resvport", ""),
        ("user,exec,suid,dev", ""),
        ("exec,users", "noexec,nosuid,nodev"),
        ("owner", "nosuid,nodev"),
        ("port=2050,port=0", ""),
        ("bg,fg", ""),
        ("sync,async,nocto,cto", ""),
    ] {
        assert_eq!(options(list), options(same), "{list}");
    }
}

#[test]
fn options_come_to_what_nfs5_says() {
    let all =
        options("rsize=100,wsize=66000,actimeo=0,lookupcache=pos,bg,proto=tcp6,addr=[::1],mountport=635");
    assert_eq!((all.fs.rsize, all.fs.wsize, all.fs.lookup_cache), (4096, 65536, LookupCache::Positive));
    assert_eq!((all.fs.acregmin, all.fs.acdirmax), (Duration::ZERO, Duration::ZERO));
    assert_eq!((all.retry(), all.family, all.mountport), (RETRY_BACKGROUND, Family::V6, Some(635)));
    assert_eq!((options("").retry(), options("bg,retry=0").retry()), (RETRY_FOREGROUND, Duration::ZERO));
    assert_eq!(options("acregmin=100").fs.acregmax, Duration::from_secs(100));
    assert_eq!(options("mounthost=nas").mnt_host(), Some("nas".into()));
    assert_eq!(options("mountaddr=::1,mounthost=nas").mnt_host(), Some("::1".into()));
    assert_eq!(options("comment=\"a,soft\"").connection, options("").connection);
}

#[test]
fn who_mounts_decides_who_may_use_it() {
    assert!(options("").mounted_by(true).fs_config().several_users);
    assert!(!options("noallow_other").mounted_by(true).fs_config().several_users);
    let user = options("suid,dev").mounted_by(false);
    assert!(!user.fs_config().several_users && user.flags.nosuid && user.flags.nodev);
    assert!(options("allow_other").mounted_by(false).fs_config().several_users);
}

#[test]
fn a_soft_mount_is_patient_until_its_major_timeout() {
    assert_eq!(options("hard,timeo=10").fs_config().patience, None);
    assert_eq!(options("soft,timeo=10,retrans=1").fs_config().patience, Some(Duration::from_secs(2)));
    assert_eq!(options("softerr").fs_config().patience, Some(Duration::from_secs(180)));
}

#[test]
fn unknown_options_are_an_error_unless_sloppy() {
    let spec: Spec = "nfs://nas/a?soft".parse().unwrap();
    for (list, sloppy) in [("frob,hard", true), ("frob,sloppy,hard", false)] {
        let parsed = Parsed::new(&spec, list, sloppy).unwrap();
        assert_eq!(parsed.ignored, ["frob"]);
        assert_eq!(parsed.options, MountOptions::default(), "-o comes after the URL");
    }
    assert!(Parsed::new(&spec, "vers=4", true).is_err(), "what is known and cannot be had is told");
    assert!(Parsed::new(&spec, "remount", false).unwrap().is_remount());
}

#[test]
fn mistakes_are_told_with_the_remedy() {
    let lists = [
        "noresvprt",
        "frobnicate",
        "vers=4.2",
        "nfsvers=4",
        "v4.1",
        "vers=5",
        "proto=udp",
        "udp",
        "sec=krb5p",
        "sec=none",
        "sec=x",
        "xprtsec=tls",
        "port=65536",
        "rsize=64k",
        "soft=1",
        "ro=1",
        "timeo",
        "timeo=",
        "timeo=x",
        "timeo=0",
        "retrans=1000",
        "rebind=maybe",
        "uid=root",
        "actimeo=-1",
        "lookupcache=some",
        "mountvers=2",
        "local_lock=x",
        "addr=nas",
        "mounthost=a b",
        "allow_root",
        "direct_io",
        "x=\"a,b",
        "acregmin",
    ];
    let told: Vec<String> = lists.iter().map(|list| error(list)).collect();
    insta::assert_snapshot!(told.join("\n"));
}

/// Any row's option, with a value it takes or any other.
fn any_word() -> impl Strategy<Value = String> {
    let row = (0..table().len()).prop_map(|at| &table()[at]);
    (row, prop_oneof![3 => Just(None), 1 => "[0-9]{1,5}".prop_map(Some), 1 => "\\PC{0,6}".prop_map(Some)])
        .prop_map(|(row, value)| match value {
            Some(value) => format!("{}={value}", row.name),
            None => example(row),
        })
}

proptest! {
    #[test]
    fn what_is_shown_is_parsed_back(words in proptest::collection::vec(any_word(), 0..12)) {
        let taken = words.iter().filter(|word| word.parse::<MountOptions>().is_ok()).cloned().collect::<Vec<_>>();
        if let Ok(options) = taken.join(",").parse::<MountOptions>() {
            prop_assert_eq!(&options.to_string().parse::<MountOptions>().unwrap(), &options);
            let same = options.remount(&options.to_string(), false).unwrap();
            prop_assert!(same.removed.is_empty() && same.added.is_empty());
        }
    }

    #[test]
    fn anything_is_parsed_or_refused(list in "[a-z=,\"0-9 \\PC]{0,60}", sloppy in any::<bool>()) {
        let spec: Spec = "nas:/a".parse().unwrap();
        if let Ok(parsed) = Parsed::new(&spec, &list, sloppy) {
            parsed.effects();
            parsed.review(&spec);
        }
    }
}
