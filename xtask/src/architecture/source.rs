//! What a source file names, outside its tests: paths as written and as imported, macros, and async code.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use proc_macro2::{Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::read;

/// Something a file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// A path such as `std::fs::File`, a macro such as `println!`, a method such as `.elapsed`, or `async`.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
}

/// A parsed file.
#[derive(Debug)]
pub struct Module {
    /// Where it is.
    pub file: PathBuf,
    /// What it names.
    pub mentions: Vec<Mention>,
    /// Names of the modules in other files that belong to it.
    children: Vec<String>,
}

/// The modules of a crate from its root file on, without tests and without what only `feature` switches on.
pub fn modules(root: &Path, feature: Option<&str>) -> anyhow::Result<Vec<Module>> {
    let mut all = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(file) = todo.pop() {
        let module = parse(&file, &read(&file)?, feature)?;
        for child in &module.children {
            todo.push(child_file(&file, child)?);
        }
        all.push(module);
    }
    Ok(all)
}

/// Parses one file.
pub fn parse(file: &Path, text: &str, feature: Option<&str>) -> anyhow::Result<Module> {
    let tree = syn::parse_file(text).map_err(|e| cannot_parse(file, e.span(), &e))?;
    let mut visitor = Visitor { feature, mentions: Vec::new(), children: Vec::new() };
    visitor.visit_file(&tree);
    Ok(Module { file: file.to_owned(), mentions: visitor.mentions, children: visitor.children })
}

/// The tokens of a file.
pub fn tokens(file: &Path, text: &str) -> anyhow::Result<TokenStream> {
    text.parse().map_err(|e: proc_macro2::LexError| cannot_parse(file, e.span(), &e))
}

fn cannot_parse(file: &Path, span: Span, error: &dyn std::fmt::Display) -> anyhow::Error {
    anyhow!("{}:{}: not Rust: {error}", file.display(), span.start().line)
}

fn child_file(parent: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let stem = parent.file_stem().unwrap_or_default();
    let beside = parent.parent().unwrap_or(Path::new(""));
    let dir =
        if stem == "lib" || stem == "main" || stem == "mod" { beside.into() } else { beside.join(stem) };
    let candidates = [dir.join(format!("{name}.rs")), dir.join(name).join("mod.rs")];
    let found = candidates.into_iter().find(|f| f.is_file());
    found.with_context(|| format!("{}: no file for `mod {name}`", parent.display()))
}

struct Visitor<'a> {
    feature: Option<&'a str>,
    mentions: Vec<Mention>,
    children: Vec<String>,
}

impl Visitor<'_> {
    fn add(&mut self, path: impl Into<String>, span: Span) {
        self.mentions.push(Mention { path: path.into(), line: span.start().line });
    }

    /// Whether an item is only there in tests or with the feature. What is not surely off counts as on.
    fn is_off(&self, attrs: &[syn::Attribute]) -> bool {
        attrs.iter().filter(|a| a.path().is_ident("cfg")).any(|a| {
            let Ok(list) = a.meta.require_list() else { return false };
            let condition = list.tokens.to_string();
            let word = |w: &str| condition.split(|c: char| !c.is_alphanumeric() && c != '_').any(|x| x == w);
            let off = word("test") || self.feature.is_some_and(|f| word("feature") && word(f));
            off && !word("not") && !word("any")
        })
    }

    fn imports(&mut self, prefix: &str, tree: &syn::UseTree) {
        let join = |name: &syn::Ident| match prefix {
            "" => name.to_string(),
            _ => format!("{prefix}::{name}"),
        };
        match tree {
            syn::UseTree::Path(path) => self.imports(&join(&path.ident), &path.tree),
            syn::UseTree::Name(name) if name.ident == "self" => self.add(prefix, name.ident.span()),
            syn::UseTree::Name(name) => self.add(join(&name.ident), name.ident.span()),
            syn::UseTree::Rename(rename) => self.add(join(&rename.ident), rename.ident.span()),
            syn::UseTree::Glob(glob) => self.add(format!("{prefix}::*"), glob.star_token.spans[0]),
            syn::UseTree::Group(group) => group.items.iter().for_each(|t| self.imports(prefix, t)),
        }
    }

    /// Paths in a macro's input, which is not parsed: identifiers joined by `::`, and methods.
    fn loose(&mut self, tokens: TokenStream) {
        let mut path = Vec::new();
        let mut colons = 0;
        let mut start = Span::call_site();
        for token in tokens {
            match &token {
                TokenTree::Punct(p) if p.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) if colons == 2 && !path.is_empty() => {
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Ident(ident) => {
                    self.end_of_path(&mut path, start);
                    (start, colons) = (ident.span(), 0);
                    path.push(ident.to_string());
                }
                TokenTree::Punct(p) if p.as_char() == '!' && path.len() == 1 => path[0].push('!'),
                _ => self.end_of_path(&mut path, start),
            }
            if let TokenTree::Group(group) = token {
                self.loose(group.stream());
            }
        }
        self.end_of_path(&mut path, start);
    }

    fn end_of_path(&mut self, path: &mut Vec<String>, start: Span) {
        if !path.is_empty() {
            self.add(path.join("::"), start);
            path.clear();
        }
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if self.is_off(&item.attrs) {
            return;
        }
        if item.content.is_none() {
            self.children.push(item.ident.to_string());
        }
        visit::visit_item_mod(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !self.is_off(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !self.is_off(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !self.is_off(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !self.is_off(&item.attrs) {
            self.imports("", &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if let Some(first) = path.segments.first() {
            self.add(names.join("::"), first.ident.span());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        if let Some(last) = mac.path.segments.last() {
            self.add(format!("{}!", last.ident), last.ident.span());
        }
        self.loose(mac.tokens.clone());
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.add(format!(".{}", call.method), call.method.span());
        visit::visit_expr_method_call(self, call);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if let Some(token) = &signature.asyncness {
            self.add("async", token.span);
        }
        visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, block: &'ast syn::ExprAsync) {
        self.add("async", block.async_token.span);
        visit::visit_expr_async(self, block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<(String, usize)> {
        let module = parse(Path::new("x.rs"), text, Some("net")).unwrap();
        module.mentions.into_iter().map(|m| (m.path, m.line)).collect()
    }

    fn names(text: &str, path: &str, line: usize) -> bool {
        named(text).contains(&(path.to_string(), line))
    }

    #[test]
    fn imports_are_spelled_out() {
        let text = "use std::{fs,\n  net::{self, TcpStream as S},\n  io::*};";
        assert!(names(text, "std::fs", 1) && names(text, "std::net", 2));
        assert!(names(text, "std::net::TcpStream", 2) && names(text, "std::io::*", 3));
    }

    #[test]
    fn paths_macros_methods_and_async_are_seen() {
        let text = "async fn f() {\n  std::env::var(\"x\");\n  println!(\"{:?}\", Instant::now());\n  t.elapsed();\n}";
        assert!(names(text, "async", 1) && names(text, "std::env::var", 2));
        assert!(names(text, "println!", 3) && names(text, "Instant::now", 3) && names(text, ".elapsed", 4));
        assert!(names("macro_rules! m { () => { $x::f(std::fs::read) } }", "std::fs::read", 1));
    }

    #[test]
    fn tests_and_the_feature_are_left_out() {
        let text = "#[cfg(test)] mod tests { use a::b; }\n#[cfg(feature = \"net\")] pub mod net { use a::b; }\n\
                    #[cfg(all(test, x))] fn f() { a::b(); }\n#[cfg(test)] use a::b;";
        assert!(named(text).iter().all(|(path, _)| path != "a::b"), "{:?}", named(text));
        assert!(names("#[cfg(not(test))] mod m { use a::b; }", "a::b", 1));
        assert!(names("#[cfg(feature = \"other\")] mod m { use a::b; }", "a::b", 1));
    }

    #[test]
    fn comments_and_strings_name_nothing() {
        assert_eq!(named("// std::fs\nconst S: u8 = b\"std::fs\"[0];").len(), 1);
    }

    #[test]
    fn a_syntax_error_is_told_with_its_line() {
        let error = parse(Path::new("x.rs"), "fn f() {}\nfn {}", None).unwrap_err();
        assert!(error.to_string().starts_with("x.rs:2: "), "{error}");
    }
}
