#!/usr/bin/python3
"""The NBD suite against blkrep: every case of run.py on a replicated volume, over the unix socket and over TCP, and once more with
a replica missing."""

import subprocess
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "lib")]

from cluster import Cluster
from suite import check, run_stories, story

CASES = Path(__file__).resolve().parent / "run.py"


@story(minutes=5)
def over_the_unix_socket(scene):
    """Two replicas; afterwards they are the same bytes."""
    cluster = two_nodes(scene)
    cases(cluster[1], cluster[1].uri("disk"))
    cluster.wait_up_to_date("disk", 2)
    cluster.check_identical("disk")


@story(minutes=5)
def over_tcp(scene):
    """The same, by a client in the node's network namespace."""
    cluster = two_nodes(scene)
    # TCP offers TLS, so that the case of a server without any does not apply.
    cases(cluster[2], cluster[2].tcp_uri("disk"), "--skip", "starttls_without_tls_is_refused")
    cluster.wait_up_to_date("disk", 2)
    cluster.check_identical("disk")


@story(minutes=5)
def with_a_replica_missing(scene):
    """The other node is dead: clients notice nothing; when it is back, both are the same bytes."""
    cluster = two_nodes(scene)
    cluster[2].kill()
    cases(cluster[1], cluster[1].uri("disk"))
    cluster[2].start()
    cluster.wait_up_to_date("disk", 2)
    cluster.check_identical("disk")


def two_nodes(scene):
    cluster = scene.closes(Cluster(scene, 2)).form()
    cluster.add_volume("disk", "64MiB", 2)
    return cluster


def cases(node, uri, *options):
    command = ["/usr/bin/python3", "-u", CASES, "--uri", uri, *options]
    done = subprocess.run(command, preexec_fn=node.enter, stdin=subprocess.DEVNULL)
    check(done.returncode == 0, "every case of tests/nbd/run.py", f"exit status {done.returncode}")
    check(node.running, "the daemon lives")


if __name__ == "__main__":
    sys.exit(run_stories())
