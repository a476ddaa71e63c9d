//! What holds in every run: a reader sees what was written last, and what fsync returned for survives.

use proptest::prelude::*;

use super::super::*;
use super::server::World;

const WSIZE: u32 = 64 << 10;
const FILE: usize = 256 << 10;

#[derive(Debug, Clone)]
enum Step {
    Write { at: usize, len: usize },
    Append { len: usize },
    Send(Urgency),
    Commit,
    Execute { pick: usize, short: usize },
    Deliver { pick: usize },
    Crash,
    Truncate { size: usize },
    Fsync,
}

fn step() -> impl Strategy<Value = Step> {
    let small = 1..100usize;
    let len = prop_oneof![small.clone(), 1..(20usize << 10), 1..(200usize << 10)];
    let place = prop_oneof![0..1000usize, 0..FILE];
    let pick = 0..8usize;
    let short = prop_oneof![3 => Just(0usize), 1 => 1..(70usize << 10)];
    let urgency = prop::sample::select(vec![Urgency::Full, Urgency::All, Urgency::Stable]);
    prop_oneof![
        8 => (place.clone(), len).prop_map(|(at, len)| Step::Write { at, len }),
        4 => small.prop_map(|len| Step::Append { len }),
        6 => urgency.prop_map(Step::Send),
        3 => Just(Step::Commit),
        6 => (pick.clone(), short).prop_map(|(pick, short)| Step::Execute { pick, short }),
        5 => pick.prop_map(|pick| Step::Deliver { pick }),
        2 => Just(Step::Crash),
        1 => place.prop_map(|size| Step::Truncate { size }),
        1 => Just(Step::Fsync),
    ]
}

fn take(world: &mut World, step: &Step) {
    match *step {
        Step::Write { at, len } => world.write(at..at + len),
        Step::Append { len } => world.write(world.model.len()..world.model.len() + len),
        Step::Send(urgency) => drop(world.send(urgency)),
        Step::Commit => world.commit(),
        Step::Execute { pick, short } => world.execute(pick, short),
        Step::Deliver { pick } => world.deliver(pick),
        Step::Crash => world.crash(),
        Step::Truncate { size } => world.truncate(size),
        Step::Fsync => world.fsync(),
    }
}

/// Not with `assert_eq!`: a quarter of a megabyte of numbers tells nobody anything.
fn same(left: &[u8], right: &[u8]) -> Result<(), TestCaseError> {
    if left == right {
        return Ok(());
    }
    let differs = left.iter().zip(right).position(|(left, right)| left != right);
    Err(TestCaseError::fail(format!("{} and {} bytes differ at {differs:?}", left.len(), right.len())))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn nothing_written_is_lost_or_out_of_order(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new(WSIZE);
        for step in &steps {
            take(&mut world, step);
            world.client.assert_consistent();
            same(&world.read(), &world.model)?;
            if matches!(step, Step::Fsync) {
                same(world.survives(), &world.model)?;
            }
        }
        world.fsync();
        world.crash();
        same(world.survives(), &world.model)?;
        same(&world.read(), &world.model)?;
        prop_assert_eq!((world.client.held_bytes(), world.client.dirty_bytes()), (0, 0));
    }
}
