//! Called by mount(8) as its helper: `/sbin/mount.remoor SPEC DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::exit::{self, Failed};
use super::order::Order;

/// Mount an NFS export, as a helper of mount(8).
///
/// `remoor mount --help` explains the options.
#[derive(Debug, Parser)]
#[command(version, after_help = exit::HELP, max_term_width = crate::columns::WIDTH)]
struct HelperArgs {
    /// Server and export, as in server:/export
    spec: String,
    /// Where to mount
    dir: OsString,
    /// Options, separated by commas
    #[arg(short, value_name = "OPTIONS")]
    options: Vec<String>,
    /// Ignore unknown options
    #[arg(short)]
    sloppy: bool,
    /// Do everything but mount
    #[arg(short)]
    fake: bool,
    /// No effect: there is no mtab
    #[arg(short)]
    no_mtab: bool,
    /// Tell what is done
    #[arg(short)]
    verbose: bool,
    /// Mount read-only
    #[arg(short)]
    read_only: bool,
    /// Mount read-write
    #[arg(short = 'w', conflicts_with = "read_only")]
    read_write: bool,
    /// Mount in this mount namespace: a file, or the id of a process
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<OsString>,
    /// No effect: the type is known from the helper's name
    #[arg(short, value_name = "TYPE")]
    types: Option<String>,
}

/// The helper's name, if the program was called as one.
pub(crate) fn called_as() -> Option<String> {
    let path = std::env::args_os().next()?;
    name_of(&path)
}

fn name_of(path: &std::ffi::OsStr) -> Option<String> {
    let name = Path::new(path).file_name()?.to_str()?;
    name.starts_with("mount.").then(|| name.to_owned())
}

/// Mounts as mount(8) asks.
pub(crate) fn main(program: &str) -> ExitCode {
    let args = match HelperArgs::try_parse() {
        Ok(args) => args,
        Err(message) => {
            let _ = message.print();
            return ExitCode::from(if message.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    match run(program, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => complain(program, &failed),
    }
}

#[allow(clippy::print_stderr, reason = "mount(8) shows what its helper says")]
fn complain(program: &str, failed: &Failed) -> ExitCode {
    eprintln!("{program}: {}", failed.message);
    ExitCode::from(failed.code)
}

fn run(program: &str, args: HelperArgs) -> Result<(), Failed> {
    if let Some(namespace) = &args.namespace {
        enter(namespace)?;
    }
    let mut options = args.options;
    options.extend(args.read_only.then(|| "ro".to_owned()));
    options.extend(args.read_write.then(|| "rw".to_owned()));
    let order = Order {
        program: program.to_owned(),
        spec: args.spec,
        dir: args.dir.into(),
        options: options.join(","),
        sloppy: args.sloppy,
        fake: args.fake,
        verbose: args.verbose,
        ..Order::default()
    };
    order.in_background()
}

/// Before any thread is started: a mount namespace is entered by processes with one thread only.
fn enter(namespace: &std::ffi::OsStr) -> Result<(), Failed> {
    let is_id = namespace.to_str().is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let path = if is_id { Path::new("/proc").join(namespace).join("ns/mnt") } else { namespace.into() };
    let entered = File::open(&path)
        .and_then(|file| Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Mount))?));
    entered
        .map_err(|e| Failed::usage(format!("cannot enter the mount namespace {} (-N): {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn what_mount_8_says_is_understood() {
        let said = "mount.remoor h:/e /mnt -s -v -n -o rw,noresvport -N /proc/1/ns/mnt -t fuse.remoor";
        let args = HelperArgs::try_parse_from(said.split(' ')).unwrap();
        assert_eq!((args.spec.as_str(), args.dir.to_str().unwrap()), ("h:/e", "/mnt"));
        assert!(args.sloppy && args.verbose && args.no_mtab && !args.fake);
        assert_eq!(args.options, ["rw,noresvport"]);
        assert!(HelperArgs::try_parse_from(["mount.remoor", "h:/e"]).is_err());
        HelperArgs::command().debug_assert();
    }

    #[test]
    fn helpers_are_known_by_their_name() {
        let name = |path: &str| name_of(path.as_ref());
        assert_eq!(name("/sbin/mount.fuse.remoor").as_deref(), Some("mount.fuse.remoor"));
        assert_eq!(name("mount.remoor").as_deref(), Some("mount.remoor"));
        assert_eq!([name("/usr/bin/remoor"), name("/mount.d/remoor"), name("")], [None, None, None]);
    }

    #[test]
    fn a_namespace_that_is_not_there_is_a_wrong_argument() {
        let failed = enter("/does/not/exist".as_ref()).unwrap_err();
        assert_eq!(failed.code, exit::USAGE);
        assert!(failed.message.contains("/does/not/exist (-N)"), "{}", failed.message);
    }
}
