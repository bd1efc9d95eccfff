//! What the wire's codec costs for each message of the data path.

use std::hint::black_box;

use blkrep::units::{BlockRange, ResourceId, VolumeId};
use blkrep::wire::{Codec, Frame, HEADER, Message, Parsed, Write};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn frame(message: Message) -> Frame {
    Frame { resource: ResourceId(7), reign: 3, message }
}

fn write(blocks: u64) -> Frame {
    let range = BlockRange { volume: VolumeId(0), first: 123_456, count: blocks };
    frame(Message::Write(Write { seq: 1_000_000, range, fua: false, sync: false, settled: 999_000 }))
}

/// Encodes into a buffer that is used again, as a connection's send buffer is; then takes the same bytes apart.
fn both_ways(c: &mut Criterion, name: &str, codec: Codec, frame: &Frame, payload: &[u8]) {
    let mut group = c.benchmark_group(name);
    let mut out = Vec::with_capacity(64 << 10);
    codec.encode(frame, payload, &mut out).expect("the message can be sent");
    group.throughput(Throughput::Bytes((out.len() + payload.len()) as u64));
    let bytes = out.clone();
    group.bench_function("encode", |b| {
        b.iter(|| {
            out.clear();
            codec.encode(black_box(frame), black_box(payload), &mut out).expect("the message can be sent");
            out.len()
        });
    });
    group.bench_function("parse", |b| {
        b.iter(|| {
            let Ok(Parsed::Whole { header, incoming, .. }) = codec.parse(black_box(&bytes)) else { panic!("all is there") };
            header.check_payload(black_box(payload)).expect("nothing was damaged");
            incoming
        });
    });
    group.finish();
}

fn codec(c: &mut Criterion) {
    let (plain, checked) = (Codec::new(1, false), Codec::new(1, true));
    let block = vec![0x5a; 4096];
    let large = vec![0x5a; 128 << 10];
    both_ways(c, "write 4 KiB", plain, &write(1), &block);
    both_ways(c, "write 4 KiB, payload checksum", checked, &write(1), &block);
    both_ways(c, "write 128 KiB, payload checksum", checked, &write(32), &large);
    for count in [1, 32] {
        let seqs = (1_000_000..1_000_000 + count).collect();
        both_ways(c, &format!("written, {count}"), plain, &frame(Message::Written { seqs }), &[]);
    }
    let ranges = (0..4096).map(|n| BlockRange { volume: VolumeId(0), first: n * 1000, count: 3 }).collect();
    both_ways(c, "report of 4096 ranges", plain, &frame(Message::ReportRanges { session: 1, ranges }), &[]);
    c.bench_function("ask for the rest of a header", |b| b.iter(|| plain.parse(black_box(&b"bk\x01\x10"[..]))));
    assert_eq!(plain.parse(b"bk"), Ok(Parsed::More(HEADER)));
}

criterion_group!(benches, codec);
criterion_main!(benches);
