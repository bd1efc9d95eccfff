//! Whole groups in one process: real Raft and real redb files, on a switchboard instead of a network.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use tempfile::TempDir;

use super::*;
use crate::cluster::{Certificate, DeployCount, NodeKind, Placement, PoolReport, Ports, Refusal, Seed, TokenHash};
use crate::units::{ClusterId, Name, PoolKind, RecordId};

const PATIENCE: Duration = Duration::from_secs(20);

/// Carries requests between the nodes of a test, where the line is not cut.
#[derive(Default)]
struct Switchboard {
    nodes: Mutex<HashMap<NodeId, Consensus>>,
    cut: Mutex<HashSet<NodeId>>,
}

struct Line {
    from: NodeId,
    board: Arc<Switchboard>,
}

impl Transport for Line {
    fn call(&self, to: NodeId, _: SocketAddr, request: Vec<u8>, patience: Duration) -> Carried<'_> {
        Box::pin(async move {
            let cut = |node| lock(&self.board.cut).contains(&node);
            let unreachable = || CarryError::Unreachable(to, "the line is cut".into());
            if cut(self.from) || cut(to) {
                return Err(unreachable());
            }
            let peer = lock(&self.board.nodes).get(&to).cloned().ok_or_else(unreachable)?;
            let answer = timeout(patience, peer.answer(self.from, &request)).await;
            let answer = answer.map_err(|_| CarryError::NoAnswer(to, "too late".into()))?;
            answer.map_err(|error| CarryError::NoAnswer(to, error))
        })
    }
}

/// A group under test.
struct Group {
    board: Arc<Switchboard>,
    dir: TempDir,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn address(node: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, u8::try_from(node + 1).unwrap())), 6999)
}

fn certificate() -> Certificate {
    Certificate { serial: "1".into(), fingerprint: "1".into() }
}

fn announce(node: u32) -> Command {
    let gib = 1 << 30;
    let pool = PoolReport { name: "p".into(), kind: PoolKind::File, total: 100 * gib, free: 50 * gib, zeroed: true, fill: None };
    Command::Announce { node: NodeId(node), version: "1".into(), pool: Some(pool), pools: BTreeMap::new() }
}

impl Group {
    /// A group of `count` members, each with the vote it should have.
    async fn of(count: u32) -> Self {
        let group = Self { board: Arc::default(), dir: tempfile::tempdir().unwrap() };
        let first = Command::Init {
            cluster: ClusterId(7),
            name: name("n0"),
            address: address(0).ip(),
            ports: Ports::default(),
            kind: NodeKind::Storage,
            certificate: certificate(),
        };
        let epoch = Epoch { number: 1, id: 7 };
        let founder = Consensus::found(group.setup(0), epoch, address(0), first).await.unwrap();
        group.plug(0, founder.clone());
        founder.propose(announce(0), PATIENCE).await.unwrap();
        for node in 1..count {
            group.join(node).await;
        }
        let voters = if count < 3 { 1 } else { 3 };
        group.until(0, "everyone votes who should", |model| model.voters.len() == voters).await;
        group
    }

    async fn join(&self, node: u32) {
        let leader = self.node(0);
        let (node_name, token) = (name(&format!("n{node}")), TokenHash::of(b"t"));
        let (kind, address) = (NodeKind::Storage, address(node));
        let (ports, certificate) = (Ports::default(), certificate());
        let invite = Command::InviteNode { name: node_name.clone(), address: address.ip(), ports, kind, token, expires: 10 };
        leader.propose(invite, PATIENCE).await.unwrap();
        let redeem = Command::RedeemInvitation { name: node_name, token, address: address.ip(), ports, certificate, now: 1 };
        leader.propose(redeem, PATIENCE).await.unwrap();
        Consensus::prepare(&self.setup(node).file, leader.epoch()).unwrap();
        self.open(node).await;
        self.node(node).propose(announce(node), PATIENCE).await.unwrap();
    }

    async fn open(&self, node: u32) {
        let opened = Consensus::open(self.setup(node), address(node)).await.unwrap();
        self.plug(node, opened);
    }

    fn setup(&self, node: u32) -> Setup {
        let me = NodeId(node);
        let transport = Arc::new(Line { from: me, board: self.board.clone() });
        Setup { me, file: self.dir.path().join(format!("{node}.redb")), transport }
    }

    fn plug(&self, node: u32, consensus: Consensus) {
        lock(&self.board.nodes).insert(NodeId(node), consensus);
    }

    fn node(&self, node: u32) -> Consensus {
        lock(&self.board.nodes)[&NodeId(node)].clone()
    }

    /// Ends a node as a crash does: nobody is told.
    async fn kill(&self, node: u32) {
        let gone = lock(&self.board.nodes).remove(&NodeId(node)).unwrap();
        gone.close().await;
    }

    fn cut(&self, node: u32) {
        lock(&self.board.cut).insert(NodeId(node));
    }

    fn mend(&self, node: u32) {
        lock(&self.board.cut).remove(&NodeId(node));
    }

    async fn leader_among(&self, nodes: &[u32]) -> u32 {
        let found = || nodes.iter().copied().find(|&n| self.node(n).is_leader());
        self.eventually("one leads", || found().is_some()).await;
        found().unwrap()
    }

    async fn until(&self, node: u32, what: &str, reached: impl Fn(&Cluster) -> bool) {
        self.eventually(what, || reached(&self.node(node).model())).await;
    }

    async fn eventually(&self, what: &str, reached: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !reached() {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn create(resource: &str) -> Command {
    let (options, properties) = (BTreeMap::new(), BTreeMap::new());
    Command::CreateResource { name: name(resource), options, properties, now: 1 }
}

fn deployed(resource: &str) -> Command {
    Command::All(vec![
        create(resource),
        Command::AddVolume { resource: name(resource), volume: None, bytes: 1 << 20, pool: None },
        Command::Deploy {
            resource: name(resource),
            placement: Placement::Count(DeployCount::Total(2)),
            avoid: BTreeSet::new(),
            keep: BTreeSet::new(),
            seed: Seed(1),
            pool: None,
        },
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_keeps_what_it_was_told_across_a_restart() {
    let group = Group::of(1).await;
    group.node(0).propose(create("web"), PATIENCE).await.unwrap();
    let refused = group.node(0).propose(create("web"), PATIENCE).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Refused(Refusal::ResourceExists(_))), "{refused}");
    group.kill(0).await;
    group.open(0).await;
    let model = group.node(0).read(PATIENCE).await.unwrap();
    assert!(model.resource_named(&name("web")).is_ok());
    assert_eq!(model.nodes[&NodeId(0)].name, name("n0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_brings_back_what_the_log_has_forgotten() {
    let group = Group::of(1).await;
    group.node(0).propose(create("web"), PATIENCE).await.unwrap();
    let raft = group.node(0).life().0;
    raft.trigger().snapshot().await.unwrap();
    group.eventually("there is a snapshot", || raft.metrics().borrow().snapshot.is_some()).await;
    let last = raft.metrics().borrow().last_applied.unwrap().index;
    raft.trigger().purge_log(last).await.unwrap();
    group.eventually("the log is empty", || raft.metrics().borrow().purged.is_some_and(|log| log.index == last)).await;
    drop(raft);
    group.kill(0).await;
    group.open(0).await;
    assert!(group.node(0).model().resource_named(&name("web")).is_ok());
    // A node that joins now can only learn of it from the snapshot.
    group.node(0).read(PATIENCE).await.unwrap();
    group.join(1).await;
    group.until(1, "the newcomer knows of web", |model| model.resource_named(&name("web")).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_one_votes_and_the_other_can_do_all_the_same() {
    let group = Group::of(2).await;
    group.node(1).propose(create("web"), PATIENCE).await.unwrap();
    let model = group.node(1).read(PATIENCE).await.unwrap();
    assert!(model.resource_named(&name("web")).is_ok(), "a linearizable read on a follower sees it");
    assert_eq!(model.voters, BTreeSet::from([NodeId(0)]));
    group.kill(1).await;
    group.node(0).propose(create("db"), PATIENCE).await.expect("losing the learner blocks nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_voter_nothing_is_changed_and_the_model_can_still_be_read() {
    let group = Group::of(2).await;
    group.node(0).propose(create("web"), PATIENCE).await.unwrap();
    group.until(1, "the learner knows of web", |model| model.resource_named(&name("web")).is_ok()).await;
    assert_eq!(group.node(1).leader(), Some(NodeId(0)));
    group.kill(0).await;
    group.eventually("nobody leads, it says", || group.node(1).leader().is_none()).await;
    let refused = group.node(1).propose(create("db"), Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(refused, ProposeError::NoLeader(_)), "{refused}");
    assert!(group.node(1).model().resource_named(&name("web")).is_ok());
    group.open(0).await;
    group.node(1).propose(create("db"), PATIENCE).await.expect("it is back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_starts_alone_knows_what_was_committed_and_no_more() {
    let group = Group::of(2).await;
    group.node(0).propose(create("web"), PATIENCE).await.unwrap();
    group.until(1, "the learner knows of web", |model| model.resource_named(&name("web")).is_ok()).await;
    group.kill(0).await;
    group.kill(1).await;
    group.open(1).await;
    group.until(1, "it knows of web, alone", |model| model.resource_named(&name("web")).is_ok()).await;
    assert!(group.node(1).read(Duration::from_millis(300)).await.is_err(), "but cannot be sure of it");
    group.kill(1).await;
    let note = group.setup(1).file.with_extension("committed");
    for damaged in [&b""[..], b"short", &[0xee; 512]] {
        std::fs::write(&note, damaged).unwrap();
        group.open(1).await;
        group.kill(1).await;
    }
    group.open(0).await;
    group.open(1).await;
    group.until(1, "the voter told it again", |model| model.resource_named(&name("web")).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_of_the_only_voter_hands_the_vote_over() {
    let group = Group::of(2).await;
    assert_eq!(group.node(0).hand_over(Duration::from_secs(5)).await, Some(NodeId(1)));
    group.kill(0).await;
    group.node(1).propose(create("web"), PATIENCE).await.expect("the heir leads");
    group.open(0).await;
    group.until(0, "the former voter follows", |model| model.resource_named(&name("web")).is_ok()).await;
    assert_eq!(group.node(0).model().voters, BTreeSet::from([NodeId(1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_with_nobody_there_to_take_the_vote_keeps_it() {
    let group = Group::of(2).await;
    group.kill(1).await;
    assert_eq!(group.node(0).hand_over(Duration::from_millis(500)).await, None);
    group.node(0).propose(create("web"), PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_survive_the_loss_of_any_one() {
    let group = Group::of(3).await;
    let leader = group.leader_among(&[0, 1, 2]).await;
    group.kill(leader).await;
    let rest: Vec<u32> = (0..3).filter(|&n| n != leader).collect();
    group.node(rest[0]).propose(create("web"), PATIENCE).await.unwrap();
    group.open(leader).await;
    group.until(leader, "the old leader follows", |model| model.resource_named(&name("web")).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_changes_nothing_and_reads_nothing_linearizably() {
    let group = Group::of(3).await;
    let leader = group.leader_among(&[0, 1, 2]).await;
    group.cut(leader);
    let alone = group.node(leader);
    group.eventually("it notices that it is alone", || alone.leader().is_none()).await;
    let refused = alone.propose(create("minority"), Duration::from_millis(500)).await.unwrap_err();
    assert!(matches!(refused, ProposeError::NoLeader(_)), "{refused}");
    assert!(alone.read(Duration::from_millis(500)).await.is_err());
    let rest: Vec<u32> = (0..3).filter(|&n| n != leader).collect();
    group.node(rest[1]).propose(create("majority"), PATIENCE).await.unwrap();
    group.mend(leader);
    group.until(leader, "it follows the majority", |model| model.resource_named(&name("majority")).is_ok()).await;
    assert!(alone.model().resource_named(&name("minority")).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_swap_the_same_record_one_wins_each_time() {
    let group = Group::of(3).await;
    group.node(0).propose(deployed("web"), PATIENCE).await.unwrap();
    let mut granted: Vec<(RecordId, RecordId)> = Vec::new();
    for round in 0..5u64 {
        let model = group.node(0).read(PATIENCE).await.unwrap();
        let resource = model.resource_named(&name("web")).unwrap();
        let (id, present) = (resource.id, resource.record.clone().unwrap());
        let contest = (0..6u64).map(|rival| {
            let consensus = group.node(u32::try_from(rival % 3).unwrap());
            let record = present.next(RecordId(1000 + round * 10 + rival));
            let expect = present.id;
            tokio::spawn(async move {
                let won = record.id;
                let outcome = consensus.propose(Command::ChangeRecord { resource: id, expect, record }, PATIENCE).await;
                (won, outcome)
            })
        });
        let mut winners = Vec::new();
        for rival in contest.collect::<Vec<_>>() {
            match rival.await.unwrap() {
                (won, Ok(_)) => winners.push(won),
                (_, Err(ProposeError::Refused(Refusal::RecordIs(_)))) => {}
                (_, Err(other)) => panic!("{other}"),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}");
        granted.push((present.id, winners[0]));
    }
    for pair in granted.windows(2) {
        assert_eq!(pair[0].1, pair[1].0, "each winner is what the next round found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_survivor_recovers_and_the_others_follow_it_when_they_return() {
    let group = Group::of(3).await;
    group.node(0).propose(create("web"), PATIENCE).await.unwrap();
    group.until(2, "node 2 knows of web", |model| model.resource_named(&name("web")).is_ok()).await;
    for node in 0..3 {
        group.kill(node).await;
    }
    let model = Consensus::recover(&group.setup(2).file, 99).unwrap();
    assert!(model.resource_named(&name("web")).is_ok());
    group.open(2).await;
    group.node(2).propose(create("after"), PATIENCE).await.expect("it decides alone");
    assert_eq!(group.node(2).epoch(), Epoch { number: 2, id: 99 });
    group.open(0).await;
    group.open(1).await;
    for node in [0, 1] {
        group.until(node, "it follows", |model| model.resource_named(&name("after")).is_ok()).await;
        assert_eq!(group.node(node).epoch().number, 2);
    }
    group.until(2, "all vote again", |model| model.voters.len() == 3).await;
}
