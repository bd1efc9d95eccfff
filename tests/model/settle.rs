//! After every step: what follows of itself, and what makes no difference any more. Fewer states say the same.

use crate::cluster::Cluster;
use crate::rules::Mutant;
use crate::state::{Answer, Purpose, Queue, Role, State, bit};

impl Cluster {
    pub fn settle(&self, s: &mut State) {
        self.drop_refused(s);
        self.close_idle(s);
        self.open_sessions(s);
        self.forget_leases(s);
        self.refuse_late(s);
        self.count_from_one(s);
    }

    /// Messages that nobody will do anything about: of a reign that the replica has left (rule F1), to a primary that is none any more.
    fn drop_refused(&self, s: &mut State) {
        for from in 0..self.nodes {
            for to in 0..self.nodes {
                if s.queues[from][to].first().is_none() {
                    continue;
                }
                let receiver = s.nodes[to];
                let obeys = self.breaks(Mutant::ObeyAnybody);
                s.queues[from][to].retain(|m| {
                    if m.kind.is_answer() {
                        receiver.role > Role::Secondary && receiver.record.reign == m.reign
                    } else {
                        m.reign >= receiver.seen || obeys
                    }
                });
            }
        }
    }

    /// Two secondaries with nothing to say to each other are as good as not connected: they may connect at any time.
    fn close_idle(&self, s: &mut State) {
        for a in 0..self.nodes {
            for b in 0..a {
                let roles = s.nodes[a].role.max(s.nodes[b].role);
                let silent = s.queues[a][b] == Queue::default() && s.queues[b][a] == Queue::default();
                if roles == Role::Secondary && silent && (s.open[a][b] || s.open[b][a]) {
                    for (n, peer) in [(a, b), (b, a)] {
                        s.open[n][peer] = false;
                        self.session_lost(s, n, peer);
                    }
                }
            }
        }
    }

    /// Only who is primary can believe in a lease.
    fn forget_leases(&self, s: &mut State) {
        let believers = s.nodes[..self.nodes].iter().filter(|n| n.role > Role::Secondary);
        let reigns = believers.fold(0, |all, n| all | bit(usize::from(n.record.reign)));
        s.nodes.iter_mut().for_each(|n| n.granted &= reigns);
    }

    /// A request that names a record that was replaced is refused whenever it arrives.
    fn refuse_late(&self, s: &mut State) {
        for n in 0..self.nodes {
            if s.answers[n] == Answer::Open && s.asked[n].number != s.register.number {
                s.answers[n] = Answer::Refused;
            }
            if s.answers[n] != Answer::Open && s.nodes[n].purpose == Purpose::None {
                self.forget_asked(s, n);
            }
        }
    }

    /// Of the numbers of records only the order counts.
    fn count_from_one(&self, s: &mut State) {
        let of_nodes = (0..self.nodes).map(|n| match (s.nodes[n].record.number, s.asked[n].number) {
            (0, other) | (other, 0) => other,
            (a, b) => a.min(b),
        });
        let less = of_nodes.filter(|n| *n > 0).fold(s.register.number, u8::min) - 1;
        if less > 0 {
            s.register.number -= less;
            for n in 0..self.nodes {
                s.nodes[n].record.number = s.nodes[n].record.number.saturating_sub(less);
                s.asked[n].number = s.asked[n].number.saturating_sub(less);
            }
        }
    }
}
