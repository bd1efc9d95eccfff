"""Programs that rely on a disk, across the death of the node that they use: file systems, a database, fio with its own checksums."""

import json
import sqlite3
import subprocess
import sys
import threading

import clients
from cluster import Cluster
from mounts import Mount
from suite import check, story, wait_for

MIB = 1 << 20


@story(minutes=3)
def ext4_and_a_database_survive_the_primary(scene):
    """A database with synchronous=FULL and files that are synced, on ext4, on a volume whose primary is killed: on the other node the
    journal is played back, the file system is faultless, and all that was committed is there."""
    survives_the_primary(scene, "ext4")


@story(minutes=3)
def xfs_and_a_database_survive_the_primary(scene):
    """The same on XFS."""
    survives_the_primary(scene, "xfs")


def survives_the_primary(scene, kind):
    cluster = scene.closes(Cluster(scene, 2)).form()
    # XFS wants 300 MiB.
    cluster.add_volume("data", "320MiB", 2)
    one, two = cluster.nodes
    mount = scene.closes(Mount(scene.folder / "m1", one.uri("data"))).open()
    mount.make(kind)
    mount.mount(kind)
    program = scene.closes(Program(mount.path))
    wait_for("commits", lambda: len(program.committed) > 40, 60)
    one.kill()
    program.wait()
    committed = program.committed
    mount.close()

    again = scene.closes(Mount(scene.folder / "m2", two.uri("data"))).open()
    again.mount(kind)
    look_at_database(again.path, committed)
    look_at_files(again.path, committed)
    program = scene.closes(Program(again.path, first=len(committed) + 10))
    wait_for("commits on the survivor", lambda: len(program.committed) > 20, 60)
    one.start()
    cluster.wait_up_to_date("data", 2)
    program.close()
    again.unmount()
    again.check(kind)
    again.close()
    wait_for("nobody is primary", lambda: cluster.resource("data")["primary"] is None, 20)
    cluster.check_identical("data")
    scene.note(f"{len(committed)} transactions before the kill, {len(program.committed)} after it")


class Program:
    """Commits transaction after transaction, and syncs a file for each, in a process of its own. What it says it has done is known here,
    whatever happens to its disk: an oracle outside of what is tested."""

    def __init__(self, folder, first=1):
        self.committed = []
        command = [sys.executable, "-u", "-c", PROGRAM, str(folder), str(first)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self.committed.append(int(line))

    def wait(self, seconds=60):
        """Waits until it fails, as its disk is gone."""
        self._process.wait(seconds)
        self._reader.join(10)

    def close(self):
        self._process.kill()
        self.wait()


PROGRAM = """
import os, sqlite3, sys
folder, number = sys.argv[1], int(sys.argv[2])
database = sqlite3.connect(folder + "/database", isolation_level=None)
# Not "delete": there a commit is a removed name, which FULL does not sync, so that a loss of power may undo it on any disk.
database.execute("pragma journal_mode = truncate")
database.execute("pragma synchronous = full")
database.execute("create table if not exists entries (number integer primary key, text blob)")
# What is in a new directory entry is only as durable as the directory.
directory = os.open(folder, os.O_RDONLY)
while True:
    with open(f"{folder}/file{number}", "wb") as file:
        file.write(b"%d " % number * 3000)
        file.flush()
        os.fsync(file.fileno())
    os.fsync(directory)
    database.execute("begin")
    database.execute("insert into entries values (?, randomblob(3000))", (number,))
    database.execute("update entries set text = ? where number = ?", (b"%d " % number * 500, number))
    database.execute("commit")
    print(number)
    number += 1
"""


def look_at_database(folder, committed):
    database = sqlite3.connect(f"{folder}/database")
    check(database.execute("pragma integrity_check").fetchall() == [("ok",)], "the database is whole")
    found = dict(database.execute("select number, text from entries").fetchall())
    lost = [number for number in committed if found.get(number) != b"%d " % number * 500]
    check(not lost, "every committed transaction is there", f"lost: {lost}")
    check(len(found) <= len(committed) + 1, "and at most the one that was under way", len(found), len(committed))
    database.close()


def look_at_files(folder, committed):
    for number in committed:
        content = (folder / f"file{number}").read_bytes()
        check(content == b"%d " % number * 3000, "a synced file is what was written", number, len(content))


@story(minutes=3)
def fio_verifies_across_a_kill(scene):
    """fio writes with checksums and, while writes are in flight, stores which were answered and kills the primary. On the other node it
    finds each of them, with its checksum. Meanwhile the killed one comes back; then the other is killed, and it finds them there."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    cluster.add_volume("data", "64MiB", 2)
    one, two = cluster.nodes
    job = {
        "ioengine": "nbd",
        "rw": "randwrite",
        "bs": "4k",
        "size": "64m",
        "iodepth": 16,
        "verify": "crc32c",
        "verify_fatal": 1,
        "randseed": 17,
        "verify_state_save": 1,
    }
    written = {**job, "uri": one.uri("data"), "do_verify": 0, "rate_iops": 1500}
    crash = {"trigger-timeout": 3, "trigger": f"kill -9 {one.pid}"}
    clients.start_fio({**written, **crash}, scene.folder).communicate(timeout=60)
    wait_for("the primary is dead", lambda: not one.running, 10)
    state = list(scene.folder.glob("*verify.state"))
    check(len(state) == 1, "fio has stored which writes were answered", state)
    found = {**job, "verify_only": 1, "verify_state_save": 0, "verify_state_load": 1}
    wait_for("the other serves", lambda: clients.size(two.uri("data")) == 64 * MIB, 30)
    done = clients.fio({**found, "uri": two.uri("data")}, scene.folder)
    scene.note(f"{done['read']['total_ios']} blocks were verified")
    check(done["read"]["total_ios"] > 500, "blocks were verified", json.dumps(done["read"])[:200])
    one.start()
    cluster.wait_up_to_date("data", 2)
    two.kill()
    wait_for("the first serves", lambda: clients.size(one.uri("data")) == 64 * MIB, 30)
    again = clients.fio({**found, "uri": one.uri("data")}, scene.folder)
    check(again["read"]["total_ios"] == done["read"]["total_ios"], "as many blocks were verified", again["read"]["total_ios"])
    two.start()
    cluster.wait_up_to_date("data", 2)
    cluster.check_identical("data")
