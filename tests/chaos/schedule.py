"""What goes wrong in a round, and when: drawn from a seed, the same for the same seed, whatever the machine does meanwhile."""

import random
from dataclasses import dataclass, field

# What may happen, and how often beside the others. `seconds` is how long it lasts: from, to.
FAULTS = {
    "kill": (6, (0.2, 4)),
    "kill-all": (1, (0.2, 2)),
    "restart": (2, (0.1, 2)),
    "rolling-restart": (1, (0, 0)),
    "move": (3, (0, 0)),
    "burst": (2, (1, 3)),
    "freeze": (3, (3, 3)),
    "cut": (4, (0.5, 6)),
    "cut-one-way": (3, (0.5, 6)),
    "slow": (2, (1, 5)),
    "reset": (3, (0, 0)),
}
# Faults in which a node may be given up although it lives. Where each of two nodes decides alone, they may split the brain.
SPLITTING = {"freeze", "cut", "cut-one-way", "slow", "reset"}
# On disks that lose with the power what was not synced.
POWER = {
    "power": (5, (0.2, 2)),
    "power-one": (5, (0.2, 3)),
}
# Every so many seeds somebody is silent for longer than any time-out; short runs do not get there.
LONG_FREEZE = 25
LONG_SECONDS = 80
# Whom it happens to, as it turns out at the moment.
WHO = ["primary", "primary", "secondary", "target", "leader", "any"]


@dataclass
class Fault:
    """From `at` to `until`, seconds since the load began."""

    kind: str
    who: str
    at: float
    until: float
    number: int

    def __str__(self):
        lasting = f" for {self.until - self.at:.1f} s" if self.until > self.at else ""
        return f"{self.at:5.1f} s  {self.kind} {self.who}{lasting}"


@dataclass
class Schedule:
    seed: int
    nodes: int
    replicas: int
    quorum: str
    pool: str
    connections: int
    # How long the client waits for an answer before it goes to another node.
    patience: float
    faults: list = field(default_factory=list)

    @property
    def may_split(self):
        """Whether the rules allow a split brain to be found in the end."""
        return self.quorum == "off" and any(fault.kind in SPLITTING for fault in self.faults)

    def __str__(self):
        where = f"{self.nodes} nodes, {self.replicas} replicas, quorum {self.quorum}, {self.pool} pools"
        return f"seed {self.seed}: {where}, {self.connections} connections"


def draw(seed):
    """The schedule of a seed."""
    dice = random.Random(seed)
    alone = dice.random() < 0.35
    nodes = 2 if alone else 3
    schedule = Schedule(
        seed=seed,
        nodes=nodes,
        replicas=nodes if alone or dice.random() < 0.8 else 2,
        quorum="off" if alone else "majority",
        pool=dice.choices(["file", "lvm", "faulty"], [6, 1, 3])[0],
        connections=dice.choice([1, 1, 2]),
        patience=dice.uniform(3, 8),
    )
    faults = FAULTS | POWER if schedule.pool == "faulty" else FAULTS
    # Half of the rounds of two nodes have none that may split the brain: there the rules are as strict as with a majority.
    strict = alone and dice.random() < 0.6
    kinds = {kind: weight for kind, (weight, _) in faults.items() if not (strict and kind in SPLITTING)}
    # A few rounds are of one or two kinds alone, over and over: swarms find what a mixture hides.
    if dice.random() < 0.4:
        chosen = dice.sample(sorted(kinds), 3)
        kinds = {kind: kinds[kind] for kind in chosen}
    at = 1.0
    for number in range(dice.randint(4, 9)):
        at += dice.choice([dice.uniform(0, 0.3), dice.uniform(0.5, 4)])
        kind = dice.choices(list(kinds), list(kinds.values()))[0]
        lasting = dice.uniform(*faults[kind][1])
        schedule.faults.append(Fault(kind, dice.choice(WHO), at, at + lasting, number))
    if seed % LONG_FREEZE == 0 and not strict:
        schedule.faults.append(Fault("freeze", "primary", at + 1, at + 1 + LONG_SECONDS, len(schedule.faults)))
    return schedule
