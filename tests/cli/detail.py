#!/usr/bin/python3
"""The command line in detail: wrong ones, questions at a terminal, what scripts written for drbdmanage find, joining, watching, and the
demo."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbd

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "lib")]

import clients
import network
from cluster import BINARY, Cluster, join_command
from suite import check, run_stories, story, wait_for


def alone(*arguments, **options):
    """Runs blkrep where there is no daemon."""
    return subprocess.run([BINARY, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, **options)


def table(printed):
    """The rows of a table, title to cell. Checks its frame on the way."""
    lines = printed.splitlines()
    check(len({len(line) for line in lines}) == 1, "every line of a table has the same length", printed)
    check(re.fullmatch(r"\+-+\+", lines[0]) and lines[0] == lines[-1], "the frame's edges", printed)
    check(re.fullmatch(r"\|-+\|", lines[2]), "the line below the titles", printed)
    titles, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in [lines[1], *lines[3:-1]])
    return [dict(zip(titles, row, strict=True)) for row in rows]


def fields(printed):
    """The lines of a machine readable list, as lists of fields."""
    return [line.split(",") for line in printed.splitlines()]


@story()
def a_wrong_command_line_exits_2_and_tells_the_right_one(scene):
    """Unknown verbs, options and words, missing and surplus arguments, and values out of range: exit status 2, nothing on standard
    output, one message and one hint."""
    wrong = [
        ["frobnicate"],
        ["add-volume"],
        ["add-volume", "web"],
        ["add-volume", "web", "1q"],
        ["add-volume", "web", "0"],
        ["add-volume", "we b", "1G"],
        ["add-volume", "-w", "1G"],
        ["add-volume", "web", "1G", "--deploy", "0"],
        ["add-volume", "web", "1G", "--protocol", "D"],
        ["add-volume", "web/70000", "1G"],
        ["add-volume", "web", "1G", "surplus"],
        ["add-node", "beta", "no.address"],
        ["list-nodes", "--frob"],
        ["set-options", "--common"],
        ["set-options", "--protocol", "A"],
        ["set-options", "--common", "--unset", "frob"],
        ["remove-volume", "-q", "web"],
        ["remove-volume", "-q", "web/0", "1"],
        ["list-free-space", "0"],
        ["recover"],
        ["nbd", "serve", "web"],
        ["generate", "completions", "tcsh"],
        ["init", "--pool", "zfs:tank"],
        ["init", "--pool", "file:/srv/pool", "--no-storage"],
        ["daemon", "--log", "=="],
        ["--output", "xml", "list-nodes"],
    ]
    for arguments in wrong:
        done = alone("--root", scene.folder, *arguments)
        check(done.returncode == 2 and not done.stdout, "exit status 2", arguments, done)
        check(re.match(r"blkrep: .*\n  hint: .*\n\Z", done.stderr), "a message and a hint", arguments, done.stderr)


@story()
def without_a_daemon_every_verb_says_so_and_exits_3(scene):
    """The message names the socket, the hint how to start the daemon; with `--output json` it is JSON, code included."""
    for arguments in (["list-nodes"], ["add-volume", "web", "1G"], ["status"], ["ping"], ["remove-resource", "-q", "web"]):
        done = alone("--root", scene.folder, *arguments)
        check(done.returncode == 3 and not done.stdout, "exit status 3", arguments, done)
        check(f"{scene.folder}/run/blkrep/api.sock" in done.stderr and "blkrep daemon" in done.stderr, "message and hint", done.stderr)
    told = json.loads(alone("--root", scene.folder, "--output", "json", "list-nodes").stderr)
    check(told["code"] == "unreachable" and told["message"] and told["hint"], "the failure as JSON", told)
    by_environment = alone("list-nodes", env={**os.environ, "BLKREP_ROOT": str(scene.folder)})
    check(by_environment.returncode == 3 and str(scene.folder) in by_environment.stderr, "BLKREP_ROOT", by_environment)


@story()
def what_destroys_asks_first(scene):
    """Without a terminal a destroying verb is refused unless `-q`; at a terminal only `yes` goes on."""
    destroying = [
        ["remove-node", "beta"],
        ["remove-resource", "web"],
        ["remove-volume", "web/0"],
        ["undeploy-resource", "web"],
        ["unassign-resource", "web", "beta"],
        ["replace-disk", "web", "beta"],
        ["invalidate", "web"],
        ["discard-my-data", "web"],
        ["shutdown"],
        ["init", "--force"],
    ]
    for arguments in destroying:
        done = alone("--root", scene.folder, *arguments)
        check(done.returncode == 2 and "-q" in done.stderr, "refused without a terminal", arguments, done)
    for answer, status, said in (("yes", 3, "cannot reach"), ("no", 1, "nothing was changed"), ("maybe\nno", 1, "yes' or 'no")):
        printed, ended = at_a_terminal(["--root", scene.folder, "remove-resource", "web"], answer)
        check("yes/no:" in printed and said in printed and ended == status, f"answered {answer!r}", ended, printed)


def at_a_terminal(arguments, typed):
    """Runs blkrep at a terminal where `typed` is typed. Returns what was shown and the exit status."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(BINARY, [str(BINARY), *map(str, arguments)])
    os.write(terminal, typed.encode() + b"\n")
    shown, deadline = b"", time.monotonic() + 20
    while time.monotonic() < deadline:
        ready, _, _ = select.select([terminal], [], [], 1)
        try:
            piece = os.read(terminal, 4096) if ready else None
        except OSError:
            break
        if piece == b"":
            break
        shown += piece or b""
    else:
        os.kill(child, signal.SIGKILL)
    return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@story(minutes=3)
def lists_have_drbdmanages_tables_and_columns(scene):
    """A cluster of two with a resource: every list as a table, as CSV in drbdmanage's order, and as JSON, by every alias; filters
    and additional columns."""
    cluster = scene.closes(Cluster(scene, 2))
    cluster.nodes[0].init()
    one = cluster[1]
    for verb, empty in (("list-resources", "No resources defined"), ("list-volumes", "No volumes defined"), ("list-assignments", "No assignments defined")):
        check(one.blkrep(verb) == f"{empty}\n", f"{verb} when there are none")
        check(one.blkrep(verb, "-m") == "" and one.json(verb) == [], f"{verb} for programs, when there are none")
    cluster[2].join(cluster.ticket(cluster[2]))
    for node in cluster.nodes:
        cluster.wait_online(node)
    cluster.add_volume("resource01", "64MiB", 2)

    for node in cluster.nodes:
        rows = table(node.blkrep("list-nodes"))
        check([row["Name"] for row in rows] == ["node1", "node2"], "nodes in order", rows)
        check(list(rows[0]) == ["Name", "Pool Size", "Pool Free", "State"] and all(row["State"] == "ok" for row in rows), "nodes", rows)
        rows = table(node.blkrep("list-resources"))
        check(rows == [{"Name": "resource01", "State": "ok"}], "resources", rows)
        rows = table(node.blkrep("list-volumes"))
        check(rows == [{"Name": "resource01", "Vol ID": "0", "Size": "64 MiB", "Minor": "-", "State": "ok"}], "volumes", rows)
        rows = table(node.blkrep("list-assignments"))
        check([(row["Node"], row["Resource"], row["Vol ID"], row["State"]) for row in rows] == [("node1", "resource01", "*", "ok"), ("node2", "resource01", "*", "ok")], "assignments", rows)

    for verb, aliases in (("list-nodes", "n nodes"), ("list-resources", "r resources"), ("list-volumes", "v volumes"), ("list-assignments", "a assignments")):
        for alias in aliases.split():
            check(one.blkrep(alias, "-m") == one.blkrep(verb, "-m"), f"{alias} is {verb}")

    node = fields(one.blkrep("list-nodes", "-m"))[1]
    check(len(node) == 7 and node[:3] == ["node2", "4", cluster[2].address] and node[6] == "", "a node's fields", node)
    check(int(node[3]) > int(node[4]) > 0 and "storage" in node[5].split("|"), "pool sizes in KiB, and flags", node)
    resource = fields(one.blkrep("list-resources", "-m"))
    check(len(resource) == 1 and resource[0][0] == "resource01" and resource[0][1].isdigit() and resource[0][2] == "ok", "a resource's fields", resource)
    volume = fields(one.blkrep("list-volumes", "-m"))[0]
    check(volume[:4] == ["resource01", "ok", "0", "65536"] and len(volume) == 7 and volume[6] == "ok", "a volume's fields", volume)
    assignments = fields(one.blkrep("list-assignments", "-m"))
    check([a[:2] for a in assignments] == [["node1", "resource01"], ["node2", "resource01"]], "assignments' fields", assignments)
    check(all(len(a) == 5 and set(a[3].split("|")) == set(a[4].split("|")) == {"connect", "deploy"} for a in assignments), "flags", assignments)
    check(len(fields(one.blkrep("list-assignments", "-m", "-N", "node2", "-R", "resource01"))) == 1, "filters")
    check(one.blkrep("list-assignments", "-m", "--resources", "other", "--nodes", "node2") == "", "filters that nothing passes")

    rows = table(one.blkrep("list-nodes", "-s", "IP", "Family", "vote"))
    check(rows[0]["IP"] == cluster[1].address and rows[0]["Family"] == "ipv4" and {row["Vote"] for row in rows} >= {"leader"}, "more columns", rows)
    check("the columns are" in one.refuses("list-nodes", "-s", "frob"), "a column that there is not")
    check(one.json("list-volumes")[0]["bytes"] == 64 << 20, "volumes as JSON")
    free = one.blkrep("list-free-space", "2", "-m").strip().split(",")
    check(len(free) == 2 and 0 < int(free[0]) < int(free[1]), "free space", free)
    told = one.blkrep("list-free-space", "2")
    check(re.match(r"The maximum size for a 2x redundant volume is \d+ kiB .*\n\(Aggregate cluster storage size: \d+ kiB\)\n", told), "free space", told)


@story(minutes=3)
def changes_say_that_they_succeeded_or_why_not(scene):
    """Every changing verb prints drbdmanage's success, and refuses what cannot be with a reason that names it; nothing is changed by
    a refusal."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    one, done = cluster[1], "Operation completed successfully\n"
    check(one.blkrep("add-resource", "db", "--protocol", "A") == done, "add-resource")
    check(one.blkrep("add-volume", "db", "8MiB") == done and one.blkrep("av", "db", "8m") == done, "add-volume")
    check([v["volume"] for v in one.json("list-volumes", "-R", "db")] == [0, 1], "the next number is taken")
    check(table(one.blkrep("list-resources"))[0]["State"] == "undeployed", "no replicas yet")
    check(one.blkrep("deploy", "db", "2") == done, "deploy-resource")
    cluster.wait_up_to_date("db", 2)
    check(one.blkrep("set-options", "--resource", "db", "--resync-max", "10MiB", "--unset", "protocol") == done, "set-options")
    rows = {row["Option"]: row for row in table(one.blkrep("list-options", "db"))}
    check(rows["protocol"]["Value"] == "C" and rows["resync-max"]["Value"] == "10 MiB/s", "list-options", rows)

    check(one.blkrep("deploy", "db", "1", "-d") == done, "one fewer")
    check(len(table(one.blkrep("a", "-R", "db"))) == 1, "there is one")
    one.refuses("deploy-resource", "db", "1", "-d", naming=["none"])
    check(one.run("deploy-resource", "db", "1", "-i", "-d").returncode == 2, "not both")
    check(one.blkrep("deploy", "db", "1", "-i") == done, "one more")
    cluster.wait_up_to_date("db", 2)

    before = cluster.model()
    one.refuses("add-resource", "db", naming=["db", "already"])
    one.refuses("add-volume", "db/1", "8MiB", naming=["1", "already"])
    one.refuses("add-volume", "db", "900T", naming=["space"])
    one.refuses("deploy-resource", "db", "9", naming=["9"])
    one.refuses("deploy-resource", "nothing", "1", naming=["nothing"])
    one.refuses("assign-resource", "db", "nobody", naming=["nobody"])
    one.refuses("remove-resource", "-q", "nothing", naming=["nothing"])
    one.refuses("remove-volume", "-q", "db/7", naming=["7"])
    one.refuses("remove-node", "-q", "nobody", naming=["nobody"])
    one.refuses("add-node", "-j", "node2", "127.0.0.9", naming=["node2"])
    one.refuses("howto-join", "node2", naming=["node2"])
    one.refuses("status", "nothing", naming=["nothing"])
    check(cluster.model() == before, "a refusal changes nothing", cluster.model(), before)

    check(one.blkrep("unassign", "-q", "db", "node2") == done, "unassign-resource")
    wait_for("the replica is gone", lambda: list(cluster.replicas("db")) == ["node1"], 30)
    check(one.blkrep("assign", "db", "node2") == done, "assign-resource")
    cluster.wait_up_to_date("db", 2)
    check(one.blkrep("remove-volume", "-q", "db", "1") == done, "remove-volume")
    check(one.blkrep("undeploy", "-q", "db") == done, "undeploy-resource")
    wait_for("no replica is left", lambda: table(one.blkrep("r"))[0]["State"] == "undeployed", 30)
    check(one.blkrep("rr", "-q", "db") == done, "remove-resource")
    wait_for("the resource is gone", lambda: one.blkrep("r", "-m") == "", 30)


@story(minutes=3)
def a_node_is_added_by_its_printed_command_and_by_ssh(scene):
    """`add-node` prints one join command; `howto-join` another, and the first is good no more; with ssh the join is done at once, and
    the token is not among the arguments of any process."""
    cluster = scene.closes(Cluster(scene, 3))
    one, two, three = cluster.nodes
    one.init()
    printed = one.blkrep("add-node", "-j", two.name, two.address)
    check(printed.startswith("Operation completed successfully\n\nJoin command for node node2:\nblkrep join "), "what is printed", printed)
    first, second = join_command(printed), join_command(one.blkrep("howto-join", two.name))
    check(first != second, "a new token")
    two.refuses(*first, "-q", *two.local, naming=["token"])
    two.join(second)
    cluster.wait_online(one)

    # In place of ssh: checks that it was asked as drbdmanage asks, and runs the command on the third node.
    ssh, log = scene.folder / "ssh", scene.folder / "ssh-calls"
    local = " ".join(three.local)
    netns = f"ip netns exec {cluster.network.namespace(3)}"
    ssh.write_text(f"""#!/bin/bash
echo "$*" >> {log}
shift 3
case "$*" in
  true) exit 0 ;;
  "blkrep join "*) set -- $*; shift; exec {netns} {BINARY} --root {three.root} -q "$@" {local} ;;
esac
exit 1
""")
    ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
    os.environ["BLKREP_SSH"] = str(ssh)
    try:
        printed = one.blkrep("add-node", three.name, three.address, seconds=90)
    finally:
        del os.environ["BLKREP_SSH"]
    three.adopt()
    check(printed == "Operation completed successfully\n", "no join command is printed", printed)
    calls = log.read_text().splitlines()
    check(calls[0] == f"-oBatchMode=yes -oConnectTimeout=2 root@{three.address} true", "the first call", calls)
    check(calls[1].endswith("--token -"), "the token goes through standard input", calls)
    cluster.wait_online(one)
    check(len(table(one.blkrep("n"))) == 3, "three nodes")


@story(minutes=2)
def status_can_be_watched(scene):
    """`status --watch` goes on until it is interrupted, and shows a daemon that goes and comes."""
    cluster = scene.closes(Cluster(scene, 1)).form()
    one = cluster[1]
    one.blkrep("add-volume", "web", "8MiB", "--deploy", "1")
    seen = scene.folder / "watched"
    with seen.open("w") as out:
        watcher = subprocess.Popen([BINARY, "--root", one.root, "status", "web", "--watch"], stdout=out, preexec_fn=one.enter)
    try:
        wait_for("the resource is shown", lambda: "web  ok" in seen.read_text(), 20)
        one.kill()
        wait_for("the lost daemon is shown", lambda: "cannot reach" in seen.read_text(), 20)
        one.start()
        wait_for("the resource is shown again", lambda: "web  ok" in seen.read_text().rpartition("cannot reach")[2], 30)
    finally:
        watcher.send_signal(signal.SIGINT)
        watcher.wait(10)
    check(watcher.returncode == -signal.SIGINT, "interrupted", watcher.returncode)


@story(minutes=2)
def a_volume_is_served_on_standard_input_and_output(scene):
    """`nbd serve --stdio` for clients that start their server: what one writes another reads."""
    cluster = scene.closes(Cluster(scene, 1)).form()
    one = cluster[1]
    one.blkrep("add-volume", "web", "8MiB", "--deploy", "1")
    serve = [str(part) for part in (BINARY, "--root", one.root, "nbd", "serve", "--stdio", "web")]
    first, second = nbd.NBD(), nbd.NBD()
    first.connect_command(serve)
    check(first.get_size() == 8 << 20, "the size", first.get_size())
    data = os.urandom(1 << 20)
    first.pwrite(data, 12345)
    first.flush()
    second.connect_command(serve)
    check(second.pread(len(data), 12345) == data, "what was written is read")
    for client in (first, second):
        client.shutdown()
    missing = nbd.NBD()
    try:
        missing.connect_command([*serve[:-1], "nothing"])
    except nbd.Error as error:
        check("ENOENT" in str(error), "the client is told", error)
    else:
        raise AssertionError("an export that there is not was opened")


@story(minutes=2)
def a_volume_is_served_on_a_socket_that_listens_already(scene):
    """`nbd serve` under socket activation, as clients of libnbd start it: by a handle of libnbd, by nbdinfo and by nbdcopy. What it
    is not meant to be started with is refused."""
    cluster = scene.closes(Cluster(scene, 1)).form()
    one = cluster[1]
    one.blkrep("add-volume", "web", "8MiB", "--deploy", "1")
    serve = [str(part) for part in (BINARY, "--root", one.root, "nbd", "serve", "web")]
    client = nbd.NBD()
    client.connect_systemd_socket_activation(serve)
    data = os.urandom(1 << 20)
    client.pwrite(data, 12345)
    client.flush()
    client.shutdown()
    copy = scene.folder / "copy"
    clients.output(["nbdcopy", "--", "[", *serve, "]", str(copy)])
    check(copy.read_bytes()[12345:][: len(data)] == data, "nbdcopy reads over several connections what was written")
    size = clients.output(["nbdinfo", "--size", "--", "[", *serve, "]"])
    check(int(size) == 8 << 20, "nbdinfo tells the size", size)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = activated(serve, [listener], one)
        other = nbd.NBD()
        other.connect_tcp("127.0.0.1", str(listener.getsockname()[1]))
        check(other.pread(len(data), 12345) == data, "over TCP, too")
        other.shutdown()
        server.terminate()
        server.wait(10)
    check(one.run("nbd", "serve", "web").returncode == 2, "without a socket it is a wrong command line")
    with open(os.devnull) as null:
        refused = activated(serve, [null], one)
        _, said = refused.communicate(timeout=20)
        check(refused.returncode == 1 and "listens" in said and "LISTEN_FDS" in said, "not a socket", said)


@story(minutes=3)
def the_daemon_is_started_with_its_sockets(scene):
    """Sockets that a service manager listens on are served instead of the daemon's own at the same place, and besides it elsewhere.
    A client that connects while no daemon runs is served by the next one."""
    cluster = scene.closes(Cluster(scene, 1)).form()
    one = cluster[1]
    one.blkrep("add-volume", "web", "8MiB", "--deploy", "1")
    one.stop()
    path = one.root / "run/blkrep/nbd.sock"
    check(not path.exists(), "a daemon takes the socket that it has made with it")
    with network.inside(cluster.network.namespace(1)):
        usual, elsewhere = socket.create_server(("127.0.0.1", 10809)), socket.create_server(("127.0.0.1", 0))
    here = socket.socket(socket.AF_UNIX)
    here.bind(str(path))
    here.listen()
    with usual, elsewhere, here:
        early = threading.Thread(target=clients.size, args=[one.uri("web")])
        early.start()
        for turn in range(2):
            daemon = activated([BINARY, "--root", str(one.root), "daemon"], [usual, elsewhere, here], one)
            early.join(30)
            check(not early.is_alive(), "who came early is served")
            uris = [one.uri("web"), one.tcp_uri("web"), clients.tcp_uri("127.0.0.1", "web", elsewhere.getsockname()[1])]
            for uri in uris:
                check(clients.size(uri, enter=one.enter) == 8 << 20, "served", uri)
            daemon.terminate()
            check(daemon.wait(60) == 0, "it ends well")
            check(path.exists(), "the socket is not the daemon's to remove")
    path.unlink()
    one.start()


def activated(command, files, node):
    """Starts a command as a service manager does: with files as descriptors from 3 on, and told of them."""
    first = 3
    held = [os.dup(file.fileno()) for file in files]

    def enter():
        node.enter()
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(files)))
        moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 100) for descriptor in held]
        for at, descriptor in enumerate(moved):
            os.dup2(descriptor, first + at, inheritable=True)
        os.execvp(command[0], command)

    try:
        return subprocess.Popen(["true"], preexec_fn=enter, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, close_fds=False)
    finally:
        for descriptor in held:
            os.close(descriptor)


@story(minutes=3)
def the_demo_loses_nothing(scene):
    """`blkrep demo` runs to its end in less than a minute, shows what it promises, and leaves nothing behind."""
    began = time.monotonic()
    done = alone("demo", "--size", "64MiB", env={**os.environ, "TMPDIR": str(scene.folder)})
    check(done.returncode == 0, "exit status", done.returncode, done.stdout, done.stderr)
    check(time.monotonic() - began < 60, "in less than a minute")
    shown = [row["Shown"] for row in table(done.stdout.lstrip())]
    check(any("byte for byte" in line for line in shown) and any("acknowledged" in line for line in shown), "what was shown", shown)
    check(not list(scene.folder.glob("blkrep-demo*")), "nothing is left behind")


if __name__ == "__main__":
    sys.exit(run_stories())
