"""Nodes whose disks can lose what was not flushed, and a client that knows what has to be there all the same."""

import random
import subprocess

from cluster import Cluster
from mapped import MappedPool
from suite import check

MIB = 1 << 20
BLOCK = 4096
BLOCKS = 512


def nodes_on_mapped_disks(scene, count, mapped):
    """Nodes on loopback addresses, some of them with a volume group on a disk of device-mapper."""
    for module in ("dm-flakey", "dm-log-writes"):
        subprocess.run(["modprobe", module], check=True)
    # Before the nodes, so that they end before their disks.
    pools = {number: scene.closes(MappedPool(scene.folder / f"n{number}" / "mapped", f"n{number}", 128 * MIB)) for number in mapped}
    made = scene.closes(Cluster(scene, count, enter=lambda: None))
    for number, pool in pools.items():
        made[number].pool = pool
    made.form()
    made.add_volume("web", "32MiB", count, "--peer-tls", "off")
    return made


class Writer:
    """Writes blocks that hold how often they were written, each a version of its own, and knows what a flush has made durable."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.newest = [0] * BLOCKS
        self.durable = [list(self.newest)]

    def write(self, handle, count):
        for _ in range(count):
            block = self.random.randrange(BLOCKS)
            self.newest[block] += 1
            handle.pwrite(content(block, self.newest[block]), block * BLOCK)

    def flush(self, handle):
        """Returns the number of this flush."""
        handle.flush()
        self.durable.append(list(self.newest))
        return len(self.durable) - 1

    def check(self, handle, flush, when):
        """Each block has a version that is not older than at that flush, and was written."""
        for block in range(BLOCKS):
            found = bytes(handle.pread(BLOCK, block * BLOCK))
            version = int.from_bytes(found[:8], "little")
            check(found == content(block, version), "a block is whole", when, block)
            least, most = self.durable[flush][block], self.newest[block]
            check(least <= version <= most, "what was flushed is there, and nothing that was never written", when, block, least, version, most)


def content(block, version):
    """Zeroes are what no block had before its first version."""
    return (version.to_bytes(8, "little") + block.to_bytes(8, "little")) * (BLOCK // 16) if version else bytes(BLOCK)


def lose_power(scene, pool, draws):
    """What a flush has made durable since the recording began is on the disk; of what came after it, as much as chance has it."""
    entries = pool.recorded()
    last = max(at for at, entry in enumerate(entries) if entry.makes_durable)
    point = draws.randint(last + 1, len(entries))
    scene.note(f"{len(entries) - point} of {len(entries) - last - 1} writes in the cache were lost")
    pool.power_lost(entries[:point])
