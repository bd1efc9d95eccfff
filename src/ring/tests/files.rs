//! Reads, writes and holes of files.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use rustix::io::Errno;

use super::*;

const BLOCKS: u64 = 64;

#[derive(Clone, Debug)]
enum Step {
    Write { block: u64, blocks: u64, seed: u64, durable: bool },
    Read { block: u64, blocks: u64 },
    Zero { block: u64, blocks: u64, how: ZeroBy },
    Sync,
}

fn step() -> impl Strategy<Value = Step> {
    let range = (0..BLOCKS, 1_u64..16).prop_map(|(block, blocks)| (block, blocks.min(BLOCKS - block)));
    let how = prop_oneof![Just(ZeroBy::Punch), Just(ZeroBy::Allocate)];
    prop_oneof![
        4 => (range.clone(), any::<u64>(), any::<bool>())
            .prop_map(|((block, blocks), seed, durable)| Step::Write { block, blocks, seed, durable }),
        3 => range.clone().prop_map(|(block, blocks)| Step::Read { block, blocks }),
        1 => (range, how).prop_map(|((block, blocks), how)| Step::Zero { block, blocks, how }),
        1 => Just(Step::Sync),
    ]
}

fn sized_file() -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(BLOCKS * 4096).unwrap();
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is done through the ring, registered or not, gives the same file as the plain system calls on a twin.
    #[test]
    fn the_ring_and_the_plain_calls_agree(steps in prop::collection::vec(step(), 1..40), registered in any::<bool>()) {
        let (file, twin) = (sized_file(), sized_file());
        let mut bench = Bench::new();
        if registered {
            bench.ring.register(&bench.pool, 1 << 20);
        }
        let fd = Fd::from(OwnedFd::from(file.try_clone().unwrap()));
        for step in steps {
            match step {
                Step::Write { block, blocks, seed, durable } => {
                    let data = pattern(seed, usize::try_from(blocks * 4096).unwrap());
                    twin.write_all_at(&data, block * 4096).unwrap();
                    let from = bench.buffer(&data).freeze();
                    let span = Span::all(from.len());
                    let done = bench.run(Op::Write { file: fd.clone(), offset: block * 4096, from, span, durable });
                    prop_assert_eq!(done.result, Ok(u32::try_from(data.len()).unwrap()));
                }
                Step::Read { block, blocks } => {
                    let mut expected = vec![0; usize::try_from(blocks * 4096).unwrap()];
                    twin.read_exact_at(&mut expected, block * 4096).unwrap();
                    let into = bench.pool.try_allocate(expected.len()).unwrap();
                    let span = Span::all(into.len());
                    let done = bench.run(Op::Read { file: fd.clone(), offset: block * 4096, into, span });
                    prop_assert_eq!(received(done), expected);
                }
                Step::Zero { block, blocks, how } => {
                    twin.write_all_at(&vec![0; usize::try_from(blocks * 4096).unwrap()], block * 4096).unwrap();
                    let done = bench.run(Op::Zero { file: fd.clone(), offset: block * 4096, length: blocks * 4096, how });
                    prop_assert_eq!(done.result, Ok(0));
                }
                Step::Sync => prop_assert_eq!(bench.run(Op::Sync { file: fd.clone() }).result, Ok(0)),
            }
        }
        let (mut ours, mut theirs) = (vec![0; 4096 * 64], vec![0; 4096 * 64]);
        file.read_exact_at(&mut ours, 0).unwrap();
        twin.read_exact_at(&mut theirs, 0).unwrap();
        prop_assert!(ours == theirs, "the files differ");
        prop_assert_eq!(bench.pool.in_use(), 0);
    }
}

#[test]
fn many_at_once_complete_each_with_its_own() {
    let mut bench = Bench::new();
    let fd = Fd::from(OwnedFd::from(sized_file()));
    for block in 0..BLOCKS {
        let from = bench.buffer(&pattern(block, 4096)).freeze();
        let op = Op::Write { file: fd.clone(), offset: block * 4096, from, span: Span::all(4096), durable: false };
        bench.push(op, block);
    }
    let all_written: Vec<_> = (0..BLOCKS).map(|_| bench.complete()).collect();
    for written in all_written {
        assert_eq!(written.result, Ok(4096));
        let Op::Write { file, offset, from, .. } = written.op else { panic!("a write was pushed") };
        assert_eq!((offset, &*from), (written.token * 4096, &pattern(written.token, 4096)[..]));
        let into = from.try_into_buffer().expect("nobody else has it");
        bench.push(Op::Read { file, offset, into, span: Span::all(4096) }, written.token);
    }
    for _ in 0..BLOCKS {
        let read = bench.complete();
        let expected = pattern(read.token, 4096);
        assert_eq!(received(read), expected);
    }
    assert_eq!((bench.ring.in_flight(), bench.pool.in_use()), (0, 0));
}

#[test]
fn errors_come_back_with_what_was_lent() {
    let mut bench = Bench::new();
    let (pipe, _writer) = io::pipe().unwrap();
    let from = bench.buffer(&[1; 4096]).freeze();
    let fd = Fd::from(OwnedFd::from(pipe));
    let done = bench.run(Op::Write { file: fd, offset: 0, from, span: Span::all(4096), durable: false });
    assert_eq!(done.result, Err(Errno::BADF));
    assert!(matches!(done.op, Op::Write { from, .. } if *from == [1; 4096]));
}

#[test]
fn a_closed_file_is_closed_once() {
    let mut bench = Bench::new();
    let (reader, writer) = io::pipe().unwrap();
    let fd = Fd::from(OwnedFd::from(writer));
    let clone = fd.clone();
    let fd = fd.try_into_owned().expect_err("a clone exists");
    drop(clone);
    let done = bench.run(Op::Close(Some(fd.try_into_owned().unwrap())));
    assert_eq!(done.result, Ok(0));
    assert!(matches!(done.op, Op::Close(None)));
    assert_eq!(io::read_to_string(reader).unwrap(), "", "the writing end is closed");
}
