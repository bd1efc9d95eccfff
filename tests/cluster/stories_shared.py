"""Several nodes that use one volume at a time, with and without a replica."""

import oracle
from cluster import Cluster
from suite import check, story, wait_for

MIB = 1 << 20
BLOCKS = 64 * MIB // oracle.BLOCK


@story(minutes=4)
def clients_on_three_nodes_write_to_one_volume(scene):
    """Clients on the primary, on the other replica and on a node without one write to the same volume, over each other. The primary is
    killed: its own client is cut off, the two others see no error, and everything that was acknowledged to any of them is there."""
    cluster, first, second, bare = three(scene)
    known = oracle.Oracle(BLOCKS, seed=51)
    first_client, *others = [oracle.Client(known, node.uri("data"), depth=8).start() for node in (first, second, bare)]
    goes_on(known, 1500)
    check(cluster.resource("data")["primary"] == first.name, "the first to come is primary")
    check(first_client.failed == 0 and first_client.running, "no errors", first_client.error)
    first.kill()
    first_client.wait()
    goes_on(known, 1500)
    for client in others:
        check(client.running and client.failed == 0, "the others see no error", client.error, client.last_failure)
        scene.note(f"the longest pause was {client.stall * 1000:.0f} ms")
    first.start()
    cluster.wait_up_to_date("data", 2)
    goes_on(known, 300)
    for client in others:
        client.stop()
    finish(cluster, known)


@story(minutes=4)
def a_node_without_a_replica_is_served_whoever_dies(scene):
    """The only client is on a node without a replica. The node that serves it is killed, comes back, and then is stopped cleanly: the
    client sees nothing of either."""
    cluster, first, second, bare = three(scene)
    known = oracle.Oracle(BLOCKS, seed=52)
    client = oracle.Client(known, bare.uri("data"), depth=8).start()
    goes_on(known, 500)
    serving = cluster.node_named(cluster.wait_primary("data"))
    check(serving in (first, second), "a replica's node is primary", serving)
    serving.kill()
    goes_on(known, 500)
    serving.start()
    cluster.wait_up_to_date("data", 2)
    serving = cluster.node_named(cluster.wait_primary("data"))
    serving.restart()
    goes_on(known, 500)
    check(client.running and client.failed == 0, "the client saw no error", client.error, client.last_failure)
    scene.note(f"the longest pause was {client.stall * 1000:.0f} ms")
    cluster.wait_up_to_date("data", 2)
    client.stop()
    finish(cluster, known)


@story(minutes=3)
def the_role_follows_the_only_client(scene):
    """Two nodes use a volume. When the clients of the primary have gone, the role moves to where the other client is, in the middle
    of its writes."""
    cluster, first, second, _ = three(scene)
    known = oracle.Oracle(BLOCKS, seed=53)
    staying = oracle.Client(known, first.uri("data"), depth=8).start()
    goes_on(known, 200)
    other = oracle.Client(known, second.uri("data"), depth=8).start()
    goes_on(known, 500)
    staying.stop()
    wait_for("the role has moved", lambda: cluster.resource("data")["primary"] == second.name, 20)
    goes_on(known, 500)
    check(other.running and other.failed == 0, "the client saw no error", other.error, other.last_failure)
    scene.note(f"the longest pause was {other.stall * 1000:.0f} ms")
    other.stop()
    finish(cluster, known)


@story(minutes=3)
def a_client_moves_to_another_node_while_it_writes(scene):
    """A live migration: the client of the node that it comes from writes to the last moment, the one of the node that it goes to opens the
    volume before that, and goes on with what the other has written. The role follows."""
    cluster, first, second, bare = three(scene)
    known = oracle.Oracle(BLOCKS, seed=54)
    for source, target in ((first, second), (second, bare), (bare, first)):
        leaving = oracle.Client(known, source.uri("data"), depth=8).start()
        goes_on(known, 300)
        coming = oracle.Client(known, target.uri("data"), depth=8)
        leaving.stop()
        coming.start()
        goes_on(known, 300)
        check(coming.running and coming.failed == 0, "the client saw no error", coming.error, coming.last_failure)
        coming.stop()
        check(oracle.verify(known, target.uri("data")) > 0, f"{target} serves what was written")
    finish(cluster, known)


def three(scene):
    """Three nodes, and a volume on two of them."""
    cluster = scene.closes(Cluster(scene, 3)).form()
    cluster.add_volume("data", "64MiB", replicas=2)
    first, second = (cluster.node_named(name) for name in sorted(cluster.replicas("data")))
    bare = next(node for node in cluster.nodes if node not in (first, second))
    return cluster, first, second, bare


def goes_on(known, count):
    goal = known.acknowledged + count
    wait_for(f"{count} more writes", lambda: known.acknowledged >= goal, 40)


def finish(cluster, known):
    """Every node serves what is legal, and the replicas are the same bytes."""
    for node in cluster.nodes:
        check(oracle.verify(known, node.uri("data")) > 0, f"{node} serves what was written")
    cluster.wait_up_to_date("data", 2)
    wait_for("nobody is primary", lambda: cluster.resource("data")["primary"] is None, 20)
    cluster.check_identical("data")
