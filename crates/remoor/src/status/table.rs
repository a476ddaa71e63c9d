//! Tables and numbers as `remoor status` shows them.

use std::ops::Range;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};

use crate::columns;

/// Longest first cell of a row that is not broken, in columns: an IPv6 address.
const UNBROKEN: usize = 39;

/// A table with its header first, or that there is nothing to show. The columns `numbers` are aligned to the right.
pub(super) fn section(what: &str, rows: &[Vec<String>], numbers: Range<usize>) -> String {
    let Some((header, rows)) = rows.split_first() else { return String::new() };
    if rows.is_empty() {
        return format!("\nno {what} yet\n");
    }
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(columns::WIDTH as u16);
    table.set_header(header);
    for row in rows {
        table.add_row(row.iter().map(|cell| columns::plain(cell)));
    }
    for (n, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if n == 0 && rows.iter().all(|row| row[0].len() <= UNBROKEN) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        if numbers.contains(&n) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: String = table.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    format!("\n{lines}")
}

pub(super) fn cells<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// The first few, and how many there are besides; `--json` has all.
pub(super) fn few(list: &[impl ToString]) -> String {
    const SHOWN: usize = 3;
    let first: Vec<String> = list.iter().take(SHOWN).map(ToString::to_string).collect();
    match list.len().saturating_sub(SHOWN) {
        0 => first.join(" "),
        more => format!("{} +{more}", first.join(" ")),
    }
}

pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

pub(super) fn micros(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} µs"),
        1_000..1_000_000 => format!("{} ms", (n as f64 / 100.0).round() / 10.0),
        _ => format!("{} s", (n as f64 / 1e5).round() / 10.0),
    }
}

pub(super) fn duration(secs: f64) -> String {
    let whole = secs as u64;
    match whole {
        0..10 => format!("{secs:.1} s"),
        10..120 => format!("{whole} s"),
        120..7_200 => format!("{} min", whole / 60),
        7_200..86_400 => format!("{} h {} min", whole / 3_600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([0, 1023, 1024, 1 << 40].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.0 TiB"]);
        assert_eq!([25, 2_500, 1_718, 10_000_000].map(micros), ["25 µs", "2.5 ms", "1.7 ms", "10 s"]);
        assert_eq!([0.25, 59.0, 600.0, 90_000.0].map(duration), ["0.2 s", "59 s", "10 min", "1 d 1 h"]);
        assert_eq!((few(&[1, 2]), few(&[1, 2, 3, 4])), ("1 2".into(), "1 2 3 +1".into()));
    }
}
