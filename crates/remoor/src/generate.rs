//! `remoor generate`: man pages and shell completions, from the tables that parse the command line.
//! For those who package remoor; `cargo xtask gen` runs it.

mod mount_page;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Arg, ArgMatches, CommandFactory, ValueEnum, value_parser};
use clap_complete::Shell;
use clap_mangen::Man;
use roff::{Roff, roman};

use crate::{Cli, Failure};

/// The subcommand's name.
pub(crate) const NAME: &str = "generate";

/// The subcommand. It is no part of [`Cli`], so that neither help nor what it writes mentions it.
pub(crate) fn command() -> clap::Command {
    let dir =
        Arg::new("dir").long("dir").value_name("DIR").required(true).value_parser(value_parser!(PathBuf));
    let about = "Write man pages and shell completions";
    clap::Command::new(NAME)
        .hide(true)
        .about(about)
        .arg(dir.help("Directory to write man/ and completions/ in"))
}

pub(crate) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let Some(dir) = matches.get_one::<PathBuf>("dir") else { return Ok(()) };
    write_all(dir)
        .with_context(|| {
            format!("cannot write man pages and completions in {}; name another --dir", dir.display())
        })
        .map_err(Failure::Usage)
}

fn write_all(dir: &Path) -> io::Result<()> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    for (name, page) in pages()? {
        fs::write(man.join(name), page)?;
    }
    for shell in Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut Cli::command(), "remoor", &completions)?;
    }
    Ok(())
}

/// A man page for the program, one for each subcommand, and the one for mount(8), by file name.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let commands = with_subcommands(&program);
    let mut mount = Vec::new();
    mount_page::page().to_writer(&mut mount)?;
    let pages = commands.iter().map(|command| page(command, &commands));
    pages.chain([Ok((mount_page::NAME.to_owned(), mount))]).collect()
}

/// A command, its subcommands, and theirs.
pub(crate) fn with_subcommands(command: &clap::Command) -> Vec<clap::Command> {
    let below = command.get_subcommands().flat_map(with_subcommands);
    [command.clone()].into_iter().chain(below).collect()
}

fn page(command: &clap::Command, all: &[clap::Command]) -> io::Result<(String, Vec<u8>)> {
    let man = Man::new(command.clone()).source(concat!("remoor ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    notes(command).to_writer(&mut page)?;
    see_also(command, all).to_writer(&mut page)?;
    Ok((man.get_filename(), page))
}

/// The pages of the other commands, and those whose files and options these commands share.
fn see_also(command: &clap::Command, all: &[clap::Command]) -> Roff {
    let name = |command: &clap::Command| command.get_display_name().unwrap_or("remoor").to_owned();
    let others = all.iter().map(name).filter(|other| *other != name(command));
    let pages = others.map(|other| format!("{other}(1)")).chain(["exports(5)", "nfs(5)"].map(str::to_owned));
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]).text([roman(pages.collect::<Vec<_>>().join(", "))]);
    roff
}

/// What follows the options in the help, line by line: it has tables and examples.
fn notes(command: &clap::Command) -> Roff {
    let mut roff = Roff::new();
    if let Some(text) = command.get_after_long_help().or(command.get_after_help()) {
        roff.control("SH", ["NOTES"]).control("nf", []);
        for line in text.to_string().lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The program and its subcommands.
    fn shown() -> Vec<clap::Command> {
        let mut program = Cli::command().disable_help_subcommand(true);
        program.build();
        with_subcommands(&program)
    }

    fn text_of(page: &[u8]) -> String {
        String::from_utf8(page.to_vec()).unwrap().replace("\\-", "-")
    }

    #[test]
    fn every_option_is_in_the_man_page_of_its_command() {
        let pages = pages().unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        let exports = ["remoor-exports", "remoor-exports-check", "remoor-exports-options"];
        let wanted = [
            &["remoor", "remoor-drill", "remoor-mount"],
            &exports[..],
            &["remoor-serve", "remoor-exportfs", "remoor-status"],
            &["remoor-ls", "remoor-cat", "remoor-cp", "remoor-put", "remoor-rm", "remoor-stat"],
        ];
        let wanted = wanted.concat().into_iter().map(|name| format!("{name}.1"));
        assert_eq!(names, wanted.chain([mount_page::NAME.to_owned()]).collect::<Vec<_>>());
        for (command, (name, page)) in shown().iter().zip(&pages) {
            let page = text_of(page);
            let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
            for option in shown.filter_map(|argument| argument.get_long()) {
                assert!(page.contains(&format!("--{option}")), "--{option} is not in {name}:\n{page}");
            }
        }
    }

    #[test]
    fn examples_stand_in_man_pages_as_they_are_typed() {
        let pages = pages().unwrap();
        for (command, (name, page)) in shown().iter().zip(&pages) {
            let notes = command.get_after_long_help().or(command.get_after_help()).unwrap().to_string();
            let page = text_of(page);
            assert!(page.contains(".SH NOTES\n.nf\n"), "{name}");
            assert!(
                page.contains(".SH \"SEE ALSO\"\n") && page.contains("(1), exports(5), nfs(5)"),
                "{name}"
            );
            assert!(!page.contains(&name.replace(".1", "(1),")), "{name} refers to itself");
            for example in notes.lines().filter(|line| line.starts_with("  remoor ")) {
                assert!(page.contains(&format!("{example}\n")), "{example} is not in {name}");
            }
        }
    }

    #[test]
    fn completions_of_every_shell_know_every_option() {
        let dir = tempfile::tempdir().unwrap();
        write_all(dir.path()).unwrap();
        let completions: Vec<_> = fs::read_dir(dir.path().join("completions")).unwrap().collect();
        assert_eq!(completions.len(), Shell::value_variants().len());
        for file in completions {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            assert!(!text.contains(NAME), "{} tells of a command for packagers", path.display());
            for option in ["probe-delay", "rounds", "exports", "strict", "workers", "metrics", "watch"] {
                assert!(text.contains(option), "{option} is not in {}", path.display());
            }
        }
        assert_eq!(fs::read_dir(dir.path().join("man")).unwrap().count(), pages().unwrap().len());
    }
}
