//! What the ring costs: buffers, an operation that does nothing, disk I/O at queue depth 32, and an echo through a socket pair.
//!
//! The figures are of one thread on an otherwise idle machine; compare them with each other, in one run.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use blkrep::ring::{Backing, Disk, DiskOptions, Fd, Gather, Op, OpenDisk, Pool, Ring, RingOptions, Slice, Span};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const DEPTH: u32 = 32;
const FILE: u64 = 256 << 20;

criterion_group!(benches, buffers, nothing, disks, echo);
criterion_main!(benches);

fn buffers(criterion: &mut Criterion) {
    let pool = Pool::new(64 << 20).expect("memory for a pool");
    let mut group = criterion.benchmark_group("buffer");
    for len in [4 << 10, 128 << 10, 1 << 20] {
        group.bench_function(format!("allocate and free {} KiB", len >> 10), |bencher| {
            bencher.iter(|| pool.try_allocate(len).expect("an empty pool").len());
        });
    }
    group.bench_function("allocate and free 64 of 4 KiB", |bencher| {
        bencher.iter(|| std::iter::repeat_with(|| pool.try_allocate(4096)).take(64).collect::<Vec<_>>().len());
    });
    let slice = pool.try_allocate(4096).expect("an empty pool").freeze();
    group.bench_function("clone and drop a slice", |bencher| bencher.iter(|| slice.clone().len()));
    group.finish();
}

fn nothing(criterion: &mut Criterion) {
    let mut ring = ring();
    let mut group = criterion.benchmark_group("nothing");
    for count in [1, DEPTH] {
        group.throughput(Throughput::Elements(u64::from(count)));
        group.bench_function(format!("{count} at once"), |bencher| {
            bencher.iter(|| {
                (0..count).for_each(|n| drop(ring.push(Op::Nop, n)));
                finish(&mut ring, count, |_| {});
            });
        });
    }
    group.finish();
}

fn disks(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("disk");
    std::fs::write(&path, vec![0x5A; usize::try_from(FILE).expect("a 64-bit machine")]).expect("room for the file");
    let options = DiskOptions { bytes: FILE, read_only: false, wait: Duration::ZERO };
    let open = OpenDisk::open(&Backing::whole(&path, FILE), &options).expect("a disk");
    let disk = Disk::from(open);
    for len in [4 << 10, 128 << 10] {
        let name = format!("{} KiB at depth {DEPTH}", len >> 10);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(u64::from(DEPTH) * len as u64));
        for registered in [false, true] {
            let pool = Pool::new(32 << 20).expect("memory for a pool");
            let mut ring = ring();
            let kind = if registered && ring.register(&pool, 32 << 20) { "registered" } else { "plain" };
            if registered == (kind == "plain") {
                continue;
            }
            let mut at = Places::new(len as u64);
            group.bench_function(format!("write, {kind}"), |bencher| {
                let slice = pool.try_allocate(len).expect("room in the pool").freeze();
                bencher.iter(|| batch(&mut ring, || disk.write(at.next(), slice.clone(), false)));
            });
            group.bench_function(format!("read, {kind}"), |bencher| {
                bencher.iter(|| batch(&mut ring, || disk.read(at.next(), pool.try_allocate(len).expect("room in the pool"))));
            });
        }
        group.finish();
    }
}

/// A header and a payload go out gathered and come back: one send, one exact receive, two switches of threads.
fn echo(criterion: &mut Criterion) {
    let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    let other = thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        while let Ok(count @ 1..) = theirs.read(&mut buffer) {
            theirs.write_all(&buffer[..count]).expect("somebody reads");
        }
    });
    let socket = Fd::socket(OwnedFd::from(ours)).expect("a socket");
    let pool = Pool::new(16 << 20).expect("memory for a pool");
    let mut ring = ring();
    let mut group = criterion.benchmark_group("echo");
    for len in [4 << 10, 128 << 10] {
        let payload = pool.try_allocate(len).expect("room in the pool").freeze();
        let mut gather = Some(Gather::new());
        group.throughput(Throughput::Bytes(2 * len as u64));
        group.bench_function(format!("{} KiB", len >> 10), |bencher| {
            bencher.iter(|| gather = Some(round_trip(&mut ring, &pool, &socket, gather.take().expect("it came back"), &payload)));
        });
    }
    group.finish();
    drop((ring, socket));
    other.join().expect("the echo ended");
}

fn round_trip(ring: &mut Ring<u32>, pool: &Pool, socket: &Fd, mut gather: Box<Gather>, payload: &Slice) -> Box<Gather> {
    gather.bytes(&[7; 28]);
    gather.payload(payload.clone());
    let len = gather.len();
    let into = pool.try_allocate(len).expect("room in the pool");
    let receive = Op::Receive { socket: socket.clone(), into, span: Span::all(len), exact: true, idle: true };
    ring.push(Op::Send { socket: socket.clone(), gather }, 0).expect("room in the ring");
    ring.push(receive, 1).expect("room in the ring");
    let mut back = None;
    finish(ring, 2, |op| {
        if let Op::Send { mut gather, .. } = op {
            gather.advance(len);
            back = Some(gather);
        }
    });
    back.expect("the send completed")
}

fn ring() -> Ring<u32> {
    Ring::new(RingOptions { entries: 256 }).expect("io_uring")
}

fn batch(ring: &mut Ring<u32>, mut op: impl FnMut() -> Op) {
    for n in 0..DEPTH {
        ring.push(op(), n).expect("room in the ring");
    }
    finish(ring, DEPTH, drop);
}

/// Takes `count` completions, each of which must be a success.
fn finish(ring: &mut Ring<u32>, mut count: u32, mut each: impl FnMut(Op)) {
    while count > 0 {
        ring.turn(None).expect("a ring that works");
        while let Some(completion) = ring.next() {
            completion.result.expect("an operation that succeeds");
            each(completion.op);
            count -= 1;
        }
    }
}

/// Offsets all over the file, the same in every run.
struct Places {
    state: u64,
    len: u64,
}

impl Places {
    fn new(len: u64) -> Self {
        Self { state: 1, len }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % (FILE / self.len) * self.len
    }
}
