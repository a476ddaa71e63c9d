//! What is known of one object's attributes, for how long, and who changed them. Pure: time is a parameter.
//!
//! Three things make a cache of attributes honest over NFS version 3, which promises no order and no notification:
//!
//! - A reply tells the state at some moment after its question was asked. A reply to an older question never replaces
//!   one to a newer question ([`Stamp`]), and nothing asked before one of our own changes ended counts after it.
//! - A change of ours is told apart from somebody else's by the attributes from before it (RFC 1813 section 2.6,
//!   `wcc_data`): several of ours may be in flight, so their replies are put in order by chaining them, before to after.
//! - How long attributes are kept adapts: the shortest time after a change, twice as long each time nothing has changed
//!   (`nfs_update_inode` and `nfs_attribute_timeout` of Linux).

use std::time::{Duration, Instant};

use remoor_nfs::v3::{Fattr, FileType, WccAttr, WccData};

use super::config::Config;

/// Replies to changes of ours in flight that are kept to be put in order. Past it they are taken to be only ours.
const MAX_LINKS: usize = 256;

/// When a question was asked: its place among all questions of a mount, and the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Larger for a later question.
    pub order: u64,
    /// The time.
    pub at: Instant,
}

/// Shortest and longest time attributes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// `acregmin` or `acdirmin`; zero with `noac`.
    pub min: Duration,
    /// `acregmax` or `acdirmax`; zero with `noac`.
    pub max: Duration,
}

impl Keep {
    /// What `config` says for a file of this type.
    pub fn of(config: &Config, kind: FileType) -> Self {
        match (config.attribute_cache, kind) {
            (false, _) => Self { min: Duration::ZERO, max: Duration::ZERO },
            (true, FileType::Directory) => Self { min: config.acdirmin, max: config.acdirmax },
            (true, _) => Self { min: config.acregmin, max: config.acregmax },
        }
    }
}

/// What a reply told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// Nothing: what is known is newer, or it is too early to say.
    Nothing,
    /// The object is as it was, or has only changed by us.
    Ours,
    /// Somebody else has changed it.
    Theirs,
}

/// The attributes of one object.
#[derive(Debug, Default)]
pub struct Attributes {
    held: Option<Held>,
    /// Questions asked before this do not count.
    fence: u64,
    /// A change of ours moves the ctime without telling: RENAME, or LINK and REMOVE of another name.
    ctime_moves: bool,
    /// Questions asked before this, and changes, tell the state before such a change.
    moved: u64,
    ours: Option<Box<Ours>>,
}

#[derive(Debug)]
struct Held {
    attr: Fattr,
    asked: Stamp,
    expired: bool,
    /// How long they are kept, in milliseconds. Not a `Duration`, because there are millions of these.
    keep_millis: u32,
    /// For how long before `asked` they had neither changed nor their time grown, in milliseconds.
    since_millis: u32,
}

impl Held {
    fn keep(&self) -> Duration {
        Duration::from_millis(self.keep_millis.into())
    }
}

/// At most 49 days.
fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// Changes of ours that have not all been answered.
#[derive(Debug)]
struct Ours {
    in_flight: u32,
    /// The state before the first of them.
    base: Option<WccAttr>,
    /// From what to what each answered one has brought the object.
    links: Vec<(WccAttr, WccAttr)>,
    /// How many were answered.
    answered: u32,
    /// One was answered without saying from what to what.
    untold: bool,
}

/// The state of an object as far as a change shows in it.
fn state(attr: &Fattr) -> WccAttr {
    WccAttr::from(attr)
}

impl Attributes {
    /// What is known, however old.
    pub fn held(&self) -> Option<&Fattr> {
        self.held.as_ref().map(|held| &held.attr)
    }

    /// What is known and may be used at `now`, and for how much longer.
    pub fn fresh(&self, now: Instant) -> Option<(&Fattr, Duration)> {
        let held = self.held.as_ref().filter(|held| !held.expired)?;
        let left = (held.asked.at + held.keep()).saturating_duration_since(now);
        (!left.is_zero()).then_some((&held.attr, left))
    }

    /// From now on they must be asked for again.
    pub fn expire(&mut self) {
        if let Some(held) = &mut self.held {
            held.expired = true;
        }
    }

    /// Whether they must be asked for before they are used, whatever time they are kept.
    pub fn is_expired(&self) -> bool {
        self.held.as_ref().is_none_or(|held| held.expired)
    }

    /// A change of ours to another object, answered at `now`, may have moved this one's ctime, and no reply tells.
    pub fn expire_with_ctime(&mut self, now: Stamp) {
        self.ctime_moves = true;
        self.moved = now.order;
        self.expire();
    }

    /// A reply to a question asked at `asked` carried `attr`.
    pub fn learn(&mut self, attr: &Fattr, asked: Stamp, keep: Keep) -> Learned {
        let order = self.held.as_ref().map_or(0, |held| held.asked.order).max(self.fence);
        if asked.order < order.max(self.moved) {
            return Learned::Nothing;
        }
        let before = self.held().map(state);
        let after = state(attr);
        let ctime_moved = std::mem::take(&mut self.ctime_moves);
        self.hold(attr, asked, keep);
        match before {
            _ if self.ours.is_some() => Learned::Nothing,
            Some(before) if before == after => Learned::Ours,
            Some(before) if ctime_moved && but_for_ctime(&before, &after) => Learned::Ours,
            Some(_) => Learned::Theirs,
            None => Learned::Ours,
        }
    }

    fn hold(&mut self, attr: &Fattr, asked: Stamp, keep: Keep) {
        let (mut time, mut since) = (keep.min, Duration::ZERO);
        if let Some(held) = self.held.as_ref().filter(|held| held.attr.same_but_for_reading(attr)) {
            let passed = asked.at.saturating_duration_since(held.asked.at);
            (time, since) = (held.keep(), passed + Duration::from_millis(held.since_millis.into()));
            if since >= time {
                (time, since) = ((time * 2).clamp(keep.min, keep.max), Duration::ZERO);
            }
        }
        let (keep_millis, since_millis) = (millis(time), millis(since));
        self.held = Some(Held { attr: attr.clone(), asked, expired: false, keep_millis, since_millis });
    }

    /// A change of ours is about to be sent.
    pub fn begin_change(&mut self) {
        let base = self.held().map(state);
        let ours = self.ours.get_or_insert_with(|| {
            Box::new(Ours { in_flight: 0, base, links: Vec::new(), answered: 0, untold: false })
        });
        ours.in_flight += 1;
    }

    /// A change of ours, sent at `asked`, was answered at `now` with `wcc`, or nobody waits for its answer any more.
    pub fn end_change(&mut self, wcc: Option<&WccData>, asked: Stamp, now: Stamp, keep: Keep) -> Learned {
        match wcc {
            Some(WccData { before, after: Some(after) }) => {
                self.link(before.as_ref(), after);
                self.adopt(after, asked, keep);
            }
            _ => {
                self.link_untold();
                self.expire();
            }
        }
        self.fence = now.order;
        self.verdict()
    }

    /// Takes over what our change's reply says of the time after it, unless a later state is known already. Between
    /// this reply and those to a later question or to a change in flight at the same time only the server's clock decides.
    fn adopt(&mut self, after: &Fattr, asked: Stamp, keep: Keep) {
        let overlapped = self.ours.as_ref().is_some_and(|ours| ours.in_flight > 1 || ours.answered > 0);
        let other = self.held.as_ref().filter(|held| overlapped || held.asked.order > asked.order);
        let later = other.is_none_or(|held| (after.ctime, after.mtime) >= (held.attr.ctime, held.attr.mtime));
        if later {
            self.hold(after, asked, keep);
        }
        if asked.order < self.moved {
            self.expire();
        }
    }

    fn link(&mut self, before: Option<&WccAttr>, after: &Fattr) {
        let Some(ours) = &mut self.ours else { return };
        match before {
            Some(before) if ours.links.len() < MAX_LINKS => {
                ours.links.push((before.clone(), state(after)));
            }
            _ => ours.untold = true,
        }
    }

    fn link_untold(&mut self) {
        if let Some(ours) = &mut self.ours {
            ours.untold = true;
        }
    }

    /// Once no change of ours is in flight: whether they explain what is known now.
    fn verdict(&mut self) -> Learned {
        let Some(ours) = &mut self.ours else { return Learned::Nothing };
        ours.in_flight = ours.in_flight.saturating_sub(1);
        ours.answered += 1;
        if ours.in_flight > 0 {
            return Learned::Nothing;
        }
        let ours = self.ours.take();
        let (Some(ours), Some(now)) = (ours, self.held().map(state)) else { return Learned::Ours };
        let ctime_moved = std::mem::take(&mut self.ctime_moves);
        match ours.explain(&now) {
            true => Learned::Ours,
            false if ctime_moved => Learned::Ours,
            false => Learned::Theirs,
        }
    }
}

impl Ours {
    fn explain(mut self, now: &WccAttr) -> bool {
        let Some(mut at) = self.base.take() else { return true };
        if self.untold {
            return true;
        }
        while let Some(next) = self.links.iter().position(|(before, _)| *before == at) {
            at = self.links.swap_remove(next).1;
        }
        self.links.is_empty() && at == *now
    }
}

fn but_for_ctime(a: &WccAttr, b: &WccAttr) -> bool {
    (a.size, a.mtime) == (b.size, b.mtime)
}

/// Equality of what a change moves; reading moves the atime and may move the space used.
trait SameButForReading {
    fn same_but_for_reading(&self, other: &Self) -> bool;
}

impl SameButForReading for Fattr {
    fn same_but_for_reading(&self, other: &Self) -> bool {
        let key = |a: &Self| (a.size, a.mtime, a.ctime, a.mode, a.uid, a.gid, a.nlink);
        key(self) == key(other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use remoor_nfs::v3::{Device, Time};

    use super::*;

    const KEEP: Keep = Keep { min: Duration::from_secs(3), max: Duration::from_secs(60) };

    fn attr(ctime: u32) -> Fattr {
        let time = Time { seconds: ctime, nanos: 0 };
        Fattr {
            kind: FileType::Regular,
            mode: 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            size: 0,
            used: 0,
            rdev: Device { major: 0, minor: 0 },
            fsid: 0,
            fileid: 1,
            atime: time,
            mtime: time,
            ctime: time,
        }
    }

    /// Questions of a mount, one a second.
    struct Clock {
        start: Instant,
        order: u64,
    }

    impl Clock {
        fn new() -> Self {
            Self { start: Instant::now(), order: 0 }
        }

        fn ask(&mut self) -> Stamp {
            self.order += 1;
            self.at(self.order)
        }

        fn at(&self, secs: u64) -> Stamp {
            Stamp { order: self.order, at: self.start + Duration::from_secs(secs) }
        }
    }

    fn wcc(before: u32, after: u32) -> WccData {
        WccData { before: Some(state(&attr(before))), after: Some(attr(after)) }
    }

    #[test]
    fn time_doubles_while_nothing_changes_and_starts_again_after_a_change() {
        let (mut attributes, mut clock) = (Attributes::default(), Clock::new());
        let (mut secs, mut kept) = (0, Vec::new());
        for ctime in [1, 1, 1, 1, 1, 1, 1, 2] {
            clock.order += 1;
            let asked = clock.at(secs);
            attributes.learn(&attr(ctime), asked, KEEP);
            let left = attributes.fresh(asked.at).unwrap().1.as_secs();
            kept.push(left);
            secs += left;
        }
        assert_eq!(kept, [3, 6, 12, 24, 48, 60, 60, 3]);
        assert!(attributes.fresh(clock.at(secs - 1).at).is_some());
        assert!(attributes.fresh(clock.at(secs).at).is_none());
    }

    #[test]
    fn an_answer_before_the_time_is_over_does_not_lengthen_it() {
        let (mut attributes, mut clock) = (Attributes::default(), Clock::new());
        for _ in 0..3 {
            let asked = clock.ask();
            attributes.learn(&attr(1), asked, KEEP);
            assert_eq!(attributes.fresh(asked.at).unwrap().1, KEEP.min);
        }
    }

    #[test]
    fn noac_keeps_nothing() {
        let config = Config { attribute_cache: false, ..Config::default() };
        let (mut attributes, mut clock) = (Attributes::default(), Clock::new());
        let asked = clock.ask();
        attributes.learn(&attr(1), asked, Keep::of(&config, FileType::Directory));
        assert!(attributes.fresh(asked.at).is_none() && attributes.held().is_some());
    }

    #[test]
    fn an_older_question_never_counts_after_a_newer_one() {
        let (mut attributes, mut clock) = (Attributes::default(), Clock::new());
        let (old, new) = (clock.ask(), clock.ask());
        attributes.learn(&attr(2), new, KEEP);
        assert_eq!(attributes.learn(&attr(1), old, KEEP), Learned::Nothing);
        assert_eq!(attributes.held(), Some(&attr(2)));
    }

    #[test]
    fn what_was_asked_before_our_change_ended_does_not_count_after_it() {
        let (mut attributes, mut clock) = (Attributes::default(), Clock::new());
        attributes.learn(&attr(1), clock.ask(), KEEP);
        attributes.begin_change();
        let (change, question) = (clock.ask(), clock.ask());
        assert_eq!(attributes.end_change(Some(&wcc(1, 2)), change, clock.ask(), KEEP), Learned::Ours);
        assert_eq!(attributes.learn(&attr(1), question, KEEP), Learned::Nothing);
        assert_eq!(attributes.held(), Some(&attr(2)));
    }

    #[test]
    fn a_change_by_others_shows_with_or_without_one_of_ours() {
        let (mut attributes, mut clock) = (Attributes::default(), Clock::new());
        attributes.learn(&attr(1), clock.ask(), KEEP);
        assert_eq!(attributes.learn(&attr(2), clock.ask(), KEEP), Learned::Theirs);
        attributes.begin_change();
        let change = clock.ask();
        assert_eq!(attributes.end_change(Some(&wcc(3, 4)), change, clock.ask(), KEEP), Learned::Theirs);
        assert_eq!(attributes.learn(&attr(4), clock.ask(), KEEP), Learned::Ours);
    }

    #[test]
    fn a_change_that_nobody_waits_for_makes_us_ask_and_is_ours() {
        let (mut attributes, mut clock) = (Attributes::default(), Clock::new());
        attributes.learn(&attr(1), clock.ask(), KEEP);
        attributes.begin_change();
        let change = clock.ask();
        assert_eq!(attributes.end_change(None, change, clock.ask(), KEEP), Learned::Ours);
        assert!(attributes.fresh(change.at).is_none());
    }

    #[test]
    fn a_ctime_we_moved_elsewhere_is_ours_but_an_mtime_is_not() {
        for (mtime, learned) in [(1, Learned::Ours), (2, Learned::Theirs)] {
            let (mut attributes, mut clock) = (Attributes::default(), Clock::new());
            attributes.learn(&attr(1), clock.ask(), KEEP);
            attributes.expire_with_ctime(clock.ask());
            let moved = Fattr { mtime: Time { seconds: mtime, nanos: 0 }, ..attr(2) };
            assert_eq!(attributes.learn(&moved, clock.ask(), KEEP), learned);
            assert_eq!(attributes.learn(&attr(3), clock.ask(), KEEP), Learned::Theirs, "once");
        }
    }

    proptest! {
        /// Changes of ours, sent at once, executed in one order and answered in another; somebody else's comes between
        /// them, before them or after them.
        #[test]
        fn changes_in_flight_are_told_apart_from_somebody_elses(
            executed in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle(),
            answered in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle(),
            theirs in 0..8usize,
        ) {
            let (mut attributes, mut clock) = (Attributes::default(), Clock::new());
            attributes.learn(&attr(1), clock.ask(), KEEP);
            let stamps: Vec<_> = executed
                .iter()
                .map(|_| {
                    attributes.begin_change();
                    clock.ask()
                })
                .collect();
            let (mut ctime, mut replies) = (1, vec![None; 6]);
            for (at, change) in executed.iter().enumerate() {
                ctime += u32::from(at == theirs);
                replies[*change] = Some(wcc(ctime, ctime + 1));
                ctime += 1;
            }
            let mut last = Learned::Nothing;
            for change in answered {
                prop_assert_eq!(last, Learned::Nothing);
                last = attributes.end_change(replies[change].as_ref(), stamps[change], clock.ask(), KEEP);
            }
            prop_assert_eq!(last, if theirs < 6 { Learned::Theirs } else { Learned::Ours });
            prop_assert_eq!(attributes.held(), Some(&attr(ctime)));
        }
    }
}
