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

use remoor_nfs::v3::{Fattr, FileType, Time, WccAttr, WccData};

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
    ours: Option<Box<Ours>>,
}

#[derive(Debug)]
struct Held {
    attr: Fattr,
    asked: Stamp,
    expired: bool,
    keep: Duration,
    since: Instant,
}

/// Changes of ours that have not all been answered.
#[derive(Debug)]
struct Ours {
    in_flight: u32,
    /// The state before the first of them.
    base: Option<WccAttr>,
    /// From what to what each answered one has brought the object.
    links: Vec<(WccAttr, WccAttr)>,
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
        let left = (held.asked.at + held.keep).saturating_duration_since(now);
        (!left.is_zero()).then_some((&held.attr, left))
    }

    /// Whether the question behind what is known was asked at `order` or later.
    pub fn asked_since(&self, order: u64) -> bool {
        self.held.as_ref().is_some_and(|held| !held.expired && held.asked.order >= order)
    }

    /// From now on they must be asked for again.
    pub fn expire(&mut self) {
        if let Some(held) = &mut self.held {
            held.expired = true;
        }
    }

    /// A change of ours to another object may have moved this one's ctime, and no reply tells.
    pub fn expire_with_ctime(&mut self) {
        self.ctime_moves = true;
        self.expire();
    }

    /// A reply to a question asked at `asked` carried `attr`.
    pub fn learn(&mut self, attr: &Fattr, asked: Stamp, keep: Keep) -> Learned {
        let order = self.held.as_ref().map_or(0, |held| held.asked.order).max(self.fence);
        if asked.order < order {
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
        let (mut time, mut since) = (keep.min, asked.at);
        if let Some(held) = self.held.as_ref().filter(|held| held.attr.same_but_for_reading(attr)) {
            (time, since) = (held.keep, held.since);
            if asked.at.saturating_duration_since(since) >= time {
                (time, since) = ((time * 2).clamp(keep.min, keep.max), asked.at);
            }
        }
        self.held = Some(Held { attr: attr.clone(), asked, expired: false, keep: time, since });
    }

    /// A change of ours is about to be sent.
    pub fn begin_change(&mut self) {
        let base = self.held().map(state);
        let ours = self
            .ours
            .get_or_insert_with(|| Box::new(Ours { in_flight: 0, base, links: Vec::new(), untold: false }));
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

    /// Takes over what our change's reply says of the time after it, unless a later state is known already. Between a
    /// question asked later and this reply only the server's own clock decides.
    fn adopt(&mut self, after: &Fattr, asked: Stamp, keep: Keep) {
        let newer = self.held.as_ref().filter(|held| held.asked.order > asked.order);
        match newer.map(|held| (after.ctime, after.mtime) >= (held.attr.ctime, held.attr.mtime)) {
            None | Some(true) => self.hold(after, asked, keep),
            Some(false) => {}
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

/// The part of a directory's or file's attributes that stands for its version in NFS version 3.
pub type Version = (Time, Time);

/// The version `attr` shows.
pub fn version(attr: &Fattr) -> Version {
    (attr.mtime, attr.ctime)
}
