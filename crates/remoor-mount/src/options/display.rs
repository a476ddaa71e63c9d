//! The effective options of a mount, in the order and the words of /proc/mounts.

use std::fmt;
use std::time::Duration;

use remoor_nfs::reconnect::{Abandon, Rebind, Recovery, Stuck};

use super::{Family, MountOptions};
use crate::fs;
use crate::fs::config::LookupCache;

impl fmt::Display for MountOptions {
    /// A list that is parsed back to the same options. What is as always is left out where /proc/mounts leaves it out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.effective().join(","))
    }
}

impl MountOptions {
    /// The effective options, one by one.
    pub fn effective(&self) -> Vec<String> {
        let mut words = Words::default();
        words.flags(self);
        words.data(&self.fs);
        words.caches(&self.fs);
        words.connection(&self.connection);
        words.server(self);
        words.mounting(self);
        words.0
    }
}

#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn word(&mut self, word: &str) {
        self.0.push(word.into());
    }

    fn when(&mut self, holds: bool, word: &str) {
        if holds {
            self.word(word);
        }
    }

    fn value(&mut self, name: &str, value: impl fmt::Display) {
        self.0.push(format!("{name}={value}"));
    }

    fn given(&mut self, name: &str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.value(name, value);
        }
    }

    fn flags(&mut self, options: &MountOptions) {
        let flags = options.flags;
        self.word(if flags.read_only { "ro" } else { "rw" });
        self.when(options.fs.sync, "sync");
        self.when(flags.nosuid, "nosuid");
        self.when(flags.nodev, "nodev");
        self.when(flags.noexec, "noexec");
        self.value("vers", 3);
    }

    fn data(&mut self, fs: &fs::Config) {
        self.value("rsize", fs.rsize);
        self.value("wsize", fs.wsize);
    }

    fn caches(&mut self, fs: &fs::Config) {
        let default = fs::Config::default();
        let times = [
            ("acregmin", fs.acregmin, default.acregmin),
            ("acregmax", fs.acregmax, default.acregmax),
            ("acdirmin", fs.acdirmin, default.acdirmin),
            ("acdirmax", fs.acdirmax, default.acdirmax),
        ];
        for (name, time, usual) in times {
            self.given(name, Some(time.as_secs()).filter(|_| time != usual));
        }
        self.when(!fs.attribute_cache, "noac");
        self.when(!fs.close_to_open, "nocto");
        match fs.lookup_cache {
            LookupCache::All => {}
            LookupCache::Positive => self.value("lookupcache", "positive"),
            LookupCache::None => self.value("lookupcache", "none"),
        }
    }

    fn connection(&mut self, options: &remoor_client::Options) {
        let default = remoor_client::Options::default();
        self.word(match options.recovery {
            Recovery::Hard => "hard",
            Recovery::Soft => "soft",
            Recovery::SoftErr => "softerr",
        });
        self.word(if options.reserved { "resvport" } else { "noresvport" });
        self.given(
            "rebind",
            options.rebind.map(|rebind| match rebind {
                Rebind::Same => "same",
                Rebind::Fresh => "fresh",
            }),
        );
        match options.abandon {
            Abandon::Reset => {}
            Abandon::Silent => self.value("abandon", "silent"),
            Abandon::Fin => self.value("abandon", "fin"),
        }
        self.given(
            "suspect",
            Some(options.suspect.as_millis()).filter(|_| options.suspect != default.suspect),
        );
        match options.stuck {
            Stuck::Careful => {}
            Stuck::Timeo => self.value("stuck", "timeo"),
            Stuck::After(time) => self.value("stuck", time.as_millis()),
        }
        self.value("timeo", deciseconds(options.timeo));
        self.value("retrans", options.retrans);
    }

    fn server(&mut self, options: &MountOptions) {
        self.given("nconnect", Some(options.connection.nconnect).filter(|n| *n != 1));
        self.value("proto", if options.family == Family::V6 { "tcp6" } else { "tcp" });
        self.given("port", options.port);
        self.value("sec", "sys");
        self.given("mounthost", options.mounthost.as_deref());
        self.given("mountaddr", options.mountaddr);
        self.given("mountport", options.mountport);
        self.word("nolock");
        self.value("local_lock", "all");
    }

    fn mounting(&mut self, options: &MountOptions) {
        self.when(options.bg, "bg");
        self.given("retry", options.retry);
        match options.allow_other {
            None => {}
            Some(true) => self.word("allow_other"),
            Some(false) => self.word("noallow_other"),
        }
        self.when(options.default_permissions, "default_permissions");
        self.given("uid", options.fs.uid);
        self.given("gid", options.fs.gid);
        self.given("addr", options.addr);
        self.given("metrics", options.metrics);
    }
}

fn deciseconds(time: Duration) -> u128 {
    time.as_millis() / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(list: &str) -> String {
        list.parse::<MountOptions>().unwrap().to_string()
    }

    #[test]
    fn defaults_are_shown_as_the_kernel_shows_them() {
        let defaults = "rw,vers=3,rsize=1048576,wsize=1048576,hard,resvport,timeo=600,retrans=2,proto=tcp,sec=sys,\
                        nolock,local_lock=all";
        assert_eq!(shown(""), defaults);
        assert_eq!(shown(defaults), defaults);
    }

    #[test]
    fn what_was_chosen_is_shown_in_its_place() {
        let list = "noac,actimeo=7,ro,sync,user,exec,soft,noresvport,rebind=same,abandon=fin,suspect=50,stuck=700,\
                    port=2050,lookupcache=pos,nocto,bg,uid=5,addr=[::1],metrics=[::1]:9465,mounthost=nas,mountport=635,noallow_other,proto=tcp6";
        let expected = "ro,sync,nosuid,nodev,vers=3,rsize=1048576,wsize=1048576,acregmin=7,acregmax=7,acdirmin=7,\
                        acdirmax=7,noac,nocto,lookupcache=positive,soft,noresvport,rebind=same,abandon=fin,suspect=50,\
                        stuck=700,timeo=600,retrans=2,proto=tcp6,port=2050,sec=sys,mounthost=nas,mountport=635,nolock,\
                        local_lock=all,bg,noallow_other,uid=5,addr=::1,metrics=[::1]:9465";
        assert_eq!(shown(list), expected);
    }
}
