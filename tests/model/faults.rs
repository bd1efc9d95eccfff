//! What happens to nodes and connections, and time that passes.

use crate::cluster::{Cluster, Step, Steps};
use crate::promotion::without_reign;
use crate::rules::Mutant;
use crate::state::{Answer, BLOCKS, Node, Queue, Record, Role, State, bit};

impl Cluster {
    pub fn faults(&self, s: &State, out: &mut Steps) {
        for n in 0..self.nodes {
            self.crash(s, n, out);
            self.stop(s, n, out);
            self.grant(s, n, out);
            for peer in 0..self.nodes {
                self.close(s, n, peer, out);
            }
        }
        self.connect(s, out);
    }

    /// Power is lost: each unflushed block is kept or not, and a write that was submitted may have landed.
    fn crash(&self, s: &State, n: usize, out: &mut Steps) {
        if s.left.crashes == 0 {
            return;
        }
        let mut kept: Vec<[u8; BLOCKS]> = vec![s.nodes[n].disk];
        for block in 0..self.blocks {
            let node = &s.nodes[n];
            let mut possible = vec![node.disk[block], node.cache[block]];
            possible.extend(node.submitted[block].checked_sub(1));
            possible.sort_unstable();
            possible.dedup();
            kept = kept.iter().flat_map(|k| possible.iter().map(|&v| with(*k, block, v))).collect();
        }
        for disk in kept {
            let mut s = *s;
            s.left.crashes -= 1;
            let node = self.started(&s.nodes[n]);
            s.nodes[n] = Node { life: node.life + 1, disk, cache: disk, ..node };
            self.orphan(&mut s, n);
            (0..self.nodes).for_each(|peer| self.close_end(&mut s, n, peer));
            self.note_losses(&mut s);
            out.push((Step::Crash { node: n, kept: disk }, s));
        }
    }

    /// A secondary stops: drained, flushed, everything stored. Its next life continues this one.
    fn stop(&self, s: &State, n: usize, out: &mut Steps) {
        let node = &s.nodes[n];
        if s.left.stops == 0 || node.role != Role::Secondary || node.submitted != [0; BLOCKS] {
            return;
        }
        let mut s = *s;
        s.left.stops -= 1;
        s.nodes[n] = self.started(&Node { disk: node.cache, stored: node.dirty, ..*node });
        self.orphan(&mut s, n);
        (0..self.nodes).for_each(|peer| self.close_end(&mut s, n, peer));
        out.push((Step::Stop { node: n }, s));
    }

    /// The request of a node that is gone may be granted; an answer finds nobody.
    fn orphan(&self, s: &mut State, n: usize) {
        if s.answers[n] != Answer::Open {
            s.answers[n] = Answer::None;
            s.asked[n] = Record::default();
        }
    }

    /// A node in its next life: hot extents are what it remembers of the last one (rule M5).
    ///
    /// It starts at once. One that stays away for a while is one that does not connect.
    fn started(&self, node: &Node) -> Node {
        let memory = if self.breaks(Mutant::NewLifeReportsNothing) { 0 } else { node.hot };
        Node {
            submitted: [0; BLOCKS],
            submitter: 0,
            memory,
            dirty: node.stored,
            follows: 0,
            member: false,
            forgetful: self.breaks(Mutant::RestartForgetsLease),
            ..without_reign(node)
        }
    }

    /// An end of a connection closes: by itself, or because the other one has.
    fn close(&self, s: &State, n: usize, peer: usize, out: &mut Steps) {
        if !s.open[n][peer] {
            return;
        }
        let mut after = *s;
        self.close_end(&mut after, n, peer);
        self.session_lost(&mut after, n, peer);
        if !s.open[peer][n] {
            out.push((Step::SeeBreak { node: n, peer }, after));
        } else if s.left.breaks > 0 {
            after.left.breaks -= 1;
            out.push((Step::Break { node: n, peer }, after));
        }
    }

    /// What is on its way to the end that closes is lost; what it has sent may still arrive, unless the other end is closed.
    fn close_end(&self, s: &mut State, n: usize, peer: usize) {
        s.open[n][peer] = false;
        s.queues[peer][n] = Queue::default();
        if !s.open[peer][n] {
            s.queues[n][peer] = Queue::default();
        }
    }

    fn connect(&self, s: &State, out: &mut Steps) {
        for a in 0..self.nodes {
            for b in 0..a {
                if self.may_connect(s, a, b) && !s.open[a][b] && !s.open[b][a] {
                    let mut s = *s;
                    s.open[a][b] = true;
                    s.open[b][a] = true;
                    out.push((Step::Connect { a, b }, s));
                }
            }
        }
    }

    /// A connection between two secondaries serves nothing.
    fn may_connect(&self, s: &State, a: usize, b: usize) -> bool {
        s.nodes[a].role.max(s.nodes[b].role) > Role::Secondary
    }

    /// With rule F1 broken: a lease for an older reign, by a replica that has moved on.
    fn grant(&self, s: &State, n: usize, out: &mut Steps) {
        for p in (0..self.nodes).filter(|_| self.breaks(Mutant::GrantAnybody)) {
            let reign = s.nodes[p].record.reign;
            if p != n && s.nodes[p].role == Role::Serving && s.connected(n, p) && reign < s.nodes[n].seen {
                let mut s = *s;
                s.nodes[n].granted |= bit(usize::from(reign));
                out.push((Step::Grant { from: n, to: p }, s));
            }
        }
    }
}

fn with(mut values: [u8; BLOCKS], block: usize, value: u8) -> [u8; BLOCKS] {
    values[block] = value;
    values
}
