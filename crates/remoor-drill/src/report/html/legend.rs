//! The shapes of the pictures, and what they mean.

use maud::{Markup, html};

/// The shapes, defined once for the page; pictures refer to them. Nothing of this is seen.
pub(super) fn shapes() -> Markup {
    html! {
        svg.shapes width="0" height="0" aria-hidden="true" {
            defs {
                circle #syn-a.a r="9" {}
                rect #syn-b.b x="-8.5" y="-8.5" width="17" height="17" rx="2" {}
                path #syn-none.none d="M0 -11 L11 0 L0 11 L-11 0 Z" {}
                path #syn-both.both d="M-6 -10 H6 L12 0 L6 10 H-6 L-12 0 Z" {}
                circle #again-a.a r="5" {}
                rect #again-b.b x="-4.5" y="-4.5" width="9" height="9" {}
                path #again-none.none d="M0 -6.5 L6.5 0 L0 6.5 L-6.5 0 Z" {}
                path #again-both.both d="M-3 -5.5 H3 L6.5 0 L3 5.5 H-3 L-6.5 0 Z" {}
                pattern #hatch width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    line.stroke x1="0" y1="0" x2="0" y2="6" {}
                }
            }
        }
    }
}

/// What the shapes mean.
pub(super) fn render() -> Markup {
    html! {
        section.legend aria-label="How to read the pictures" {
            h2 { "How to read the pictures" }
            ul {
                li { (mark("syn-a", "A")) "first SYN of an attempt, went to node A" }
                li { (mark("syn-b", "B")) "the same, to node B" }
                li { (mark("syn-both", "AB")) "some of its SYNs to A, some to B" }
                li { (mark("syn-none", "–")) "reached no node" }
                li { (again("again-a")) "that SYN sent again: same port, same sequence number" }
                li { (swatch("part replies")) "client got replies" }
                li { (swatch("part gap")) "no reply: the failover gap" }
                li { (swatch("predicted")) "the gap as predicted" }
            }
            p {
                "Each lane is one source port. A line runs from an attempt's first SYN to its last one or its answer; \
                 the words below a mark say what came back. Point at a mark for time, port and sequence number; the story below each \
                 picture lists them, too."
            }
        }
    }
}

fn mark(shape: &str, letter: &str) -> Markup {
    html! {
        svg width="26" height="24" aria-hidden="true" {
            g.syn {
                use href=(format!("#{shape}")) x="13" y="12" {}
                text.node x="13" y="16" text-anchor="middle" { (letter) }
            }
        }
    }
}

fn again(shape: &str) -> Markup {
    html! {
        svg width="26" height="24" aria-hidden="true" {
            g.syn.again { use href=(format!("#{shape}")) x="13" y="12" {} }
        }
    }
}

fn swatch(class: &str) -> Markup {
    html! {
        svg width="26" height="24" aria-hidden="true" {
            g class=(class) { rect x="2" y="6" width="22" height="12" rx="2" {} }
        }
    }
}
