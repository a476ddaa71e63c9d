//! The text format of Prometheus, version 0.0.4: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::{Display, Write as _};

/// Its media type.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in classes, their sum and their number.
    Histogram,
}

/// The samples of one metric.
pub(super) struct Samples<'a> {
    name: &'a str,
    out: &'a mut String,
}

/// Name and value of a label.
pub(super) type Label<'a> = (&'a str, &'a str);

/// Appends a metric: its meaning, its kind and its samples.
pub(super) fn family(
    out: &mut String,
    (name, kind, help): (&str, Kind, &str),
    samples: impl FnOnce(&mut Samples<'_>),
) {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    samples(&mut Samples { name, out });
}

impl Samples<'_> {
    /// One sample.
    pub(super) fn add(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.line("", labels, value);
    }

    /// A histogram from the number in each class; `bounds` are the upper bounds of all classes but the last.
    pub(super) fn histogram(&mut self, labels: &[Label<'_>], bounds: &[f64], counts: &[u64], sum: f64) {
        let mut below = 0;
        for (n, count) in counts.iter().enumerate() {
            below += count;
            let bound = bounds.get(n).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let with_bound: Vec<Label<'_>> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.line("_bucket", &with_bound, below);
        }
        self.line("_sum", labels, sum);
        self.line("_count", labels, below);
    }

    fn line(&mut self, suffix: &str, labels: &[Label<'_>], value: impl Display) {
        let _ = write!(self.out, "{}{suffix}", self.name);
        for (n, (label, text)) in labels.iter().enumerate() {
            let before = if n == 0 { '{' } else { ',' };
            let _ = write!(self.out, "{before}{label}=\"{}\"", escaped(text));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.out, "{end} {value}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
pub(super) mod strict {
    //! A parser that takes what the format allows and nothing else.

    use std::collections::{BTreeMap, HashSet};

    /// A sample: its metric's full name, its labels, its value.
    pub(crate) type Sample = (String, BTreeMap<String, String>, f64);

    /// All samples; panics with the line that is wrong.
    pub(crate) fn parse(text: &str) -> Vec<Sample> {
        assert!(text.ends_with('\n'), "the last line must end");
        let (mut samples, mut seen, mut family) =
            (Vec::new(), HashSet::new(), (String::new(), String::new()));
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
        let suffix =
            name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{name} is not of {family}"));
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
            let bound = others.remove("le").map(|le| le.parse::<f64>().unwrap());
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut out = String::new();
        family(&mut out, ("a_total", Kind::Counter, "All\nof \\ it."), |s| {
            s.add(&[("path", "/a \"b\"\\c\nd"), ("x", "")], 7);
            s.add(&[], 1.5);
        });
        family(&mut out, ("h_seconds", Kind::Histogram, "h"), |s| {
            s.histogram(&[("p", "q")], &[0.001, 2.5], &[1, 0, 3], 0.25);
        });
        assert!(out.starts_with("# HELP a_total All\\nof \\\\ it.\n# TYPE a_total counter\n"), "{out}");
        let samples = strict::parse(&out);
        assert_eq!(samples[0].1["path"], "/a \"b\"\\c\nd");
        assert_eq!(samples[1], ("a_total".to_owned(), [].into(), 1.5));
        let lines: Vec<_> = out.lines().skip(6).collect();
        assert_eq!(
            lines,
            [
                "h_seconds_bucket{p=\"q\",le=\"0.001\"} 1",
                "h_seconds_bucket{p=\"q\",le=\"2.5\"} 1",
                "h_seconds_bucket{p=\"q\",le=\"+Inf\"} 4",
                "h_seconds_sum{p=\"q\"} 0.25",
                "h_seconds_count{p=\"q\"} 4",
            ]
        );
    }

    #[test]
    fn the_strict_parser_refuses() {
        for wrong in [
            "# HELP a_total x\n# TYPE a_total counter\na_total 1",
            "# HELP a_total x\n# TYPE a_total counter\nb_total 1\n",
            "# HELP a_total x\n# TYPE a_total counter\na_total{x=\"1} 1\n",
            "# HELP a_total x\n# TYPE a_total counter\na_total 1\na_total 2\n",
            "# HELP a x\n# TYPE a counter\na 1\n",
            "# HELP h x\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\n",
        ] {
            assert!(std::panic::catch_unwind(|| strict::parse(wrong)).is_err(), "{wrong}");
        }
    }
}
