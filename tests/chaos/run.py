#!/usr/bin/python3
"""The chaos suite: real daemons, clients that know what they were promised, and faults.

First its stories: disks that fail, programs across a fail-over. Then rounds, each with faults drawn from a seed: those seeds that once
failed, and as many others as there is time for. The schedule is the same for a seed, always; what the machine makes of it is not.

    tests/chaos/run.py --minutes 60 --from 1000    an hour of rounds, from this seed
    tests/chaos/run.py --seed 17                   this schedule again
    tests/chaos/run.py power                       the stories that have "power" in their names
"""

import argparse
import gc
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "lib")]

# Importing a module registers its stories, in this order.
import stories_commits
import stories_disks
import stories_programs
import suite
from round import play
from schedule import draw

# Seeds that broke a promise once.
KEPT = [101, 102, 105]
# From here on stories try all that they can.
LONG_MINUTES = 15
# The most that a round may take.
ROUND_MINUTES = 5
# At the end of the time no round is begun that would probably not be finished.
ROUND_SECONDS = 40


def main():
    arguments = parse_arguments()
    if arguments.list:
        for seed in range(arguments.first, arguments.first + 10):
            schedule = draw(seed)
            print(schedule, *schedule.faults, sep="\n  ")
        return 0
    suite.prepare()
    suite.long = arguments.minutes >= LONG_MINUTES
    deadline = time.monotonic() + arguments.minutes * 60
    good, bad = 0, []
    for name, story, minutes in everything(arguments, deadline):
        if suite.run(story, minutes):
            good += 1
        else:
            bad.append(name)
        # What a round remembers is large, and in cycles.
        gc.collect()
    if bad:
        print(f"promises were broken; once more: tests/chaos/run.py {' '.join(bad)}")
    print(f"{good} passed, {len(bad)} failed")
    return 1 if bad or not good else 0


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("stories", nargs="*", help="names of stories, or parts of names, and no rounds")
    parser.add_argument("--minutes", type=float, default=4.0, help="how long the suite may take, stories and rounds together")
    parser.add_argument("--seed", type=int, action="append", default=[], help="only the round of this seed")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first seed after those that are kept")
    parser.add_argument("--list", action="store_true", help="print the schedules of ten seeds")
    return parser.parse_args()


def everything(arguments, deadline):
    """What is to be played: (how to ask for it again, the story, its minutes)."""
    if not arguments.seed:
        for story, minutes in suite.chosen(arguments.stories):
            yield story.__name__, story, minutes
    if arguments.stories:
        return
    for seed in arguments.seed or seeds(arguments.first):
        if not arguments.seed and time.monotonic() + ROUND_SECONDS > deadline:
            return
        yield f"--seed {seed}", round_of(seed), ROUND_MINUTES


def seeds(first):
    yield from KEPT
    while True:
        yield first
        first += 1


def round_of(seed):
    def one_round(scene):
        play(scene, draw(seed))

    one_round.__name__ = f"chaos_seed_{seed}"
    return one_round


if __name__ == "__main__":
    sys.exit(main())
