//! Names that have one place: `unsafe` in `sys`, error numbers below `Vfs`.

use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};

use super::source::{self, Mention};
use super::{Violation, shown};

/// Every `unsafe` in a file that is not a `sys` module.
pub fn stray_unsafe(file: &Path, text: &str) -> anyhow::Result<Vec<Violation>> {
    if file.file_stem().is_some_and(|s| s == "sys") || file.iter().any(|part| part == "sys") {
        return Ok(Vec::new());
    }
    let mut lines = Vec::new();
    unsafe_lines(source::tokens(file, text)?, &mut lines);
    let told = lines.into_iter().map(|line| Violation {
        file: shown(file),
        line,
        what: "`unsafe` outside sys.rs".into(),
        remedy: "Put a safe function around it in the crate's sys.rs, with a SAFETY comment".into(),
    });
    Ok(told.collect())
}

fn unsafe_lines(tokens: TokenStream, lines: &mut Vec<usize>) {
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if ident == "unsafe" => lines.push(ident.span().start().line),
            TokenTree::Group(group) => unsafe_lines(group.stream(), lines),
            _ => {}
        }
    }
}

/// Files that know error numbers: the translation, and what makes the system calls below it.
const KNOWS_ERRNO: [&str; 3] = ["src/errno.rs", "src/sys.rs", "src/vfs/local/"];

/// Every error number that a file names, unless it is one of those that may.
pub fn stray_errno(file: &Path, mentions: &[Mention]) -> Vec<Violation> {
    let name = shown(file).to_string_lossy().into_owned();
    if KNOWS_ERRNO.iter().any(|place| name.contains(place)) {
        return Vec::new();
    }
    let stray = mentions.iter().filter(|m| names_errno(&m.path));
    stray
        .map(|m| Violation {
            file: shown(file),
            line: m.line,
            what: format!("`{}` names an error number", m.path),
            remedy:
                "Convert it in errno.rs and use an NFS status here; around a system call that a signal can \
                     interrupt, use rustix::io::retry_on_intr"
                    .into(),
        })
        .collect()
}

fn names_errno(path: &str) -> bool {
    let segments: Vec<&str> = path.split("::").collect();
    let whole = ["Errno", ".raw_os_error", "from_raw_os_error", "last_os_error"];
    let number = |s: &str| s.len() > 3 && s.starts_with('E') && s.bytes().all(|b| b.is_ascii_uppercase());
    segments.iter().any(|s| whole.contains(s)) || segments.windows(2).any(|w| w[0] == "libc" && number(w[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(file: &str, text: &str) -> Vec<usize> {
        stray_unsafe(Path::new(file), text).unwrap().iter().map(|v| v.line).collect()
    }

    #[test]
    fn unsafe_belongs_in_sys() {
        let text = "// unsafe\nfn f() {\n    unsafe { g() }\n}\nm! { unsafe fn h() {} }\nconst S: &str = \"unsafe\";";
        assert_eq!(at("crates/x/src/lib.rs", text), [3, 5]);
        assert_eq!(at("crates/x/src/sys.rs", text), [0; 0]);
        assert_eq!(at("crates/x/src/sys/socket.rs", text), [0; 0]);
        assert_eq!(at("crates/x/src/system.rs", text), [3, 5]);
    }

    #[test]
    fn error_numbers_belong_in_errno() {
        let text = "use rustix::io::Errno;\nuse super::permission::EXEC;\nfn f(e: std::io::Error) -> bool {\n\
                    e.raw_os_error() == Some(libc::ENOENT)\n}";
        let mentions = source::parse(Path::new("a.rs"), text, None).unwrap().mentions;
        let lines = |file: &str| -> Vec<usize> {
            stray_errno(Path::new(file), &mentions).iter().map(|v| v.line).collect()
        };
        assert_eq!(lines("crates/remoor-server/src/vfs/local.rs"), [1, 4, 4]);
        assert_eq!(lines("crates/remoor-server/src/errno.rs"), [0; 0]);
    }
}
