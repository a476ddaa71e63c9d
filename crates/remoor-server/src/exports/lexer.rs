//! The outer form of exports(5): lines, comments, continuation, quotes and octal escapes.

/// One entry: words separated by blanks, and the number of the line it begins on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) words: Vec<Word>,
}

/// A word after unquoting. Bytes, since a path need not be UTF-8.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: Vec<u8>,
}

/// A quote that is not closed; the number of the line it opens on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OpenQuote(pub(super) usize);

/// Splits a file into entries.
pub(super) fn entries(text: &[u8]) -> Result<Vec<Entry>, OpenQuote> {
    logical_lines(text).into_iter().filter_map(|(line, text)| entry(line, &text).transpose()).collect()
}

/// Lines, with those that end in a backslash joined to the next.
fn logical_lines(text: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut out: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut continued = false;
    for (n, line) in text.split(|b| *b == b'\n').enumerate() {
        let joined = line.strip_suffix(b"\\").map(|line| [line, b" "].concat());
        let part = joined.as_deref().unwrap_or(line);
        match out.last_mut().filter(|_| continued) {
            Some((_, whole)) => whole.extend_from_slice(part),
            None => out.push((n + 1, part.to_vec())),
        }
        continued = joined.is_some();
    }
    out
}

fn entry(line: usize, text: &[u8]) -> Result<Option<Entry>, OpenQuote> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() || rest[0] == b'#' {
            break;
        }
        let (word, after) = word(rest).ok_or(OpenQuote(line))?;
        words.push(word);
        rest = after;
    }
    Ok((!words.is_empty()).then_some(Entry { line, words }))
}

/// The first word and what follows it; `None` if a quote is not closed.
fn word(text: &[u8]) -> Option<(Word, &[u8])> {
    let mut out = Vec::new();
    let mut quoted = false;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if octal(&text[at + 1..]).is_some() => {
                out.extend(octal(&text[at + 1..]));
                at += 3;
            }
            b if b.is_ascii_whitespace() && !quoted => break,
            b'#' if !quoted => break,
            b => out.push(*b),
        }
        at += 1;
    }
    (!quoted).then_some((Word { text: out }, &text[at..]))
}

fn octal(text: &[u8]) -> Option<u8> {
    let digits = text.get(..3).filter(|d| d.iter().all(|b| (b'0'..=b'7').contains(b)))?;
    digits.iter().try_fold(0u8, |n, d| n.checked_mul(8)?.checked_add(d - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<(usize, Vec<String>)> {
        let text_of = |w: &Word| String::from_utf8(w.text.clone()).unwrap();
        let entries = entries(text.as_bytes()).unwrap();
        entries.iter().map(|e| (e.line, e.words.iter().map(text_of).collect())).collect()
    }

    #[test]
    fn comments_continuations_quotes_and_escapes() {
        let text = "# all\n\n/a  *(rw) # some\n/b \\\n  192.0.2.1(ro) \\\n *\n\"/c d\"/e\\040f x\n";
        assert_eq!(
            words(text),
            [
                (3, vec!["/a".to_string(), "*(rw)".into()]),
                (4, vec!["/b".into(), "192.0.2.1(ro)".into(), "*".into()]),
                (7, vec!["/c d/e f".into(), "x".into()]),
            ]
        );
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(words("/a\\9 /b\\777")[0].1, ["/a\\9", "/b\\777"]);
        assert_eq!(entries(b"\n\"/a b\n"), Err(OpenQuote(2)));
    }
}
