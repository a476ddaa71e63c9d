//! A parser that takes what the text format of Prometheus allows and nothing else. For tests.

use std::collections::{BTreeMap, HashSet};

/// A sample: its metric's full name, its labels, its value.
pub type Sample = (String, BTreeMap<String, String>, f64);

/// All samples.
///
/// # Panics
/// With the line that is wrong.
pub fn parse(text: &str) -> Vec<Sample> {
    assert!(text.ends_with('\n'), "the last line must end");
    let (mut samples, mut seen, mut family) = (Vec::new(), HashSet::new(), (String::new(), String::new()));
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, _) = help.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            assert!(seen.insert(name.to_owned()), "{name} is there twice");
            let declared = lines.next().and_then(|next| next.strip_prefix("# TYPE "));
            let (typed, kind) = declared.and_then(|t| t.split_once(' ')).expect("TYPE follows HELP");
            assert_eq!(typed, name);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            family = (name.to_owned(), kind.to_owned());
            continue;
        }
        let sample = sample(line);
        check_name(&sample.0, &family);
        samples.push(sample);
    }
    unique(&samples);
    check_histograms(&samples);
    samples
}

fn check_name(name: &str, (family, kind): &(String, String)) {
    let suffix = name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{name} is not of {family}"));
    match kind.as_str() {
        "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{name}"),
        kind => {
            assert_eq!(suffix, "", "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        }
    }
}

fn sample(line: &str) -> Sample {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).expect(line);
    let (name, mut rest) = line.split_at(end);
    assert!(name.starts_with(|c: char| c.is_ascii_alphabetic()), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").expect(line);
            let (value, after) = quoted(after);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{label} twice: {line}");
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => {
                    rest = after.strip_prefix('}').expect(line);
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').expect(line).parse().expect(line);
    (name.to_owned(), labels, value)
}

fn quoted(text: &str) -> (String, &str) {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (out, &text[at + 1..]),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => out.push('\n'),
                Some(c @ ('\\' | '"')) => out.push(c),
                other => panic!("escape of {other:?} in {text}"),
            },
            c => out.push(c),
        }
    }
    panic!("a quote is open: {text}")
}

fn unique(samples: &[Sample]) {
    let mut seen = HashSet::new();
    for (name, labels, _) in samples {
        assert!(seen.insert((name, format!("{labels:?}"))), "{name} {labels:?} is there twice");
    }
}

fn check_histograms(samples: &[Sample]) {
    let mut last: BTreeMap<(String, String), (f64, f64)> = BTreeMap::new();
    for (name, labels, value) in samples {
        let mut others = labels.clone();
        let bound = others.remove("le").map(|le| le.parse::<f64>().expect("a bound is a number"));
        if let (Some(histogram), Some(bound)) = (name.strip_suffix("_bucket"), bound) {
            let key = (histogram.to_owned(), format!("{others:?}"));
            let before = last.insert(key, (bound, *value));
            assert!(before.is_none_or(|(b, v)| b < bound && v <= *value), "{name} {labels:?}");
        } else if let Some(histogram) = name.strip_suffix("_count") {
            let whole = last.get(&(histogram.to_owned(), format!("{labels:?}")));
            assert_eq!(whole, Some(&(f64::INFINITY, *value)), "{name} {labels:?}");
        }
    }
}
