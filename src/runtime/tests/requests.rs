//! What a client asks for is what it gets.

use proptest::prelude::*;

use super::*;

fn modes() -> [Mode; 3] {
    let structured = Mode { structured: true, allocation: Some(1), ..Mode::default() };
    [Mode::default(), structured.clone(), Mode { extended: true, ..structured }]
}

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap() ^ seed).collect()
}

#[test]
fn any_range_is_written_and_read_back_in_every_mode() {
    let node = Node::serving(48 << 20);
    for mode in modes() {
        let mut client = node.client(mode);
        for (offset, length) in [(0, 512), (4096, 4096), (5000, 3), (4095, 8194), (1 << 20, 3 << 20), (77, 5_000_001)] {
            let bytes = pattern(length, 3);
            client.write(offset, &bytes);
            assert!(client.read(offset, u32::try_from(length).unwrap()) == bytes, "{length} bytes at {offset}");
        }
    }
}

#[test]
fn the_largest_payload_goes_both_ways() {
    let node = Node::serving(64 << 20);
    let mut client = node.client(Mode::default());
    let bytes = pattern(32 << 20, 1);
    let read = Request::Read { offset: 12_345, length: 32 << 20, dont_fragment: false };
    let mut socket = client.socket.try_clone().unwrap();
    let sent = bytes.clone();
    let write = request(&client.mode, 1, &Request::Write { offset: 12_345, length: 32 << 20, fua: false }).to_vec();
    let writer = thread::spawn(move || {
        socket.write_all(&write).unwrap();
        socket.write_all(&sent).unwrap();
    });
    assert_eq!(client.receive(0), (1, Ok(Vec::new())));
    writer.join().unwrap();
    client.next = 2;
    assert!(client.ask(&read, &[], 32 << 20).unwrap() == bytes);
}

#[test]
fn many_requests_are_answered_each_once() {
    let node = Node::serving(16 << 20);
    let mut client = node.client(Mode::default());
    let blocks: Vec<_> = (0..256_u64).map(|at| (at, client.send(&write_of(at * 8192), &pattern(4096, at as u8)))).collect();
    let mut answered: Vec<u64> = blocks.iter().map(|_| client.receive(0).0).collect();
    answered.sort_unstable();
    assert_eq!(answered, blocks.iter().map(|(_, cookie)| *cookie).collect::<Vec<_>>());
    for (at, _) in blocks {
        assert_eq!(client.read(at * 8192, 4096), pattern(4096, at as u8), "block {at}");
    }
}

fn write_of(offset: u64) -> Request {
    Request::Write { offset, length: 4096, fua: false }
}

#[test]
fn data_is_in_the_file_after_a_flush_and_after_fua() {
    let node = Node::serving(1 << 20);
    let mut client = node.client(Mode::default());
    client.write(8192, &pattern(4096, 9));
    client.flush();
    let bytes = pattern(100, 8);
    assert_eq!(client.ask(&Request::Write { offset: 70, length: 100, fua: true }, &bytes, 0), Ok(Vec::new()));
    let file = std::fs::read(node.data()).unwrap();
    assert_eq!((&file[8192..12288], &file[70..170]), (&pattern(4096, 9)[..], &bytes[..]));
}

#[test]
fn zeroes_reach_exactly_as_far_as_asked_and_trim_never_further() {
    let node = Node::serving(1 << 20);
    let mut client = node.client(Mode::default());
    let before = pattern(1 << 20, 0x55);
    client.write(0, &before);
    let zeroes = |offset, length, no_hole| Request::WriteZeroes { offset, length, fua: true, no_hole, fast: false };
    let mut expected = before;
    for (offset, length, no_hole) in
        [(100_u64, 50_u64, false), (4000, 200, false), (10_000, 100_000, true), (131_072, 8192, false)]
    {
        assert_eq!(client.ask(&zeroes(offset, length, no_hole), &[], 0), Ok(Vec::new()));
        expected[offset as usize..(offset + length) as usize].fill(0);
    }
    assert_eq!(client.ask(&Request::Trim { offset: 200_000, length: 20_000, fua: false }, &[], 0), Ok(Vec::new()));
    expected[200_704..217_088].fill(0);
    assert_eq!(client.ask(&Request::Trim { offset: 300_000, length: 90, fua: false }, &[], 0), Ok(Vec::new()));
    assert!(client.read(0, 1 << 20) == expected);
}

#[test]
fn a_long_trim_is_answered_once_and_other_requests_go_on() {
    let bytes = 5 << 30;
    let node = Node::serving(bytes);
    let mut client = node.client(Mode { structured: true, extended: true, ..Mode::default() });
    client.write(3 << 30, &pattern(4096, 1));
    let trim = client.send(&Request::Trim { offset: 0, length: bytes, fua: false }, &[]);
    assert_eq!(client.receive(0), (trim, Ok(Vec::new())));
    assert_eq!(client.read(3 << 30, 4096), vec![0; 4096]);
    let held = std::process::Command::new("du").arg("-k").arg(node.data()).output().unwrap();
    let held = String::from_utf8(held.stdout).unwrap();
    assert!(held.split_whitespace().next().unwrap().parse::<u64>().unwrap() < 64, "space was given back: {held}");
}

#[test]
fn what_makes_no_sense_is_refused_and_the_connection_goes_on() {
    let node = Node::serving(1 << 20);
    for mode in modes() {
        let mut client = node.client(mode);
        let end = 1 << 20;
        assert_eq!(client.ask(&write_of(end), &pattern(4096, 0), 0), Err(28), "ENOSPC");
        assert_eq!(client.ask(&Request::Read { offset: end, length: 1, dont_fragment: false }, &[], 0), Err(22), "EINVAL");
        client.write(end - 1, &[7]);
        assert_eq!(client.read(end - 1, 1), [7]);
    }
    let mut client = node.client(Mode { read_only: true, ..Mode::default() });
    assert_eq!(client.ask(&write_of(0), &pattern(4096, 0), 0), Err(1), "EPERM");
    assert_eq!(client.read(end_of(1 << 20), 1), [7]);
}

fn end_of(bytes: u64) -> u64 {
    bytes - 1
}

#[test]
fn bytes_that_came_with_the_handshake_are_served_first() {
    let node = Node::serving(1 << 20);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let export = wait(node.plane.attach(RESOURCE, VOLUME, false, Sharing::Shared)).unwrap();
    let mode = Mode::default();
    let mut all = request(&mode, 1, &write_of(0)).to_vec();
    all.extend_from_slice(&pattern(4096, 4));
    all.extend_from_slice(&request(&mode, 2, &Request::Flush));
    let early = all[..1000].to_vec();
    node.plane.serve(
        export,
        ClientSocket {
            socket: Socket { fd: OwnedFd::from(theirs), tls: None, early },
            mode: mode.clone(),
            name: "test".to_owned(),
            asks_again: false,
        },
    );
    ours.write_all(&all[1000..]).unwrap();
    let mut client = Client { socket: ours, mode, next: 3, inbox: Vec::new() };
    let mut cookies = [client.receive(0).0, client.receive(0).0];
    cookies.sort_unstable();
    assert_eq!(cookies, [1, 2]);
    assert_eq!(client.read(0, 4096), pattern(4096, 4));
}

#[test]
fn a_client_that_says_goodbye_is_answered_first() {
    let node = Node::serving(1 << 20);
    let mut client = node.client(Mode::default());
    let cookies: Vec<u64> = (0..20).map(|at| client.send(&write_of(at * 4096), &pattern(4096, 1))).collect();
    client.send(&Request::Disconnect, &[]);
    let mut answered: Vec<u64> = cookies.iter().map(|_| client.receive(0).0).collect();
    answered.sort_unstable();
    assert_eq!(answered, cookies);
    assert!(client.is_cut());
    until("the attachment has ended", || node.status().clients == 0);
    assert!(node.was_told(|event| matches!(event, PlaneEvent::Changed { resource } if *resource == RESOURCE)));
}

#[test]
fn a_volume_without_storage_is_refused_and_the_others_are_served() {
    let node = Node::serving(16 << 20);
    let mut settings = node.spec(RESOURCE, 16 << 20).settings;
    settings.volumes.insert(VolumeId(1), 4 << 20);
    assert!(matches!(wait(node.plane.configure(RESOURCE, settings, None)), Err(PlaneError::Storage(_))));
    let mut client = node.client(Mode::default());
    client.write(0, &pattern(4096, 1));
    client.flush();
    assert_eq!(client.read(0, 4096), pattern(4096, 1));
}

#[test]
fn a_client_can_use_what_its_volume_has_grown_by() {
    let node = Node::serving(1 << 20);
    let mut client = node.client(Mode::default());
    client.write(0, &pattern(4096, 1));
    assert_eq!(client.ask(&write_of(1 << 20), &pattern(4096, 2), 0), Err(28), "ENOSPC");
    let larger = node.spec(RESOURCE, 4 << 20);
    OpenOptions::new().write(true).open(node.data()).unwrap().set_len(4 << 20).unwrap();
    wait(node.plane.configure(RESOURCE, larger.settings, larger.storage)).unwrap();
    until("the volume has grown", || node.status().volumes[0].bytes == 4 << 20);
    // The client's session began when it was smaller.
    client.write(1 << 20, &pattern(4096, 2));
    assert_eq!(client.read((1 << 20) - 4096, 8192)[4096..], pattern(4096, 2));
    assert_eq!(client.ask(&write_of(4 << 20), &pattern(4096, 2), 0), Err(28), "ENOSPC");
}

#[test]
fn closing_is_refused_while_clients_are_there_unless_forced() {
    let node = Node::serving(1 << 20);
    let mut client = node.client(Mode::default());
    client.write(0, &pattern(4096, 1));
    assert_eq!(wait(node.plane.close(RESOURCE, false)), Err(PlaneError::InUse(1)));
    wait(node.plane.close(RESOURCE, true)).unwrap();
    assert!(client.is_cut());
    assert!(node.plane.status().is_empty());
    // The storage is unlocked: it can be opened again.
    wait(node.plane.open(node.spec(RESOURCE, 1 << 20))).unwrap();
    assert_eq!(node.client(Mode::default()).read(0, 4096), pattern(4096, 1));
    wait(node.plane.shutdown()).unwrap();
    assert_eq!(wait(node.plane.attach(RESOURCE, VOLUME, false, Sharing::Shared)).err(), Some(PlaneError::ShuttingDown));
}

#[test]
fn an_attachment_that_is_not_used_ends() {
    let node = Node::serving(1 << 20);
    let export = wait(node.plane.attach(RESOURCE, VOLUME, false, Sharing::Shared)).unwrap();
    assert_eq!(wait(node.plane.close(RESOURCE, false)), Err(PlaneError::InUse(1)));
    drop(export);
    wait(node.plane.close(RESOURCE, false)).unwrap();
}

#[derive(Debug, Clone)]
enum Do {
    Write(u32, u32),
    Zero(u32, u32, bool),
    Trim(u32, u32),
    Read(u32, u32),
}

const SMALL: u32 = 1 << 18;

fn doing() -> impl Strategy<Value = Do> {
    let range = || (0..SMALL, 1_u32..20_000).prop_map(|(offset, length)| (offset, length.min(SMALL - offset)));
    prop_oneof![
        range().prop_map(|(o, l)| Do::Write(o, l)),
        (range(), any::<bool>()).prop_map(|((o, l), hole)| Do::Zero(o, l, hole)),
        range().prop_map(|(o, l)| Do::Trim(o, l)),
        range().prop_map(|(o, l)| Do::Read(o, l)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// A volume behaves as an array of bytes, whatever is asked of it in whatever pieces.
    #[test]
    fn a_volume_is_an_array_of_bytes(doings in prop::collection::vec(doing(), 1..80)) {
        let node = Node::serving(u64::from(SMALL));
        let mut client = node.client(Mode::default());
        let mut model = vec![0_u8; SMALL as usize];
        for (turn, doing) in doings.into_iter().enumerate() {
            match doing {
                Do::Write(offset, length) => {
                    let bytes = pattern(length as usize, turn as u8);
                    client.write(offset.into(), &bytes);
                    model[offset as usize..(offset + length) as usize].copy_from_slice(&bytes);
                }
                Do::Zero(offset, length, no_hole) => {
                    let (from, count) = (u64::from(offset), u64::from(length));
                    let wanted = Request::WriteZeroes { offset: from, length: count, fua: false, no_hole, fast: false };
                    prop_assert_eq!(client.ask(&wanted, &[], 0), Ok(Vec::new()));
                    model[offset as usize..(offset + length) as usize].fill(0);
                }
                Do::Trim(offset, length) => {
                    let wanted = Request::Trim { offset: offset.into(), length: length.into(), fua: false };
                    prop_assert_eq!(client.ask(&wanted, &[], 0), Ok(Vec::new()));
                    let (first, end) = (offset.next_multiple_of(4096) as usize, ((offset + length) / 4096 * 4096) as usize);
                    if first < end {
                        model[first..end].fill(0);
                    }
                }
                Do::Read(offset, length) => {
                    let expected = &model[offset as usize..(offset + length) as usize];
                    prop_assert!(client.read(offset.into(), length) == expected);
                }
            }
        }
        prop_assert!(client.read(0, SMALL) == model);
    }
}

#[test]
fn a_header_may_come_alone_and_in_pieces() {
    let node = Node::serving(4 << 20);
    for mode in modes() {
        for length in [512, 4096, 100_000, 1 << 20] {
            let mut client = node.client(mode.clone());
            let bytes = pattern(length, 5);
            let wanted = Request::Write { offset: 3, length: u32::try_from(length).unwrap(), fua: false };
            let head = request(&client.mode, 1, &wanted);
            for piece in [&head[..10], &head[10..], &bytes[..length / 3], &bytes[length / 3..]] {
                client.socket.write_all(piece).unwrap();
                thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(client.receive(0), (1, Ok(Vec::new())));
            assert!(client.read(3, u32::try_from(length).unwrap()) == bytes, "{length} bytes");
        }
    }
}
