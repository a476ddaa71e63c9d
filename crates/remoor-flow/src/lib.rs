//! What a stateful L4 balancer does with every TCP segment, as a pure model.
//!
//! Segment headers and `now` go in, a [`Decision`] comes out. The crate has no I/O, no clock and no
//! randomness but the seed it is given, so the same [`FlowTable`] forwards real packets in the drill
//! and runs in virtual time in a prediction.
//!
//! A balancer is a [`Config`]; those of vendors are in [`preset`]:
//!
//! ```
//! use remoor_flow::{BackendId, FlowTable, preset};
//!
//! let azure = preset::find("azure-standard+close-frees").expect("a shipped preset");
//! let table = FlowTable::new(azure.config, &[BackendId(0), BackendId(1)], 7);
//! assert!(table.is_empty());
//! ```

mod config;
mod packet;
mod pool;
pub mod predict;
pub mod preset;
#[cfg(test)]
mod script;
mod table;
mod track;

pub use config::{
    CloseRule, CloseRules, Config, Hash, IdleAction, OnAllDown, OnBackendDown, RefreshOn, ReplyWithoutEntry,
    Selection, StateTimers, SynOnEntry, Tracking, Tuple, WhenFull, WithoutEntry,
};
pub use packet::{BackendId, Direction, FiveTuple, Reset, ResetTo, Segment, TcpFlags};
pub use pool::Health;
pub use table::{Counters, Decision, DropReason, EntryView, FlowTable};
pub use track::TcpState;
