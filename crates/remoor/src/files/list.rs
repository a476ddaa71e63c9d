//! Lines of a listing, sorted as long as there is room for that.

use std::io::{self, BufWriter, Write};

use anyhow::Result;
use jiff::tz::TimeZone;
use remoor_nfs::v3::{EntryPlus, FileType};

use super::cat::Output;
use super::dir::Listing;
use super::name::Names;
use super::server::Object;
use super::show;

/// Entries that are kept to be sorted; what a larger directory has beyond comes as the server sends it.
pub(super) const MAX_SORTED: usize = 1 << 18;

/// What a listing shows.
#[derive(Debug, Clone)]
pub(super) struct Style {
    pub(super) long: bool,
    pub(super) all: bool,
    pub(super) human: bool,
    pub(super) json: bool,
    pub(super) unsorted: bool,
    pub(super) recursive: bool,
    pub(super) names: Names,
    pub(super) zone: TimeZone,
}

/// One entry, ready to be written.
struct Line {
    name: Vec<u8>,
    text: Vec<u8>,
}

/// What listing a directory came to, besides what was written.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Directories in it, by name, if they are to be listed.
    pub(super) directories: Vec<Vec<u8>>,
    /// There were too many entries to sort all.
    pub(super) partly_sorted: bool,
}

impl Style {
    /// Writes the entries of `dir` to standard output.
    pub(super) async fn list(&self, dir: &Object) -> Result<Listed, Output> {
        let (mut listing, mut kept, mut listed) = (Listing::of(dir), Vec::new(), Listed::default());
        let mut sorts = !self.unsorted;
        while let Some(entries) = listing.next().await? {
            for entry in entries.into_iter().filter(|entry| self.all || entry.name.0.first() != Some(&b'.')) {
                let line = self.line(&listing, entry, &mut listed).await?;
                kept.push(line);
            }
            if sorts && kept.len() > MAX_SORTED {
                (sorts, listed.partly_sorted) = (false, true);
                kept.sort_by(|a: &Line, b| a.name.cmp(&b.name));
            }
            if !sorts {
                write(std::mem::take(&mut kept))?;
            }
        }
        kept.sort_by(|a, b| a.name.cmp(&b.name));
        write(kept)?;
        listed.directories.sort();
        Ok(listed)
    }

    async fn line(&self, listing: &Listing, entry: EntryPlus, listed: &mut Listed) -> Result<Line> {
        let name = entry.name.0.to_vec();
        if !self.long && !self.json && !self.recursive {
            return Ok(Line { text: [self.names.shown(&name), b"\n".to_vec()].concat(), name });
        }
        let object = listing.object(entry).await?;
        if self.recursive && object.is_dir() {
            listed.directories.push(name.clone());
        }
        Ok(Line { text: self.shown(&object, &name).await?, name })
    }

    /// An object as a line, under `name`.
    pub(super) async fn shown(&self, object: &Object, name: &[u8]) -> Result<Vec<u8>> {
        let target = match object.attr.kind {
            FileType::Symlink if self.long || self.json => Some(object.target().await?),
            _ => None,
        };
        if self.json {
            return Ok(format!("{}\n", show::json(&object.url, &object.attr, target.as_deref())).into_bytes());
        }
        let mut line = if self.long { self.attributes(object).into_bytes() } else { Vec::new() };
        line.extend(self.names.shown(name));
        if let Some(target) = target {
            line.extend(b" -> ");
            line.extend(self.names.shown(&target));
        }
        line.push(b'\n');
        Ok(line)
    }

    /// Everything before the name. Columns have fixed widths, because lines are written as they come.
    fn attributes(&self, object: &Object) -> String {
        let attr = &object.attr;
        let size = match attr.kind {
            FileType::Block | FileType::Character => format!("{}, {}", attr.rdev.major, attr.rdev.minor),
            _ => show::size(attr.size, self.human),
        };
        let width = if self.human { 5 } else { 12 };
        format!(
            "{} {:>3} {:>5} {:>5} {size:>width$} {} ",
            show::mode(attr),
            attr.nlink,
            attr.uid,
            attr.gid,
            show::minute(attr.mtime, &self.zone)
        )
    }
}

fn write(lines: Vec<Line>) -> Result<(), Output> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = lines.iter().try_for_each(|line| out.write_all(&line.text));
    Output::written(written.and_then(|()| out.flush()))
}
