//! Progress of a drill's cases on standard error.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use remoor_drill::case::Case;
use remoor_drill::report::{CaseReport, seconds};
use remoor_drill::run::{RunError, Stage};

/// Progress lines on standard error: live where that is a terminal, else one per finished case.
pub(super) struct Progress {
    bars: MultiProgress,
    total: usize,
}

pub(super) struct Line<'a> {
    progress: &'a Progress,
    bar: ProgressBar,
    head: String,
}

impl Progress {
    pub(super) fn new(total: usize) -> Self {
        Self { bars: MultiProgress::new(), total }
    }

    pub(super) fn begin(&self, n: usize, case: &Case) -> Line<'_> {
        let head = format!(
            "[{:>2}/{}] {} · {} · {}",
            n + 1,
            self.total,
            case.balancer,
            case.options_text,
            case.fault.name
        );
        let bar = self.bars.add(ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(100));
        Line { progress: self, bar, head }
    }
}

impl Line<'_> {
    pub(super) fn stage(&self, stage: Stage) {
        let text = match stage {
            Stage::Building => "building hosts".to_owned(),
            Stage::Mounting => "mounted, writing".to_owned(),
            Stage::Broken(node) => format!("node {node} broken, watching"),
            Stage::Mending(node) => format!("restoring node {node}"),
            Stage::Checking => "checking files and packets".to_owned(),
        };
        self.bar.set_message(format!("{}: {text}", self.head));
    }

    #[allow(clippy::print_stderr, reason = "progress where there is no terminal")]
    pub(super) fn end(&self, outcome: &Result<CaseReport, RunError>) {
        let result = match outcome {
            Ok(CaseReport { gap: Some(gap), .. }) => format!("recovered, gap {}", seconds(*gap)),
            Ok(CaseReport { window, .. }) => format!("not recovered in {}", seconds(*window)),
            Err(_) => "could not be run".to_owned(),
        };
        self.bar.finish_and_clear();
        let line = format!("{}: {result}", self.head);
        if io::stderr().is_terminal() {
            // A line that cannot be shown is no reason to end the drill.
            let _ = self.progress.bars.println(line);
        } else {
            eprintln!("{line}");
        }
    }
}
