//! What dirty bitmaps cost on a volume of 1 TiB.

use std::hint::black_box;
use std::ops::Range;

use blkrep::format::{Bitmap, PAGE_BITS, Region, encode_activity_page, encode_dirty_page};
use blkrep::units::{ReplicaId, VolumeId};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

/// A TiB in blocks.
const BLOCKS: u64 = 1 << 28;

const REGION: Region = Region { volume: VolumeId(0), bytes: 1 << 40, at: 32 << 10, slots: 7 };

/// Numbers that look random and are the same in every run.
fn scattered(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 16) % BLOCKS
    }
}

/// A map with `count` single blocks set, all over the volume.
fn sparse(count: usize) -> Bitmap {
    let mut map = Bitmap::new(BLOCKS);
    let mut next = scattered(1);
    for _ in 0..count {
        let bit = next();
        map.set(bit..bit + 1);
    }
    map
}

fn scan(map: &Bitmap) -> u64 {
    let (mut from, mut found) = (0, 0);
    while let Some(run) = map.next_set_run(from, 1024) {
        found += run.end - run.start;
        from = run.end;
    }
    found
}

fn change(c: &mut Criterion) {
    let mut group = c.benchmark_group("change");
    let mut map = sparse(100_000);
    let mut next = scattered(2);
    group.bench_function("set and clear one block", |b| {
        b.iter(|| {
            let bit = next();
            map.set(bit..bit + 1) + map.clear(bit..bit + 1)
        });
    });
    let mut map = Bitmap::new(BLOCKS);
    group.bench_function("set and clear one block in an empty map", |b| {
        b.iter(|| {
            let bit = next();
            map.set(bit..bit + 1) + map.clear(bit..bit + 1)
        });
    });
    let extent = |bit: u64| -> Range<u64> { bit & !1023..(bit & !1023) + 1024 };
    group.bench_function("set and clear one extent", |b| {
        b.iter(|| {
            let range = extent(next());
            map.set(range.clone()) + map.clear(range)
        });
    });
    group.bench_function("fill", |b| {
        b.iter_batched_ref(|| sparse(1000), Bitmap::fill, BatchSize::LargeInput);
    });
    let other = sparse(10_000);
    group.bench_function("union of 10,000 scattered blocks", |b| {
        b.iter_batched_ref(|| Bitmap::new(BLOCKS), |map| map.union(&other), BatchSize::LargeInput);
    });
    group.finish();
}

fn find(c: &mut Criterion) {
    let mut group = c.benchmark_group("scan a TiB");
    group.sample_size(20);
    for (name, map) in [("empty", Bitmap::new(BLOCKS)), ("1,000 blocks", sparse(1000)), ("1,000,000 blocks", sparse(1_000_000))] {
        group.bench_function(name, |b| b.iter(|| scan(black_box(&map))));
    }
    let mut full = Bitmap::new(BLOCKS);
    full.fill();
    group.bench_function("full", |b| b.iter(|| scan(black_box(&full))));
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode a page");
    let map = sparse(1_000_000);
    let mut page = 0;
    group.bench_function("dirty", |b| {
        b.iter(|| {
            page = (page + 1) % (BLOCKS / PAGE_BITS);
            encode_dirty_page(ReplicaId(1), &REGION, 3, page, &map)
        });
    });
    let mut hot = Bitmap::new(REGION.extents());
    (0..REGION.extents()).step_by(100).for_each(|extent| {
        hot.set(extent..extent + 1);
    });
    group.bench_function("activity", |b| b.iter(|| encode_activity_page(ReplicaId(1), &REGION, 2, 77, black_box(&hot))));
    group.finish();
}

criterion_group!(benches, change, find, encode);
criterion_main!(benches);
