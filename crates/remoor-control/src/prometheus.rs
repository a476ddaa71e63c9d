//! The text format of Prometheus, version 0.0.4: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::{Display, Write as _};

/// Its media type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in classes, their sum and their number.
    Histogram,
}

/// The samples of one metric.
pub struct Samples<'a> {
    name: &'a str,
    out: &'a mut String,
}

/// Name and value of a label.
pub type Label<'a> = (&'a str, &'a str);

/// Appends a metric: its meaning, its kind and its samples.
pub fn family(
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
    pub fn add(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.line("", labels, value);
    }

    /// A histogram from the number in each class; `bounds` are the upper bounds of all classes but the last.
    pub fn histogram(&mut self, labels: &[Label<'_>], bounds: &[f64], counts: &[u64], sum: f64) {
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
mod tests {
    use super::*;
    use crate::strict;

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
