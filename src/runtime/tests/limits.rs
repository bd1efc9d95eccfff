//! Clients that misbehave harm nobody.

use std::net::Shutdown;

use super::*;

#[test]
fn a_client_that_does_not_read_is_paused_and_others_are_served() {
    let node = Node::serving(64 << 20);
    let mut deaf = node.client(Mode::default());
    deaf.socket.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let asking = Instant::now();
    // It asks for a megabyte each time, until its requests are not taken any more.
    let read = Request::Read { offset: 0, length: 1 << 20, dont_fragment: false };
    while asking.elapsed() < Duration::from_secs(20) && deaf.socket.write_all(&request(&deaf.mode, sent, &read)).is_ok() {
        sent += 1;
    }
    assert!(sent > 64, "it was cut rather than paused, or its socket takes nothing: {sent}");
    let mut other = node.client(Mode::default());
    let bytes = vec![3; 1 << 20];
    other.write(0, &bytes);
    assert!(other.read(0, 1 << 20) == bytes);
    // It reads after all, and gets everything that was taken.
    deaf.socket.set_nonblocking(false).unwrap();
    for at in 0..sent {
        assert_eq!(deaf.receive(1 << 20).1.unwrap().len(), 1 << 20, "reply {at} of {sent}");
    }
}

#[test]
fn a_client_that_vanishes_in_the_middle_of_a_payload_leaves_nothing_behind() {
    let node = Node::serving(16 << 20);
    for sent in [0, 5, 28, 29, 5000, 100_000, 1_100_000] {
        let mut client = node.client(Mode::default());
        let mut bytes = request(&client.mode, 1, &Request::Write { offset: 0, length: 8 << 20, fua: false }).to_vec();
        bytes.resize(28 + (8 << 20), 9);
        client.socket.write_all(&bytes[..sent]).unwrap();
        client.socket.shutdown(Shutdown::Both).unwrap();
    }
    until("all attachments have ended", || wait(node.plane.close(RESOURCE, false)) == Ok(()));
}

#[test]
fn a_client_that_is_out_of_step_is_cut() {
    let node = Node::serving(1 << 20);
    let mut client = node.client(Mode::default());
    client.socket.write_all(&[0x99; 28]).unwrap();
    assert!(client.is_cut());
}

#[test]
fn more_clients_than_memory_are_all_served() {
    let node = Node::start(0, PlaneOptions { shards: 1, memory: 0 });
    let spec = node.spec(RESOURCE, 64 << 20);
    node.create(&spec);
    wait(node.plane.open(spec)).unwrap();
    let mut clients: Vec<Client> = (0..20).map(|_| node.client(Mode::default())).collect();
    let bytes: Vec<u8> = (0..4_u32 << 20).map(|at| (at % 253) as u8).collect();
    thread::scope(|scope| {
        for (at, client) in clients.iter_mut().enumerate() {
            let (bytes, offset) = (&bytes, (at as u64 % 8) * (8 << 20) + 5);
            scope.spawn(move || {
                for _ in 0..3 {
                    client.write(offset, bytes);
                    assert!(client.read(offset, 4 << 20) == *bytes);
                }
            });
        }
    });
}

#[test]
fn a_new_client_is_admitted_after_what_a_client_that_has_gone_had_sent() {
    let node = Node::serving(64 << 20);
    let mut old = node.client(Mode::default());
    // It does not read, so that it is paused with requests in its socket that nobody has looked at.
    old.socket.set_nonblocking(true).unwrap();
    let read = Request::Read { offset: 0, length: 4 << 20, dont_fragment: false };
    let taken = (0..100_000).take_while(|&n| old.socket.write_all(&request(&old.mode, n, &read)).is_ok()).count();
    assert!(taken > 10);
    drop(old);
    let _new = node.client(Mode::default());
    until("only the new one is attached", || node.status().clients == 1);
}
