//! The outer form of exports(5): lines, comments, continuation, quotes and octal escapes.

/// One entry: words separated by blanks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) words: Vec<Word>,
    /// Whether a comment stands on its lines, or alone on the line above.
    pub(super) has_comment: bool,
}

/// A word after unquoting. Bytes, since a path need not be UTF-8.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: Vec<u8>,
    /// The number of the line it stands on; an entry that is continued has several.
    pub(super) line: usize,
}

/// A quote that is not closed on the line it opens on: its number, and what has been read of the word.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OpenQuote {
    pub(super) line: usize,
    pub(super) text: Vec<u8>,
}

/// Splits a file into entries. After an error the next line is read as if nothing had been wrong.
pub(super) fn entries(text: &[u8]) -> Vec<Result<Entry, OpenQuote>> {
    let mut lexer = Lexer { rest: text, line: 1, comment_above: false };
    let mut out = Vec::new();
    while !lexer.rest.is_empty() {
        match lexer.entry() {
            Ok(entry) if entry.words.is_empty() => {}
            entry => out.push(entry),
        }
    }
    out
}

struct Lexer<'a> {
    rest: &'a [u8],
    line: usize,
    /// Whether the line above holds nothing but a comment.
    comment_above: bool,
}

/// What the next byte is, outside and inside quotes.
enum Next {
    Byte(u8),
    Blank,
    EndOfLine,
    Comment,
    Quote,
}

impl Lexer<'_> {
    /// One logical line: up to a line end that no backslash stands before.
    fn entry(&mut self) -> Result<Entry, OpenQuote> {
        let mut entry = Entry { words: Vec::new(), has_comment: self.comment_above };
        let mut comment = false;
        loop {
            match self.peek(false) {
                (Next::EndOfLine, length) => {
                    self.skip(length);
                    break;
                }
                (Next::Blank, length) => self.skip(length),
                (Next::Comment, length) => {
                    self.skip(length);
                    comment = true;
                }
                _ => entry.words.push(self.word()?),
            }
        }
        entry.has_comment |= comment;
        self.comment_above = comment && entry.words.is_empty();
        Ok(entry)
    }

    fn word(&mut self) -> Result<Word, OpenQuote> {
        let (mut text, mut quoted, line) = (Vec::new(), false, self.line);
        loop {
            let (next, length) = self.peek(quoted);
            match next {
                Next::Byte(byte) => text.push(byte),
                Next::Quote => quoted = !quoted,
                Next::Blank if quoted => text.push(b' '),
                Next::EndOfLine if quoted => {
                    self.skip(length);
                    return Err(OpenQuote { line, text });
                }
                Next::Blank | Next::EndOfLine | Next::Comment => return Ok(Word { text, line }),
            }
            self.skip(length);
        }
    }

    /// What comes next, and how many bytes it has; at the end of the file an end of line of no bytes.
    fn peek(&self, quoted: bool) -> (Next, usize) {
        match self.rest {
            [] => (Next::EndOfLine, 0),
            [b'\n', ..] => (Next::EndOfLine, 1),
            [b'\\', b'\n', after @ ..] => (Next::Blank, 2 + indent(after)),
            [b'\\', after @ ..] => octal(after).map_or((Next::Byte(b'\\'), 1), |byte| (Next::Byte(byte), 4)),
            [b'"', ..] => (Next::Quote, 1),
            [b'#', ..] if !quoted => (Next::Comment, line_length(self.rest)),
            [byte, ..] if byte.is_ascii_whitespace() && !quoted => (Next::Blank, 1),
            [byte, ..] => (Next::Byte(*byte), 1),
        }
    }

    fn skip(&mut self, length: usize) {
        let (skipped, rest) = self.rest.split_at(length);
        self.line += skipped.iter().filter(|byte| **byte == b'\n').count();
        self.rest = rest;
    }
}

/// Bytes before the end of the line: a backslash does not continue a comment (nfs-utils' `xskipcomment`).
fn line_length(text: &[u8]) -> usize {
    text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len())
}

/// A continuation and the blanks that the next line begins with are one blank (nfs-utils' `xgetc`).
fn indent(text: &[u8]) -> usize {
    text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

fn octal(text: &[u8]) -> Option<u8> {
    let digits = text.get(..3).filter(|d| d.iter().all(|b| (b'0'..=b'7').contains(b)))?;
    digits.iter().try_fold(0u8, |n, d| n.checked_mul(8)?.checked_add(d - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<(usize, String)>> {
        let text_of = |w: &Word| (w.line, String::from_utf8(w.text.clone()).unwrap());
        let entries = entries(text.as_bytes()).into_iter().map(Result::unwrap);
        entries.map(|e| e.words.iter().map(text_of).collect()).collect()
    }

    fn word(line: usize, text: &str) -> (usize, String) {
        (line, text.into())
    }

    #[test]
    fn comments_continuations_quotes_and_escapes() {
        let text = "# all\n\n/a  *(rw) # some\n/b \\\n  192.0.2.1(ro) \\\n *\n\"/c d\"/e\\040f x\n";
        assert_eq!(
            words(text),
            [
                vec![word(3, "/a"), word(3, "*(rw)")],
                vec![word(4, "/b"), word(5, "192.0.2.1(ro)"), word(6, "*")],
                vec![word(7, "/c d/e f"), word(7, "x")],
            ]
        );
    }

    #[test]
    fn a_continuation_is_a_blank_even_within_quotes() {
        assert_eq!(words("\"/a\\\n   b\" *\\\n"), [[word(1, "/a b"), word(2, "*")]]);
        assert_eq!(words("/a\\\n*(rw)"), [[word(1, "/a"), word(2, "*(rw)")]]);
    }

    #[test]
    fn a_comment_is_not_continued() {
        assert_eq!(
            words("/a * # or \\\n/b *\n"),
            [[word(1, "/a"), word(1, "*")], [word(2, "/b"), word(2, "*")]]
        );
        assert_eq!(words("/a x#y\n\"/b#c\"")[0], [word(1, "/a"), word(1, "x")]);
        assert_eq!(words("/a x#y\n\"/b#c\"")[1], [word(2, "/b#c")]);
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(words("/a\\9 /b\\777"), [[word(1, "/a\\9"), word(1, "/b\\777")]]);
        assert_eq!(words("\\"), [[word(1, "\\")]]);
    }

    #[test]
    fn an_open_quote_ends_with_its_line() {
        let got = entries(b"\n/a \"x (y\n/b *");
        assert_eq!(got[0], Err(OpenQuote { line: 2, text: b"x (y".to_vec() }));
        assert_eq!(got[1].as_ref().unwrap().words[0], Word { text: b"/b".to_vec(), line: 3 });
        assert_eq!(got.len(), 2);
    }

    #[test]
    fn a_comment_belongs_to_its_line_and_to_the_one_below() {
        let text = "/a x # why\n/b x\n# why\n/c x\n\n# other\n\n/d x\n/e \\\n x # why";
        let got: Vec<bool> = entries(text.as_bytes()).into_iter().map(|e| e.unwrap().has_comment).collect();
        assert_eq!(got, [true, false, true, false, true]);
    }
}
