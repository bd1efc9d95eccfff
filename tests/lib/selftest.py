#!/usr/bin/python3
"""The test tools, tested: what they clean up, what they leave alone, and that they notice failures."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import leftovers
import network
from processes import descendants, end_all, is_alive, start_time
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
    servers = [
        subprocess.Popen([sys.executable, "-c", ECHO, net.address(n)], preexec_fn=net.enter(n), start_new_session=True) for n in (1, 2, 3)
    ]
    reach = lambda a, b: subprocess.run([sys.executable, "-c", ASK, net.address(b)], preexec_fn=net.enter(a), stderr=subprocess.DEVNULL).returncode == 0
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
