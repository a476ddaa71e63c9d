use std::time::Duration;

use roxmltree::{Document, Node, ParsingOptions};

use super::super::tests::{attempt, recovered};
use super::super::{Break, CaseReport, DrillReport, RebindSeen};
use super::render;
use crate::case::Matrix;
use crate::expect;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn page(cases: Vec<CaseReport>) -> String {
    render(&DrillReport { cases, wall: ms(9000) })
}

fn parse(page: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(page, options).unwrap_or_else(|e| panic!("{e}\n{page}"))
}

fn having_class<'a>(document: &'a Document<'_>, class: &'a str) -> impl Iterator<Item = Node<'a, 'a>> {
    let has =
        move |node: &Node<'_, '_>| node.attribute("class").is_some_and(|c| c.split(' ').any(|c| c == class));
    document.descendants().filter(has)
}

fn text_of(node: Node<'_, '_>) -> String {
    node.descendants().filter_map(|n| n.text().filter(|_| n.is_text())).collect()
}

/// Every shape an attempt can have, on one port, and no recovery.
fn pinned() -> CaseReport {
    let fates: [(&[&str], &str, &str); 5] = [
        (&["A"], "A", "SYN-ACK"),
        (&[], "none", ""),
        (&["A"], "A", "RST"),
        (&["A", "B"], "A", "challenge ACK"),
        (&[], "balancer", "RST"),
    ];
    let attempts = fates.iter().zip(0..).map(|((to, by, answer), n)| {
        let mut report = attempt(10 + 1200 * n, 721, by);
        report.forwarded_to = to.iter().map(ToString::to_string).collect();
        report.answer = (*answer).into();
        report.isn = 7_000_000 + n as u32;
        report.retransmitted = (0..n % 3).map(|again| report.at + ms(300 * (again + 1))).collect();
        report.retransmissions = report.retransmitted.len();
        report.answered = (!answer.is_empty()).then(|| report.at + ms(900));
        report
    });
    let mut case = CaseReport {
        options: "resvport".into(),
        attempts: attempts.collect(),
        gap: None,
        pinned: true,
        ..recovered()
    };
    case.rebind = Some(RebindSeen::Same);
    case.expected.gap = None;
    case.breaks[0].first_reply = None;
    case.breaks[0].last_reply = None;
    case.expected.rebind = case.rebind;
    case.expected.pinned = true;
    case.judge();
    case
}

fn rounds() -> CaseReport {
    let broken = |n: u64| Break {
        node: if n.is_multiple_of(2) { "A" } else { "B" }.into(),
        at: ms(100 + 1000 * n),
        switched: ms(101 + 1000 * n),
        last_reply: Some(ms(99 + 1000 * n)),
        first_reply: Some(ms(400 + 1000 * n)),
        mended: Some(ms(700 + 1000 * n)),
        restored: None,
    };
    let attempts = (0..5).map(|n| attempt(n * 990, 40_000 + n as u16, if n % 2 == 0 { "A" } else { "B" }));
    let mut case =
        CaseReport { breaks: (0..4).map(broken).collect(), attempts: attempts.collect(), ..recovered() };
    case.judge();
    case
}

fn failed() -> CaseReport {
    let mut case = CaseReport { lost: 2, ..recovered() };
    case.judge();
    case
}

/// As many marks as SYNs, each named with its sequence number.
fn assert_every_syn_is_drawn(case: &CaseReport) {
    let page = page(vec![case.clone()]);
    let document = parse(&page);
    let section = having_class(&document, "case").next().unwrap();
    let marks =
        section.descendants().filter(|node| node.attribute("class").is_some_and(|c| c.starts_with("syn")));
    let titles: Vec<String> =
        marks.map(|mark| text_of(mark.children().find(|node| node.has_tag_name("title")).unwrap())).collect();
    for attempt in &case.attempts {
        let named = titles
            .iter()
            .filter(|t| t.contains(&format!("port {}, sequence number {}:", attempt.port, attempt.isn)));
        let same = case.attempts.iter().filter(|a| (a.port, a.isn) == (attempt.port, attempt.isn)).count();
        assert_eq!(named.count(), same * (1 + attempt.retransmitted.len()), "{attempt:?}\n{titles:#?}");
    }
    let syns: usize = case.attempts.iter().map(|attempt| 1 + attempt.retransmitted.len()).sum();
    assert_eq!(titles.len(), syns);
}

#[test]
fn every_syn_is_drawn_once() {
    for case in [recovered(), pinned(), rounds()] {
        assert_every_syn_is_drawn(&case);
    }
    for case in Matrix::default().cases().unwrap() {
        assert_every_syn_is_drawn(&expect::simulate(&case).unwrap());
    }
}

#[test]
fn a_page_is_well_formed_whatever_happened() {
    let nothing = CaseReport { breaks: Vec::new(), attempts: Vec::new(), replies: Vec::new(), ..recovered() };
    let early = CaseReport { attempts: Vec::new(), replies: Vec::new(), ..pinned() };
    for cases in [vec![], vec![nothing], vec![early], vec![recovered(), pinned(), rounds(), failed()]] {
        let page = page(cases);
        assert!(parse(&page).root_element().has_tag_name("html"));
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }
}

#[test]
fn a_page_asks_for_nothing_and_refers_only_to_itself() {
    let page = page(vec![recovered(), pinned()]);
    for fetching in ["<script", "<link", "<img", "src=", "@import", "http:", "https:"] {
        assert!(!page.contains(fetching), "{fetching}");
    }
    let document = parse(&page);
    let ids: Vec<&str> = document.descendants().filter_map(|node| node.attribute("id")).collect();
    for href in document.descendants().filter_map(|node| node.attribute("href")) {
        assert!(href.strip_prefix('#').is_some_and(|id| ids.contains(&id)), "{href}");
    }
}

#[test]
fn strings_stay_strings() {
    let nasty = "<b onload=\"x\">&'\u{0}\u{1b}[31m";
    let mut case =
        CaseReport { options: nasty.into(), balancer: nasty.into(), fault: nasty.into(), ..failed() };
    case.losses = vec![nasty.into()];
    case.reasons = vec![nasty.into()];
    case.attempts[0].answer = nasty.into();
    case.attempts[1].forwarded_to = vec![nasty.into()];
    case.breaks[0].node = nasty.into();
    let page = page(vec![case]);
    let document = parse(&page);
    assert!(!page.contains("<b onload") && document.descendants().all(|node| !node.has_attribute("onload")));
    let heading =
        document.descendants().filter(|node| node.has_tag_name("h2")).map(text_of).next_back().unwrap();
    assert!(heading.contains("<b onload=\"x\">&'\u{fffd}\u{fffd}[31m"), "{heading}");
}

#[test]
fn cells_of_the_matrix_say_the_outcome_in_words() {
    let page = page(vec![recovered(), pinned(), CaseReport { balancer: "aws-nlb".into(), ..failed() }]);
    let document = parse(&page);
    let cells: Vec<String> = having_class(&document, "entry").map(text_of).collect();
    assert_eq!(cells.len(), 3);
    for (cell, words) in cells.iter().zip([
        ["✓ recovered", "gap 0.41 s", "predicted 0.35 s"],
        ["✓ recovered", "predicted 0.35 s", "gap 0.41 s"],
        ["■ hangs as predicted", "gap over 6.00 s", "predicted over 6.00 s"],
    ]) {
        // The failed case has the options of the first and comes before the second in the grid.
        let words = if cell.contains("failed") {
            ["✗ failed", "gap 0.41 s", "2 acknowledged changes are lost"]
        } else {
            words
        };
        assert!(words.iter().all(|word| cell.contains(word)), "{cell}");
    }
    assert_eq!(cells.iter().filter(|cell| cell.contains("✗ failed")).count(), 1);
}

fn percent(node: Node<'_, '_>, attribute: &str) -> f64 {
    node.attribute(attribute).unwrap().trim_end_matches('%').parse().unwrap()
}

#[test]
fn the_predicted_gap_is_drawn_on_the_scale_of_the_measured_one() {
    let page = page(vec![recovered()]);
    let document = parse(&page);
    let picture = having_class(&document, "picture").next().unwrap();
    let rect = |class: &str| {
        let group = picture.descendants().find(|node| node.attribute("class") == Some(class)).unwrap();
        group.children().find(|node| node.has_tag_name("rect")).unwrap()
    };
    let (measured, predicted) = (rect("part gap"), rect("predicted"));
    assert_eq!(percent(measured, "x"), percent(predicted, "x"));
    let ratio = percent(predicted, "width") / percent(measured, "width");
    assert!((ratio - 350.0 / 410.0).abs() < 0.01, "{ratio}");
}

#[test]
fn without_recovery_the_gap_lasts_until_the_client_is_back() {
    let mut case = pinned();
    case.replies = [3, 500, 1005, 1010, 7600, 7650].map(ms).to_vec();
    let gap_of = |case: &CaseReport| {
        let page = page(vec![case.clone()]);
        let document = parse(&page);
        let picture = having_class(&document, "picture").next().unwrap();
        text_of(picture.descendants().find(|node| node.attribute("class") == Some("part gap")).unwrap())
    };
    assert!(gap_of(&case).starts_with("no reply from +0.010 s to "), "{}", gap_of(&case));
    case.breaks[0].mended = Some(ms(7300));
    case.breaks[0].restored = Some(ms(7600));
    assert_eq!(gap_of(&case), "no reply from +0.010 s to +6.600 s");
}

#[test]
fn each_round_has_a_picture_that_names_the_port_in_use() {
    let page = page(vec![rounds()]);
    let document = parse(&page);
    assert_eq!(having_class(&document, "picture").count(), 4);
    let names: Vec<String> = having_class(&document, "port").map(text_of).collect();
    assert!(names.contains(&"port 40000 above 1023, first connection".to_owned()), "{names:?}");
    assert!(names.contains(&"port 40001 above 1023, in use when the node broke".to_owned()), "{names:?}");
    assert!(names.contains(&"port 40002 above 1023, fresh port".to_owned()), "{names:?}");
}

#[test]
fn the_same_report_gives_the_same_page() {
    let cases = || vec![recovered(), pinned(), rounds(), failed()];
    assert_eq!(page(cases()), page(cases()));
}
