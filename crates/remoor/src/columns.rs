//! Text in columns, for help and listings.

use std::fmt;

/// Widest line of any help text.
pub(crate) const WIDTH: usize = 100;

/// `head`, then `text` from column `indent` on, in lines of at most [`WIDTH`].
pub(crate) fn row(head: &str, indent: usize, text: &str) -> String {
    let (mut out, mut line) = (String::new(), format!("{head:<indent$}"));
    if !head.is_empty() && head.chars().count() >= indent {
        (out, line) = (head.to_owned() + "\n", " ".repeat(indent));
    }
    let mut words_begin = true;
    for word in text.split_whitespace() {
        let space = usize::from(!words_begin);
        if !words_begin && line.chars().count() + space + word.chars().count() > WIDTH {
            out = out + &line + "\n";
            (line, words_begin) = (" ".repeat(indent), true);
        }
        line = line + if words_begin { "" } else { " " } + word;
        words_begin = false;
    }
    out + &line + "\n"
}

/// `1 call`, `2 calls`.
pub(crate) fn counted<N: fmt::Display + PartialEq + From<u8>>(n: N, what: &str) -> String {
    format!("{n} {what}{}", if n == N::from(1) { "" } else { "s" })
}

/// Without control characters, which a terminal would obey: those of paths are the clients' word.
pub(crate) fn plain(text: &str) -> String {
    let plain = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_hangs_beside_its_head() {
        let text = "word ".repeat(30);
        let lines: Vec<String> = row("  ro", 8, &text).lines().map(str::to_owned).collect();
        assert_eq!(lines[0], format!("  ro    {}", ["word"; 18].join(" ")));
        assert_eq!(lines[1], format!("        {}", ["word"; 12].join(" ")));
    }

    #[test]
    fn a_long_head_has_its_own_line() {
        assert_eq!(row("  fsid=NUMBER", 8, "identity"), "  fsid=NUMBER\n        identity\n");
        assert_eq!(row("", 0, "text alone"), "text alone\n");
    }
}
