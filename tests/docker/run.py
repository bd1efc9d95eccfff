#!/usr/bin/python3
"""The Docker suite: two real engines, each on a node of a cluster, with the plugin that the nodes' daemons serve.

`tests/docker/run.py --list` tells the stories; a part of a name runs those that have it.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "lib")]

import stories
from engine import missing
from suite import run_stories

if __name__ == "__main__":
    lacks = missing()
    if lacks:
        print(f"this machine lacks {', '.join(lacks)}: Docker with blkrep's volumes cannot be tested on it")
        sys.exit(1)
    sys.exit(run_stories())
