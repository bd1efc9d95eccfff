use std::collections::BTreeSet;

use proptest::prelude::*;

use super::Bitmap;
use crate::format::page::PAGE_BITS;

/// One TiB of blocks.
const TIB: u64 = 1 << 28;

#[derive(Clone, Debug)]
enum Op {
    Set(u64, u64),
    Clear(u64, u64),
    Fill,
    Wipe,
    Resize(u64, bool),
    Union(Vec<(u64, u64)>),
}

/// Positions crowd around the borders of words and pages, where mistakes live.
fn position() -> impl Strategy<Value = u64> {
    let border = prop_oneof![Just(0), Just(64), Just(PAGE_BITS), Just(2 * PAGE_BITS), Just(3 * PAGE_BITS)];
    prop_oneof![0..3 * PAGE_BITS + 100, (border, 0..4_u64).prop_map(|(at, off)| (at + 2).saturating_sub(off))]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (position(), position()).prop_map(|(a, b)| Op::Set(a, b)),
        4 => (position(), position()).prop_map(|(a, b)| Op::Clear(a, b)),
        1 => Just(Op::Fill),
        1 => Just(Op::Wipe),
        2 => (position(), any::<bool>()).prop_map(|(bits, set)| Op::Resize(bits, set)),
        1 => prop::collection::vec((position(), position()), 0..4).prop_map(Op::Union),
    ]
}

/// A set of bits the simple way.
#[derive(Default)]
struct Model {
    bits: Vec<bool>,
}

impl Model {
    fn put(&mut self, from: u64, to: u64, set: bool) -> u64 {
        let range = usize::try_from(from).unwrap()..usize::try_from(to).unwrap();
        self.bits[range].iter_mut().map(|bit| u64::from(std::mem::replace(bit, set) != set)).sum()
    }

    fn runs(&self, from: u64, to: u64) -> Vec<std::ops::Range<u64>> {
        let mut runs: Vec<std::ops::Range<u64>> = Vec::new();
        for bit in (from..to).filter(|&bit| self.bits[usize::try_from(bit).unwrap()]) {
            match runs.last_mut() {
                Some(run) if run.end == bit => run.end += 1,
                _ => runs.push(bit..bit + 1),
            }
        }
        runs
    }
}

/// Both positions, in order and within a map of `bits` bits.
fn within(a: u64, b: u64, bits: u64) -> (u64, u64) {
    (a.min(b).min(bits), a.max(b).min(bits))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_map_does_what_a_vector_of_flags_does(bits in position(), ops in prop::collection::vec(op(), 1..24), a in position(), b in position()) {
        let mut map = Bitmap::new(bits);
        let mut model = Model { bits: vec![false; usize::try_from(bits).unwrap()] };
        for op in ops {
            match op {
                Op::Set(a, b) => {
                    let (a, b) = within(a, b, map.len());
                    prop_assert_eq!(map.set(a..b), model.put(a, b, true));
                }
                Op::Clear(a, b) => {
                    let (a, b) = within(a, b, map.len());
                    prop_assert_eq!(map.clear(a..b), model.put(a, b, false));
                }
                Op::Fill => {
                    map.fill();
                    model.bits.fill(true);
                }
                Op::Wipe => {
                    map.wipe();
                    model.bits.fill(false);
                }
                Op::Resize(bits, set) => {
                    map.resize(bits, set);
                    model.bits.resize(usize::try_from(bits).unwrap(), set);
                }
                Op::Union(ranges) => {
                    let mut other = Bitmap::new(map.len());
                    for (a, b) in ranges {
                        let (a, b) = within(a, b, map.len());
                        other.set(a..b);
                        model.put(a, b, true);
                    }
                    map.union(&other);
                }
            }
            let len = model.bits.len() as u64;
            prop_assert_eq!(map.len(), len);
            prop_assert_eq!(map.count(), model.bits.iter().filter(|&&bit| bit).count() as u64);
            prop_assert_eq!(map.runs(0..len).collect::<Vec<_>>(), model.runs(0, len));
        }
        let (a, b) = within(a, b, map.len());
        let runs = model.runs(a, b);
        prop_assert_eq!(map.runs(a..b).collect::<Vec<_>>(), runs.clone());
        prop_assert_eq!(map.any_in(a..b), !runs.is_empty());
        prop_assert_eq!(map.count_in(a..b), runs.iter().map(|run| run.end - run.start).sum::<u64>());
        for bit in [a, b].into_iter().filter(|&bit| bit < map.len()) {
            prop_assert_eq!(map.is_set(bit), model.bits[usize::try_from(bit).unwrap()]);
        }
    }

    /// Equality looks at the form in memory, so the form must depend on the bits alone.
    #[test]
    fn maps_of_the_same_bits_are_equal_however_they_came_about(bits in 1..2 * PAGE_BITS, set in prop::collection::vec(any::<prop::sample::Index>(), 0..40)) {
        let set: BTreeSet<u64> = set.iter().map(|at| at.index(usize::try_from(bits).unwrap()) as u64).collect();
        let mut up = Bitmap::new(bits);
        let mut down = Bitmap::new(3 * PAGE_BITS);
        down.fill();
        for bit in 0..bits {
            if set.contains(&bit) {
                up.set(bit..bit + 1);
            } else {
                down.clear(bit..bit + 1);
            }
        }
        down.resize(bits, false);
        prop_assert_eq!(&up, &down);
        up.fill();
        down.set(0..bits);
        prop_assert_eq!(up, down);
    }

    #[test]
    fn a_scan_by_bounded_runs_finds_every_set_bit_once(ranges in prop::collection::vec((position(), 0..200_u64), 0..20), max in 1..300_u64) {
        let mut map = Bitmap::new(4 * PAGE_BITS);
        for (at, len) in ranges {
            map.set(at..at + len);
        }
        let mut found = Bitmap::new(map.len());
        let mut from = 0;
        while let Some(run) = map.next_set_run(from, max) {
            prop_assert!(run.start >= from && run.end - run.start <= max);
            prop_assert_eq!(found.set(run.clone()), run.end - run.start);
            from = run.end;
        }
        prop_assert_eq!(found, map);
    }
}

#[test]
fn an_untouched_or_full_tebibyte_costs_next_to_nothing() {
    let mut map = Bitmap::new(TIB);
    assert!(map.memory() < 256 << 10, "{} bytes when clear", map.memory());
    map.fill();
    assert_eq!(map.count(), TIB);
    assert!(map.memory() < 256 << 10, "{} bytes when full", map.memory());
    for at in (0..TIB).step_by(1000) {
        map.clear(at..at + 1);
    }
    assert!(map.memory() < 40 << 20, "{} bytes when mixed everywhere", map.memory());
}

#[test]
fn a_bit_that_comes_and_goes_leaves_no_memory_behind() {
    let mut map = Bitmap::new(TIB);
    let before = map.memory();
    for at in (0..TIB).step_by(100_003) {
        map.set(at..at + 1);
        map.clear(at..at + 1);
    }
    assert!(map.memory() <= before + 5 * 4096);
}

#[test]
#[should_panic(expected = "of a map of 10 bits")]
fn a_range_beyond_the_end_is_a_mistake() {
    Bitmap::new(10).set(9..11);
}
