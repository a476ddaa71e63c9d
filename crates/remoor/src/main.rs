//! The `remoor` command: NFS that survives failover. One file per subcommand.

mod columns;
mod control;
mod drill;
mod exportfs;
mod exports;
mod files;
mod generate;
mod mount;
mod mount_options;
mod serve;
mod state_dir;
mod status;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// NFS that survives failover.
#[derive(Debug, Parser)]
#[command(name = "remoor", version, about, after_help = EXIT_CODES, max_term_width = columns::WIDTH)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Drill(drill::Args),
    Mount(Box<mount::Args>),
    Exports(exports::Args),
    Serve(Box<serve::Args>),
    Exportfs(exportfs::Args),
    Status(status::Args),
    Ls(files::ls::Args),
    Cat(files::cat::Args),
    Cp(files::cp::Args),
    Put(files::put::Args),
    Rm(files::rm::Args),
    Stat(files::stat::Args),
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Exit codes of every subcommand.
const EXIT_CODES: &str = "\
Exit codes:
  0  done; for a drill: every case came out as predicted and nothing was lost
  1  a drill's case came out otherwise; exports check --strict: there are warnings; of several files
     some could not be listed, copied or removed
  2  the command line, an option or a file is wrong
  3  it could not run here: a permission, a namespace, a port, a program or the running server is missing

remoor mount has the exit codes of mount(8), which its --help tells.

Logs go to standard error; RUST_LOG sets their level, for example RUST_LOG=debug.";

/// How a subcommand ends, besides success.
enum Failure {
    /// A case failed, or a check that is to be strict; the report says why.
    Case,
    /// Bad input.
    Usage(anyhow::Error),
    /// Not possible here.
    Cannot(anyhow::Error),
    /// With a code of its own, as `remoor mount` has them.
    Exit(u8, anyhow::Error),
}

impl Failure {
    fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }

    fn cannot(error: impl Into<anyhow::Error>) -> Self {
        Self::Cannot(error.into())
    }
}

fn main() -> ExitCode {
    if let Some(name) = mount::helper::called_as() {
        return mount::helper::main(&name);
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Case) => ExitCode::from(1),
        Err(Failure::Usage(error)) => complain(&error, 2),
        Err(Failure::Cannot(error)) => complain(&error, 3),
        Err(Failure::Exit(code, error)) => complain(&error, code),
    }
}

fn run() -> Result<(), Failure> {
    let parsed = Cli::command().subcommand(generate::command()).try_get_matches();
    let matches = parsed.unwrap_or_else(|error| misunderstood(&error));
    if let Some((generate::NAME, matches)) = matches.subcommand() {
        return generate::run(matches);
    }
    match Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).command {
        Command::Mount(args) => mount::run(*args),
        Command::Drill(args) => start_log("warn", LogFormat::Text).and_then(|()| drill::run(&args)),
        Command::Exports(args) => start_log("error", LogFormat::Text).and_then(|()| exports::run(&args)),
        Command::Serve(args) => start_log("info", args.log_format).and_then(|()| serve::run(&args)),
        Command::Exportfs(args) => exportfs::run(&args),
        Command::Status(args) => status::run(&args),
        command => start_log("error", LogFormat::Text).and_then(|()| run_on_files(&command)),
    }
}

/// The commands on a server's files.
fn run_on_files(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Ls(args) => files::ls::run(args),
        Command::Cat(args) => files::cat::run(args),
        Command::Cp(args) => files::cp::run(args),
        Command::Put(args) => files::put::run(args),
        Command::Rm(args) => files::rm::run(args),
        Command::Stat(args) => files::stat::run(args),
        _ => Ok(()),
    }
}

/// Ends with what is wrong with the command line, or with help. `remoor mount` has the exit codes of mount(8).
fn misunderstood(error: &clap::Error) -> ! {
    let is_mount = std::env::args_os().nth(1).is_some_and(|command| command == "mount");
    if !(is_mount && error.use_stderr()) {
        error.exit();
    }
    let _ = error.print();
    std::process::exit(mount::exit::USAGE.into());
}

#[allow(clippy::print_stderr, reason = "the one place that tells a person why the command ended")]
fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("remoor: {}", said_once(error));
    ExitCode::from(code)
}

/// An error and its causes, without those that the message before them tells already.
fn said_once(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said {
        said if said.is_empty() => cause,
        said if said.contains(&cause) => said,
        said => format!("{said}: {cause}"),
    })
}

fn start_log(default: &str, format: LogFormat) -> Result<(), Failure> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    let started = match format {
        LogFormat::Text => started.try_init(),
        LogFormat::Json => started.json().flatten_event(true).with_ansi(false).try_init(),
    };
    started.map_err(|error| Failure::Cannot(anyhow::anyhow!("cannot start the log: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_was_told_is_not_told_again() {
        let cause = std::io::Error::other("no space");
        let error = anyhow::Error::new(cause).context("cannot write x");
        assert_eq!(said_once(&error), "cannot write x: no space");
        assert_eq!(
            said_once(&error.context("cannot write x: no space; free some")),
            "cannot write x: no space; free some"
        );
    }

    /// Every command with its long and its short help, rendered as wide as help may be.
    fn helps() -> Vec<(clap::Command, [String; 2])> {
        let mut program = Cli::command().term_width(columns::WIDTH);
        program.build();
        let commands = generate::with_subcommands(&program);
        let render = |mut command: clap::Command| {
            let texts = [command.render_long_help().to_string(), command.render_help().to_string()];
            (command, texts)
        };
        commands.into_iter().map(render).collect()
    }

    /// A word as a shell has it. One that means something to a shell has to be quoted.
    fn unquoted(word: &str) -> String {
        match word.strip_prefix('"').and_then(|word| word.strip_suffix('"')) {
            Some(quoted) => quoted.to_owned(),
            None => {
                assert!(!word.contains(['(', ')', '*', ';', '&', '<', '>', '$']), "{word} is not quoted");
                word.to_owned()
            }
        }
    }

    /// What a shell makes of each example in the help.
    fn examples() -> Vec<Vec<String>> {
        let texts = helps().into_iter().map(|(_, [long, _])| long);
        let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
        let examples = lines.filter(|line| line.starts_with("  remoor "));
        let words = |line: String| {
            line.split_whitespace().take_while(|word| !word.starts_with('#')).map(unquoted).collect()
        };
        examples.map(words).collect()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_fits_its_width_and_is_not_wrapped_twice() {
        for (command, texts) in helps() {
            for line in texts.iter().flat_map(|text| text.lines()) {
                assert!(line.chars().count() <= columns::WIDTH, "remoor {}: {line}", command.get_name());
            }
            // Text with line ends of its own would be torn apart if one of its lines were too wide.
            if let Some(written) = command.get_after_long_help() {
                assert!(texts[0].contains(written.to_string().trim_end()), "remoor {}", command.get_name());
            }
        }
    }

    #[test]
    fn examples_work_as_they_are_typed() {
        let examples = examples();
        assert!(examples.len() >= 7, "{examples:?}");
        for example in examples {
            let cli = Cli::try_parse_from(&example).unwrap_or_else(|e| panic!("{example:?}: {e}"));
            match cli.command {
                Command::Drill(args) => drop(args.matrix().cases().unwrap()),
                Command::Exports(_) => {}
                Command::Serve(args) => {
                    assert!(remoor_server::exports::Exports::from_args(&args.export).is_ok())
                }
                _ => {}
            }
        }
    }
}
