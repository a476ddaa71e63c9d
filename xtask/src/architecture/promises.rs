//! docs/semantics.md: every sentence names the test that holds it to be true.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Violation, shown};

/// Promises without a test, and tests no promise names. `tests` are the names of the tests that exist.
pub fn violations(file: &Path, text: &str, tests: &BTreeSet<String>) -> Vec<Violation> {
    let told = text.lines().enumerate().filter(|(_, line)| line.starts_with("- "));
    let mut named = BTreeSet::new();
    let mut violations: Vec<Violation> = told
        .filter_map(|(at, line)| {
            let name = test_of(line);
            named.extend(name.map(str::to_owned));
            let what = match name {
                None => "a promise names no test".to_owned(),
                Some(name) if !tests.contains(name) => format!("no test is called {name}"),
                Some(_) => return None,
            };
            let remedy = "End the line with the name of its test: (`name`)".into();
            Some(Violation { file: shown(file), line: at + 1, what, remedy })
        })
        .collect();
    violations.extend(tests.difference(&named).map(|test| Violation {
        file: shown(file),
        line: 1,
        what: format!("nothing is promised that the test {test} checks"),
        remedy: "Write the sentence".into(),
    }));
    violations
}

/// The name in ``(`name`)`` at the end of a line.
fn test_of(line: &str) -> Option<&str> {
    line.strip_suffix("`)")?.rsplit_once("(`").map(|(_, name)| name)
}

/// Functions without arguments whose names a table of tests has, as text.
pub fn tests_in(text: &str) -> BTreeSet<String> {
    let functions = text.lines().filter_map(|line| line.strip_prefix("fn ")?.split_once("() {"));
    let in_table = |name: &&str| text.contains(&format!("\"{name}\""));
    functions.map(|(name, _)| name).filter(in_table).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_and_tests_are_matched() {
        let tests =
            tests_in("[(\"a_is_b\", a_is_b), (\n\"c\", c)];\nfn a_is_b() {\n}\nfn c() {\n}\nfn no() {");
        assert_eq!(tests, ["a_is_b", "c"].map(str::to_owned).into());
        let text = "Words.\n- A is B. (`a_is_b`)\n- D. (`d`)\n- E.\n";
        let told: Vec<String> =
            violations(Path::new("x.md"), text, &tests).into_iter().map(|v| v.what).collect();
        assert_eq!(
            told,
            ["no test is called d", "a promise names no test", "nothing is promised that the test c checks"]
        );
    }
}
