#!/usr/bin/python3
"""The cluster suite: blkrep as its users meet it, with real daemons, real clients and real kills.

`tests/cluster/run.py --list` tells the stories; a part of a name runs those that have it.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "lib")]

# Importing a module registers its stories, in this order.
import stories_use
import stories_shared
import stories_refusals
import stories_attach
import stories_pools
import stories_space
import stories_adopt
import stories_snapshots
import stories_holds
import stories_failures
import stories_metadata
import stories_verify
import stories_replace
import stories_split_brain
from suite import run_stories

if __name__ == "__main__":
    sys.exit(run_stories())
