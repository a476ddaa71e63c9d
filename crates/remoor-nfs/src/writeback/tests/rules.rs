//! The rules, one by one.

use bytes::Bytes;

use super::super::*;
use super::server::World;
use crate::v3::StableHow::{self, FileSync, Unstable};

const WSIZE: u32 = 1 << 20;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn machine() -> Writeback<&'static str> {
    Writeback::new(WSIZE)
}

fn zeros(len: usize) -> Bytes {
    vec![0; len].into()
}

fn answer(count: usize, committed: StableHow, verf: u8) -> Result<Wrote, &'static str> {
    Ok(Wrote { count: count as u32, committed, verf: [verf; 8] })
}

/// Sends everything and has it answered as unstable data of instance `verf`.
fn write_out(machine: &mut Writeback<&'static str>, verf: u8) {
    while let Some(write) = machine.poll_write(Urgency::All) {
        machine.wrote(write.id, answer(write.count(), Unstable, verf));
    }
}

fn shape(write: Option<Write>) -> Option<(u64, usize, StableHow)> {
    write.map(|write| (write.offset, write.count(), write.stable))
}

#[test]
fn one_small_flush_is_one_stable_write() {
    let mut machine = machine();
    machine.write(10, zeros(100));
    let write = machine.poll_write(Urgency::Stable).unwrap();
    assert_eq!((write.offset, write.count(), write.stable), (10, 100, FileSync));
    machine.wrote(write.id, answer(100, FileSync, 1));
    assert!(machine.is_stable());
    assert_eq!(machine.poll_commit(), None);
}

#[test]
fn a_flush_is_not_stable_by_itself_when_a_commit_comes_anyway() {
    let mut two = machine();
    two.write(0, zeros(1));
    two.write(2, zeros(1));
    assert_eq!(shape(two.poll_write(Urgency::Stable)), Some((0, 1, Unstable)));
    assert_eq!(shape(two.poll_write(Urgency::Stable)), Some((2, 1, Unstable)));
    let mut behind = machine();
    behind.write(0, zeros(1));
    write_out(&mut behind, 1);
    behind.write(1, zeros(1));
    assert_eq!(shape(behind.poll_write(Urgency::Stable)), Some((1, 1, Unstable)));
}

#[test]
fn only_full_writes_go_before_they_must_and_they_are_aligned() {
    let mut machine = machine();
    machine.write(100, zeros(MIB - 1));
    assert!(!machine.has_full());
    assert_eq!(shape(machine.poll_write(Urgency::Full)), None);
    machine.write((MIB + 99) as u64, zeros(MIB));
    assert_eq!(shape(machine.poll_write(Urgency::Full)), Some((100, MIB - 100, Unstable)));
    assert_eq!(shape(machine.poll_write(Urgency::Full)), Some((MIB as u64, MIB, Unstable)));
    assert_eq!(shape(machine.poll_write(Urgency::Full)), None);
    assert_eq!(shape(machine.poll_write(Urgency::All)), Some((2 * MIB as u64, 99, Unstable)));
}

#[test]
fn small_appends_share_buffers_and_large_writes_are_not_copied() {
    let mut machine = machine();
    for n in 0..64 {
        machine.write(n * 4 * KIB as u64, zeros(4 * KIB));
    }
    let large = zeros(256 * KIB);
    machine.write(256 * KIB as u64, large.clone());
    let write = machine.poll_write(Urgency::All).unwrap();
    let lens: Vec<_> = write.segments.iter().map(Bytes::len).collect();
    assert_eq!(lens, [CHUNK, CHUNK, CHUNK, CHUNK, 256 * KIB]);
    assert_eq!(write.segments[4].as_ptr(), large.as_ptr());
}

#[test]
fn small_writes_in_any_order_are_one_write_of_few_buffers() {
    let mut machine = machine();
    for n in (0..256).rev() {
        machine.write(n * 4 * KIB as u64, zeros(4 * KIB));
    }
    let write = machine.poll_write(Urgency::Full).unwrap();
    assert_eq!((write.count(), write.segments.len()), (MIB, MIB / CHUNK));
}

#[test]
fn a_write_waits_for_the_one_it_overlaps() {
    let mut machine = machine();
    machine.write(0, zeros(10));
    let first = machine.poll_write(Urgency::All).unwrap();
    machine.write(5, zeros(10));
    machine.write(100, zeros(1));
    assert_eq!(shape(machine.poll_write(Urgency::All)), Some((10, 5, Unstable)));
    assert_eq!(shape(machine.poll_write(Urgency::All)), Some((100, 1, Unstable)));
    assert_eq!(shape(machine.poll_write(Urgency::All)), None);
    machine.wrote(first.id, answer(10, Unstable, 1));
    assert_eq!(shape(machine.poll_write(Urgency::All)), Some((5, 5, Unstable)));
}

#[test]
fn the_rest_of_a_short_write_is_sent_again() {
    let mut machine = machine();
    machine.write(0, zeros(10));
    let write = machine.poll_write(Urgency::Stable).unwrap();
    machine.wrote(write.id, answer(4, FileSync, 1));
    assert_eq!(shape(machine.poll_write(Urgency::Stable)), Some((4, 6, FileSync)));
}

#[test]
fn less_stable_than_asked_for_is_committed() {
    let mut machine = machine();
    machine.write(0, zeros(10));
    let write = machine.poll_write(Urgency::Stable).unwrap();
    machine.wrote(write.id, answer(10, Unstable, 1));
    let commit = machine.poll_commit().unwrap();
    assert_eq!(machine.poll_commit(), None);
    machine.committed(commit, Ok([1; 8]));
    assert!(machine.is_stable());
}

#[test]
fn another_instance_s_commit_makes_all_dirty_again() {
    let mut machine = machine();
    machine.write(0, zeros(10));
    write_out(&mut machine, 1);
    let commit = machine.poll_commit().unwrap();
    machine.committed(commit, Ok([2; 8]));
    assert_eq!((machine.unstable_bytes(), machine.dirty_bytes()), (0, 10));
}

#[test]
fn another_instance_s_write_makes_the_rest_dirty_again() {
    let mut machine = machine();
    machine.write(0, zeros(10));
    write_out(&mut machine, 1);
    machine.write(20, zeros(5));
    let write = machine.poll_write(Urgency::All).unwrap();
    machine.wrote(write.id, answer(5, Unstable, 2));
    assert_eq!((machine.unstable_bytes(), machine.dirty_bytes()), (5, 10));
}

#[test]
fn a_commit_does_not_cover_what_was_answered_after_it_was_sent() {
    let mut machine = machine();
    machine.write(0, zeros(10));
    write_out(&mut machine, 1);
    let commit = machine.poll_commit().unwrap();
    machine.write(20, zeros(5));
    write_out(&mut machine, 1);
    machine.committed(commit, Ok([1; 8]));
    assert_eq!(machine.unstable_bytes(), 5);
}

#[test]
fn what_fails_is_dropped_and_told_once_to_each_open_file() {
    let mut machine = machine();
    let (mut a, mut b) = (machine.error_mark(), machine.error_mark());
    machine.write(0, zeros(10));
    let write = machine.poll_write(Urgency::All).unwrap();
    machine.wrote(write.id, Err("no space"));
    assert!(machine.is_stable());
    machine.write(0, zeros(10));
    write_out(&mut machine, 1);
    let commit = machine.poll_commit().unwrap();
    machine.committed(commit, Err("broken disk"));
    assert!(machine.is_stable());
    assert_eq!(machine.peek_error(a), Some(&"broken disk"));
    assert_eq!((machine.take_error(&mut a), machine.take_error(&mut a)), (Some("broken disk"), None));
    assert_eq!(machine.take_error(&mut b), Some("broken disk"));
}

#[test]
fn data_written_over_what_failed_stays() {
    let mut machine = machine();
    machine.write(0, zeros(10));
    let write = machine.poll_write(Urgency::All).unwrap();
    machine.write(2, zeros(3));
    machine.wrote(write.id, Err("no space"));
    assert_eq!(shape(machine.poll_write(Urgency::All)), Some((2, 3, Unstable)));
}

#[test]
fn who_waits_for_a_mark_does_not_wait_for_what_is_written_later() {
    let mut machine = machine();
    machine.write(0, zeros(10));
    let mark = machine.mark();
    machine.write(100, zeros(10));
    let first = machine.poll_write(Urgency::All).unwrap();
    assert!(!machine.is_written(mark));
    machine.wrote(first.id, answer(10, Unstable, 1));
    assert!(machine.is_written(mark) && !machine.is_stable_since(mark));
    let commit = machine.poll_commit().unwrap();
    machine.committed(commit, Ok([1; 8]));
    assert!(machine.is_stable_since(mark) && !machine.is_stable());
}

/// Else neither the old nor the new bytes would survive although fsync returned.
#[test]
fn who_waits_for_a_mark_waits_for_what_replaced_older_data() {
    let mut machine = machine();
    machine.write(0, zeros(10));
    let mark = machine.mark();
    machine.write(0, zeros(10));
    assert!(!machine.is_written(mark));
    write_out(&mut machine, 1);
    assert!(machine.is_written(mark) && !machine.is_stable_since(mark));
}

#[test]
fn truncation_forgets_what_lies_beyond() {
    let mut machine = machine();
    machine.write(0, zeros(10));
    machine.write(20, zeros(10));
    machine.truncate(5);
    assert_eq!((machine.end(), machine.dirty_bytes()), (Some(5), 5));
    machine.truncate(0);
    assert!(machine.is_stable());
    assert_eq!((machine.end(), machine.held_bytes()), (None, 0));
}

#[test]
fn the_file_is_at_least_as_long_as_what_the_server_may_lose() {
    let mut machine = machine();
    assert_eq!((machine.end(), machine.has_unwritten()), (None, false));
    machine.write(20, zeros(10));
    assert!(machine.has_unwritten());
    write_out(&mut machine, 1);
    assert_eq!((machine.end(), machine.has_unwritten()), (Some(30), false));
}

#[test]
fn bytes_held_are_seen_where_they_lie() {
    let mut machine = machine();
    machine.write(10, Bytes::from_static(b"abc"));
    machine.write(20, Bytes::from_static(b"xyz"));
    let overlay = machine.overlay(11, 10);
    assert_eq!(overlay, [(11, Bytes::from_static(b"bc")), (20, Bytes::from_static(b"x"))]);
    assert_eq!(machine.overlay(13, 7), []);
    assert_eq!(machine.overlay(0, 0), []);
}

#[test]
fn tiny_scattered_writes_are_reckoned_at_what_they_cost() {
    let mut machine = machine();
    for n in 0..100 {
        machine.write(n * 2, zeros(1));
    }
    assert_eq!(machine.held_bytes(), 100 * (1 + OVERHEAD));
}

#[test]
fn a_stream_needs_no_more_writes_than_it_fills() {
    let mut world = World::new(64 << 10);
    for n in 0..1024 {
        world.write(n * KIB..(n + 1) * KIB);
        world.send(Urgency::Full);
    }
    world.fsync();
    assert_eq!(world.sent, 16);
}
