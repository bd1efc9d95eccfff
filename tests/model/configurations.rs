//! The clusters that are searched, and what may happen to each.

use crate::alone::{self, Alone};
use crate::cluster::Cluster;
use crate::rules::{Case, Place};
use crate::search::{Outcome, search};
use crate::state::Budget;

#[derive(Clone, Copy, Debug)]
pub enum Configuration {
    Cluster(Cluster),
    Alone(Alone),
}

impl Configuration {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cluster(cluster) => cluster.name,
            Self::Alone(alone) => alone.name,
        }
    }

    pub fn search(&self) -> Outcome {
        match self {
            Self::Cluster(cluster) => search(cluster, STATES_MAX),
            Self::Alone(alone) => search(alone, STATES_MAX),
        }
    }
}

/// The configuration that a mutant is searched for in.
pub fn of(case: &Case) -> Configuration {
    let cluster =
        |cluster: Cluster| Configuration::Cluster(Cluster { broken: Some(case.mutant), strict: case.strict, ..cluster });
    match case.place {
        Place::Two => cluster(TWO),
        Place::TwoQuick => cluster(TWO_QUICK),
        Place::TwoOneAway => cluster(TWO_ONE_AWAY),
        Place::TwoStops => cluster(TWO_STOPS),
        Place::ThreeOneAway => cluster(THREE_ONE_AWAY),
        Place::Alone => Configuration::Alone(Alone { broken: Some(case.mutant), ..TWO_ALONE }),
    }
}

/// Those with the most states first: two are searched at a time.
pub const ALL: &[Configuration] = &[
    Configuration::Cluster(TWO),
    Configuration::Cluster(THREE_ONE_AWAY),
    Configuration::Cluster(TWO_ONE_AWAY),
    Configuration::Cluster(THREE),
    Configuration::Cluster(TWO_BLOCKS),
    Configuration::Cluster(TWO_QUICK),
    Configuration::Cluster(TWO_STOPS),
    Configuration::Alone(TWO_ALONE),
];

/// More than any of them has. Twenty million take half a GiB, and a layer of them as much.
const STATES_MAX: usize = 30_000_000;

const TWO: Cluster = Cluster {
    name: "two",
    nodes: 2,
    blocks: 1,
    away: false,
    slow: true,
    budget: Budget { writes: 2, crashes: 2, breaks: 1, stops: 0, reigns: 2 },
    strict: true,
    broken: None,
};

/// Answers come at once; so there may be more reigns.
const TWO_QUICK: Cluster =
    Cluster { name: "two, quick", slow: false, budget: Budget { writes: 2, crashes: 2, breaks: 1, stops: 0, reigns: 3 }, ..TWO };

const TWO_ONE_AWAY: Cluster = Cluster {
    name: "two, one away",
    away: true,
    budget: Budget { writes: 1, crashes: 2, breaks: 1, stops: 0, reigns: 2 },
    ..TWO
};

const TWO_STOPS: Cluster =
    Cluster { name: "two, a clean stop", budget: Budget { writes: 1, crashes: 1, breaks: 1, stops: 1, reigns: 2 }, ..TWO };

const TWO_BLOCKS: Cluster = Cluster {
    name: "two, two blocks",
    blocks: 2,
    slow: false,
    budget: Budget { writes: 2, crashes: 1, breaks: 1, stops: 0, reigns: 2 },
    ..TWO
};

const THREE: Cluster = Cluster {
    name: "three",
    nodes: 3,
    slow: false,
    budget: Budget { writes: 2, crashes: 1, breaks: 0, stops: 0, reigns: 2 },
    ..TWO
};

const THREE_ONE_AWAY: Cluster = Cluster {
    name: "three, one away",
    away: true,
    budget: Budget { writes: 1, crashes: 1, breaks: 0, stops: 0, reigns: 2 },
    ..THREE
};

const TWO_ALONE: Alone = Alone {
    name: "two that decide alone",
    budget: alone::Budget { writes: 2, crashes: 1, breaks: 2, stops: 1, records: 6 },
    broken: None,
};
