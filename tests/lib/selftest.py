#!/usr/bin/python3
"""The test tools, tested: what they clean up, what they leave alone, and that they notice failures."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import clients
import cluster
import leftovers
import network
import oracle
import pools
from nbdkit import Nbdkit
from processes import end_all, is_alive, start_time
from suite import check, run_stories, story, wait_for

LIB = Path(__file__).resolve().parent


@story()
def a_story_that_fails_is_counted(scene):
    """A suite with a good, a failing and an endless story: exit status 1, one passed and two failed, nothing left behind."""
    suite = scene.folder / "sample.py"
    suite.write_text(
        textwrap.dedent("""
            import subprocess, sys, time
            from suite import check, run_stories, story
            @story()
            def good(scene): check(True, "holds")
            @story()
            def bad(scene):
                (scene.folder / "daemon.log").write_text("the last words")
                print("CHILD", subprocess.Popen(["sleep", "1000"], start_new_session=True).pid)
                check(1 == 2, "one is two", 1, 2)
            @story(minutes=1/60)
            def endless(scene): time.sleep(1000)
            sys.exit(run_stories())
        """)
    )
    done = python(suite)
    check(done.returncode == 1, "exit status", done.returncode, done.stdout, done.stderr)
    check(done.stdout.endswith("1 passed, 2 failed\n"), "the count", done.stdout)
    check("one is two: 1: 2" in done.stdout and "OutOfTime" in done.stdout, "the reasons", done.stdout)
    check("the last words" in done.stdout, "the daemon's log is shown", done.stdout)
    child = int(done.stdout.partition("CHILD ")[2].split()[0])
    check(not is_alive(child), "a process of a story outlived it")
    check(python(suite, "good").returncode == 0, "the good story alone passes")


@story()
def idle_stories_run_beside_the_others(scene):
    """Two stories wait for each other, in lanes of their own. A failure in either lane is the suite's, and what it has started ends
    with the suite."""
    suite = scene.folder / "lanes.py"
    suite.write_text(
        textwrap.dedent("""
            import subprocess, sys
            from pathlib import Path
            from suite import check, run_stories, story, wait_for
            here = Path(__file__).parent
            def meets(mine, other):
                (here / mine).touch()
                wait_for(other, (here / other).exists, 20)
            @story(idle=True)
            def waits(scene): meets("idle", "busy")
            @story()
            def works(scene): meets("busy", "idle")
            @story(idle=True)
            def fails(scene): check(not (here / "fails").exists(), "it is not asked to fail")
            @story(idle=True)
            def hangs(scene):
                if (here / "hangs").exists():
                    subprocess.run(["sleep", "45454545"])
            sys.exit(run_stories())
        """)
    )
    done = python(suite)
    counts = [line for line in done.stdout.splitlines() if " passed, " in line]
    check((done.returncode, counts) == (0, ["1 passed, 0 failed", "3 passed, 0 failed"]), "both lanes", done.stdout, done.stderr)
    (scene.folder / "fails").touch()
    done = python(suite)
    check(done.returncode == 1 and "2 passed, 1 failed" in done.stdout, "a failure", done.stdout, done.stderr)
    check(python(suite, "works", "waits").returncode == 0, "by name they run one after the other, beside what the first has left")
    (scene.folder / "hangs").touch()
    running = subprocess.Popen(["/usr/bin/python3", suite], stdout=subprocess.DEVNULL, env=with_lib())
    wait_for("a story hangs", lambda: processes_with("45454545"), 20)
    running.terminate()
    check(running.wait(20) != 0 and not processes_with("45454545"), "what is ended is ended whole", processes_with("45454545"))


@story()
def a_budget_ends_the_whole_group(scene):
    """A suite over its budget is ended with what it started, even what had left its process group."""
    sample = scene.folder / "runner_sample.py"
    sample.write_text(
        textwrap.dedent("""
            import sys, runner
            from pathlib import Path
            runner.LOGS = Path(sys.argv[1])
            runner.ROOT = runner.LOGS
            sleeper = runner.Step(["bash", "-c", "setsid sleep 987654 & trap '' TERM; sleep 987655; sleep 987656"], {})
            quick = runner.Step(["bash", "-c", "echo '3 passed, 0 failed'"], {})
            liar = runner.Step(["bash", "-c", "echo 'test result: FAILED. 2 passed; 1 failed'"], {})
            idle = runner.Step(["bash", "-c", "echo 'test result: ok. 0 passed; 0 failed'"], {})
            runner.SUITES = [runner.Suite("slow", 0.02, [], [sleeper]), runner.Suite("quick", 1, [], [quick]),
                             runner.Suite("liar", 1, [], [liar]), runner.Suite("idle", 1, [], [idle])]
            runner.GRACE = 1
            sys.argv[1:] = []
            sys.exit(runner.main())
        """)
    )
    done = python(sample, scene.folder)
    lines = done.stdout.splitlines()
    check(done.returncode == 1, "exit status", done.stdout, done.stderr)
    check(any(line.startswith("slow           FAILED") and "over budget" in line for line in lines), "slow", done.stdout)
    check(any(line.startswith("quick          ok") for line in lines), "quick", done.stdout)
    check(any(line.startswith("liar           FAILED") for line in lines), "liar", done.stdout)
    check(any(line.startswith("idle           FAILED") and "no test ran" in line for line in lines), "idle", done.stdout)
    check(lines[-1] == "5 passed, 3 failed", "the count", done.stdout)
    check(not processes_with("98765"), "processes outlived their budget", processes_with("98765"))


@story()
def leftovers_of_the_dead_are_swept_and_of_the_living_kept(scene):
    """A killed test leaves a folder, a namespace, a mount, a loop device and a process; the next one takes them away, and
    touches nothing of this process, which lives."""
    mine = leftovers.new_folder()
    sample = scene.folder / "victim.py"
    sample.write_text(
        textwrap.dedent("""
            import subprocess, time, leftovers, network
            folder = leftovers.new_folder()
            (folder / "mount").mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "none", folder / "mount"], check=True)
            with open(folder / "disk", "wb") as disk: disk.truncate(1 << 20)
            subprocess.run(["losetup", "--find", folder / "disk"], check=True)
            network.Network(1)
            orphan = subprocess.Popen(["python3", "-c", "import time; time.sleep(1000)", f"{folder}/x"], start_new_session=True)
            print(folder, orphan.pid, flush=True)
            time.sleep(1000)
        """)
    )
    victim = subprocess.Popen(["/usr/bin/python3", sample], stdout=subprocess.PIPE, text=True, env=with_lib())
    folder, orphan = victim.stdout.readline().split()
    leftovers.sweep()
    check(Path(folder).exists() and is_alive(int(orphan)), "a living test's things were swept")
    check(leftovers.loop_devices(folder), "the victim has a loop device")
    victim.kill()
    victim.wait()
    leftovers.sweep()
    check(not Path(folder).exists(), "its folder is still there")
    check(not is_alive(int(orphan)), "its process still runs")
    check(not leftovers.loop_devices(folder), "its loop device is still there")
    check(folder not in Path("/proc/mounts").read_text(), "its mount is still there")
    check(not list(Path("/run/netns").glob(f"brt{victim.pid}*")), "its namespaces are still there")
    check(mine.exists(), "this process's folder was swept")
    leftovers.shutil.rmtree(mine)


@story()
def a_reused_pid_does_not_protect_leftovers(scene):
    """A folder of a process with this one's number but another start is nobody's."""
    me = os.getpid()
    check(not leftovers.is_orphaned(f"brt{me}-{start_time(me)}-0"), "my own folder")
    check(leftovers.is_orphaned(f"brt{me}-{start_time(me) - 1}-0"), "a namesake's folder")
    check(not leftovers.is_orphaned("brtfs") and not leftovers.is_orphaned("other"), "a stranger's folder")


@story()
def namespaces_are_joined_and_can_be_cut(scene):
    """Three nodes reach each other; a cut separates exactly what it says, both ways or one way, until it is healed."""
    net = scene.closes(network.Network(3))
    servers = [subprocess.Popen([sys.executable, "-c", ECHO, net.address(n)], preexec_fn=net.enter(n)) for n in (1, 2, 3)]

    def reach(one, other):
        ask = [sys.executable, "-c", ASK, net.address(other)]
        return subprocess.run(ask, preexec_fn=net.enter(one), stderr=subprocess.DEVNULL).returncode == 0

    pairs = [(a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b]
    for a, b in pairs:
        wait_for(f"{a} reaches {b}", lambda: reach(a, b), 10)
    net.cut(1)
    check({p for p in pairs if reach(*p)} == {(2, 3), (3, 2)}, "only 2 and 3 still meet")
    net.heal()
    net.cut_one_way(1, 2)
    check(not reach(1, 2) and reach(1, 3), "what 1 sends to 2 is lost")
    net.heal()
    check(all(reach(*p) for p in pairs), "all meet again")
    end_all([server.pid for server in servers])


@story()
def loopback_addresses_are_distinct_and_local(scene):
    """Six addresses, all different, all bindable."""
    import socket

    addresses = {network.loopback_address(n) for n in range(1, 7)}
    check(len(addresses) == 6 and all(a.startswith("127.") for a in addresses), "addresses", addresses)
    for address in addresses:
        with socket.socket() as one:
            one.bind((address, 0))


@story()
def the_oracle_accepts_a_server_that_keeps_its_word(scene):
    """nbdkit is killed in the middle of writes and started again on the same file: all that was acknowledged is there, and the
    writer noticed that its connection broke."""
    server = scene.closes(Nbdkit(scene.folder, "file", disk(scene.folder)))
    known = oracle.Oracle(4096, seed=1)
    oracle.fill(known, server.uri, share=0.5)
    client = oracle.Client(known, server.uri).start()
    wait_for("some writes", lambda: known.acknowledged > 300, 20)
    server.kill()
    client.wait()
    check(client.error is not None, "the client noticed the death of its server")
    server.start()
    check(oracle.verify(known, server.uri) > 100, "blocks were verified")
    client = oracle.Client(known, server.uri).start()
    wait_for("more writes", lambda: known.acknowledged > 600, 20)
    client.stop()
    oracle.verify(known, server.uri)


@story()
def the_oracle_takes_failed_writes_for_unknown(scene):
    """A server that fails some writes, before or after doing them: nothing is lost, and the failures are counted."""
    errors = ["error-pwrite=EIO", "error-pwrite-rate=5%"]
    server = scene.closes(Nbdkit(scene.folder, "--filter=error", "file", disk(scene.folder), *errors))
    known = oracle.Oracle(4096, seed=2)
    client = oracle.Client(known, server.uri).start()
    wait_for("failures", lambda: client.failed > 10, 20)
    client.stop()
    check(known.acknowledged > 50, "most writes were good", known.acknowledged)
    oracle.verify(known, server.uri)


@story()
def the_oracle_notices_a_lost_a_torn_and_a_misplaced_write(scene):
    """One block of the server's file goes back in time, is torn, or swapped for another's: each is found."""
    file = disk(scene.folder)
    server = scene.closes(Nbdkit(scene.folder, "file", file))
    known = oracle.Oracle(1024, seed=3)
    oracle.fill(known, server.uri)
    old = file.read_bytes()
    oracle.fill(known, server.uri)
    oracle.verify(known, server.uri)
    new = file.read_bytes()
    at = 700 * oracle.BLOCK
    for damage in (old[at : at + 4096], new[at : at + 512] + old[at + 512 : at + 4096], new[:4096], bytes(4096)):
        with open(file, "r+b") as changed:
            changed.seek(at)
            changed.write(damage)
        try:
            oracle.verify(known, server.uri)
        except oracle.Lost as lost:
            check("block 700 " in str(lost), "the block is named", lost)
        else:
            raise AssertionError("a lost write went unnoticed")
        with open(file, "r+b") as changed:
            changed.seek(at)
            changed.write(new[at : at + 4096])
    oracle.verify(known, server.uri)


@story()
def what_was_read_once_must_not_change_again(scene):
    """An unknown write may be there or not; once seen, it may not vanish."""
    known = oracle.Oracle(8, seed=4)
    known.acked(0, 1, known.sent(0, 1))
    known.ended(known.sent(0, 1))
    known.ended(known.sent(0, 1, zero=True))
    for version in (1, 2, 3):
        known.legal[0] = [1, 2, 3]
        known.check(0, known.content(0, version))
        for other in {1, 2, 3} - {version}:
            try:
                known.check(0, known.content(0, other))
            except oracle.Lost:
                continue
            raise AssertionError(f"version {other} after {version} went unnoticed")


@story()
def writes_at_the_same_time_may_end_in_either_order(scene):
    """Two writes of a block overlap in time: both are legal in the end. What ended before another was sent is not."""
    known = oracle.Oracle(8, seed=5)
    one, two = known.sent(0, 1), known.sent(0, 1)
    known.acked(0, 1, two)
    check(known.legal[0] == [0, one, two] or known.legal[0] == [one, two], "the first is still under way", known.legal[0])
    known.acked(0, 1, one)
    check(sorted(known.legal[0]) == [one, two], "either may be last", known.legal[0])
    three, four = known.sent(0, 1), known.sent(0, 1)
    known.ended(three)
    known.acked(0, 1, four)
    check(sorted(known.legal[0]) == [three, four], "an unknown write at the same time", known.legal[0])
    known.check(0, known.content(0, three))
    check(known.legal[0] == [three], "once read, the other is gone", known.legal[0])
    five = known.sent(0, 1)
    known.check(0, known.content(0, three))
    check(known.legal[0] == [three, five], "a write under way may still come", known.legal[0])
    known.acked(0, 1, five)
    check(known.legal[0] == [five], "what ended before is ruled out", known.legal[0])


@story()
def replicas_are_compared_behind_the_daemon(scene):
    """Two pools' copies of a volume, a file and a logical volume of two segments: equal with holes for zeroes, different where
    they differ, short copies refused."""
    files = scene.closes(pools.FilePool(scene.folder / "files"))
    group = scene.closes(pools.LvmPool(scene.folder, "a", 128 << 20))
    size = 24 << 20
    options = ["--quiet", "--yes", "--driverloaded", "n", "-an", "-Zn", "-Wn"]
    # A volume in the way makes the second half of the other one a segment of its own.
    pools.lvm("lvcreate", *options, "-L", "8m", "-n", "web_00", group.group)
    pools.lvm("lvcreate", *options, "-L", "8m", "-n", "between", group.group)
    pools.lvm("lvextend", "--quiet", "--driverloaded", "n", "-L", "24m", f"{group.group}/web_00")
    check(group.volumes() == ["between", "web_00"], "volumes", group.volumes())
    extents = group.extents("web_00")
    check(len(extents) == 2 and sum(length for _, length in extents) == size, "two segments", extents)
    with open(files.folder / "web_00", "wb") as file:
        file.truncate(size)
    check(pools.differences(files, group, "web_00", size) == [], "two empty copies are equal")
    for block, text in ((5, b"five"), (3000, b"three thousand")):
        with open(files.folder / "web_00", "r+b") as file:
            file.seek(block * 4096 + 100)
            file.write(text)
    check(pools.differences(files, group, "web_00", size) == [5, 3000], "what was written differs")
    start = extents[1][0] + 3000 * 4096 - extents[0][1]
    with open(group.disk, "r+b") as disk_file:
        disk_file.seek(start + 100)
        disk_file.write(b"three thousand")
    check(pools.differences(files, group, "web_00", size) == [5], "the second segment is found")
    try:
        pools.differences(files, group, "web_00", size + 4096)
    except AssertionError as short:
        check("ends early" in str(short), "why", short)
    else:
        raise AssertionError("a short copy went unnoticed")


@story()
def the_join_command_is_found_in_what_is_printed(scene):
    """Whatever stands around it; none, or two, are a failure."""
    printed = "Operation completed successfully\n\nJoin command for node beta:\nblkrep join 10.77.0.1 --token abc\n"
    check(cluster.join_command(printed) == ["join", "10.77.0.1", "--token", "abc"], "the arguments")
    for wrong in ("", "blkrep list-nodes", printed + printed):
        try:
            cluster.join_command(wrong)
        except AssertionError:
            continue
        raise AssertionError(f"a join command was found in {wrong!r}")


@story()
def clients_copy_and_measure(scene):
    """nbdcopy there and back keeps every byte; fio's numbers are read."""
    server = scene.closes(Nbdkit(scene.folder, "file", disk(scene.folder)))
    image = scene.folder / "image"
    image.write_bytes(os.urandom(3 << 20) + bytes(13 << 20))
    clients.copy(image, server.uri)
    clients.copy(server.uri, scene.folder / "back")
    check((scene.folder / "back").read_bytes() == image.read_bytes(), "the image came back")
    check(clients.size(server.uri) == 16 << 20, "the size")
    job = {"ioengine": "nbd", "uri": server.uri, "rw": "randwrite", "bs": "4k", "size": "16m", "iodepth": 8, "io_size": "4m"}
    written = clients.fio_result(clients.fio(job, scene.folder), "write")
    check(written.operations == 1024 and written.iops > 0 and written.latency.p99 >= written.latency.median > 0, "fio", written)


def disk(folder, bytes=16 << 20):
    path = folder / "disk"
    with open(path, "wb") as file:
        file.truncate(bytes)
    return path


ECHO = """
import socket, sys
listener = socket.create_server((sys.argv[1], 7))
while True:
    connection, _ = listener.accept()
    connection.close()
"""

ASK = """
import socket, sys
socket.create_connection((sys.argv[1], 7), timeout=0.5)
"""


def with_lib():
    return {**os.environ, "PYTHONPATH": str(LIB)}


def python(script, *arguments):
    command = ["/usr/bin/python3", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=with_lib())


def processes_with(text):
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return [pid for pid in found if pid != os.getpid()]


if __name__ == "__main__":
    sys.exit(run_stories())
