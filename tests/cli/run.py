#!/usr/bin/python3
"""The command line as scripts and people meet it: help, manual, completions, exit statuses, and lists in three formats."""

import csv
import io
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "lib")]

# Importing it registers its story.
import units
from cluster import BINARY, Cluster
from suite import check, run_stories, story, wait_for

# drbdmanage's short names, which are in people's fingers and scripts.
ALIASES = {
    "add-node": ["nn", "new-node", "an"],
    "remove-node": ["rn", "delete-node", "dn"],
    "list-nodes": ["n", "nodes"],
    "add-volume": ["nv", "new-volume", "av"],
    "resize-volume": ["resize"],
    "remove-volume": ["rv", "delete-volume", "dv"],
    "list-volumes": ["v", "volumes"],
    "add-resource": ["nr", "new-resource", "ar"],
    "remove-resource": ["rr", "delete-resource", "dr"],
    "list-resources": ["r", "resources"],
    "list-assignments": ["a", "assignments"],
    "list-free-space": ["free-space"],
    "assign-resource": ["assign"],
    "unassign-resource": ["unassign"],
    "deploy-resource": ["deploy"],
    "undeploy-resource": ["undeploy"],
    "add-snapshot": ["ns", "create-snapshot", "cs", "new-snapshot", "as"],
    "remove-snapshot": ["delete-snapshot", "ds"],
    "remove-snapshot-assignment": ["rsa", "delete-snapshot-assignment", "dsa"],
    "restore-snapshot": ["rs"],
    "list-snapshots": ["s", "snapshots"],
    "list-snapshot-assignments": ["sa", "snapshot-assignments"],
    "join": ["join-cluster"],
}


@story()
def every_verb_explains_itself(scene):
    """`help VERB` and `VERB --help` tell the usage of everything that `--help` lists, and drbdmanage's short names are known."""
    verbs = listed_verbs()
    check(len(verbs) > 20 and set(ALIASES) <= set(verbs), "the verbs", verbs)
    for verb in verbs:
        told = blkrep(*verb.split(), "--help")
        check(told.returncode == 0 and f"blkrep {verb}" in told.stdout, "--help", verb, told)
        check(blkrep("help", *verb.split()).returncode == 0, "help", verb)
    for verb, aliases in ALIASES.items():
        for alias in aliases:
            check(blkrep(alias, "--help").stdout == blkrep(verb, "--help").stdout, f"{alias} is {verb}")


@story()
def the_manual_is_well_formed(scene):
    """`generate man` writes a page for the program and one for each verb, and groff has nothing to complain about."""
    blkrep("generate", "man", scene.folder / "man")
    pages = sorted((scene.folder / "man").iterdir())
    check(len(pages) > 20 and any(page.name == "blkrep.8" for page in pages), "the pages", pages)
    for page in pages:
        shown = subprocess.run(["groff", "-man", "-Tutf8", "-P-c", "-P-b", "-P-u", "-ww", page], capture_output=True, text=True)
        check(shown.returncode == 0 and not shown.stderr, "groff", page, shown.stderr)
        check("NAME" in shown.stdout, "it has a NAME section", page)


@story()
def completions_load(scene):
    """The completions for bash load in bash, and complete verbs."""
    script = scene.folder / "blkrep.bash"
    script.write_text(blkrep("generate", "completions", "bash").stdout)
    function = "$(complete -p blkrep | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
    ask = f"source {script}; COMP_WORDS=(blkrep list-); COMP_CWORD=1; {function} blkrep list- blkrep; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "--norc", "-c", ask], capture_output=True, text=True)
    check(done.returncode == 0 and "list-nodes" in done.stdout.split(), "completion", done)
    for shell in ("zsh", "fish"):
        check(len(blkrep("generate", "completions", shell).stdout) > 1000, shell)


@story()
def exit_statuses_can_be_relied_on(scene):
    """0 for done, 2 for a command line that makes no sense, 3 for a daemon that is not there; output to a closed pipe is no
    failure."""
    root = ["--root", scene.folder / "nowhere"]
    check(blkrep("--version").returncode == 0, "--version")
    check(blkrep("--version").stdout.startswith("blkrep "), "it tells its name")
    for wrong in ([], ["frobnicate"], ["list-nodes", "--frobnicate"], ["add-volume", "web"], ["list-nodes", "--output", "xml"]):
        done = blkrep(*root, *wrong)
        check(done.returncode == 2 and done.stderr and not done.stdout, "usage", wrong, done)
    for verb in ("list-nodes", "list-resources", "status", "ping"):
        done = blkrep(*root, verb)
        check(done.returncode == 3 and "hint:" in done.stderr and not done.stdout, "unreachable", verb, done)
    pipe = f"{BINARY} --help | true; exit ${{PIPESTATUS[0]}}"
    closed = subprocess.run(["bash", "-c", pipe], capture_output=True)
    check(closed.returncode == 0 and not closed.stderr, "a closed pipe", closed)


@story(minutes=3)
def lists_tell_the_same_in_three_formats(scene):
    """Tables for people, drbdmanage's CSV, and JSON: empty and filled."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    node = cluster[1]
    for verb, words in (("list-resources", "No resources defined"), ("list-assignments", "No assignments defined")):
        check(words in node.blkrep(verb), "empty", verb)
        check(node.json(verb) == [] and node.blkrep(verb, "-m") == "", "empty", verb)
    cluster.add_volume("web", "64MiB", 2)
    cluster.add_volume("db", "100MB", 1)
    fields = {"list-nodes": 7, "list-resources": 3, "list-volumes": 7, "list-assignments": 5}
    for verb, count in fields.items():
        rows = list(csv.reader(io.StringIO(node.blkrep(verb, "-m"))))
        told = node.json(verb)
        check(rows and len(rows) == len(told) and all(len(row) == count for row in rows), "CSV", verb, rows)
        table = node.blkrep(verb)
        check(table.startswith("+--") and all(row[0] in table for row in rows), "table", verb, table)
        check(cluster[2].json(verb) == told or verb == "list-nodes", "every node tells the same", verb)
    volumes = {row[0]: row for row in csv.reader(io.StringIO(node.blkrep("list-volumes", "-m")))}
    check(volumes["web"][3] == "65536" and int(volumes["db"][3]) * 1024 >= 100_000_000, "sizes are in KiB", volumes)
    largest, total = (int(field) for field in node.blkrep("list-free-space", "2", "-m").strip().split(","))
    check(0 < largest <= total, "free space", largest, total)
    status = node.json("status")
    check({r["name"] for r in status["resources"]} == {"web", "db"}, "the status", status)
    for text in ("web", "node2", "UpToDate"):
        check(text in node.blkrep("status"), "the status for people", text)


@story(minutes=3)
def questions_want_an_answer(scene):
    """What destroys data asks first; without an answer nothing is done. `-q` answers yes."""
    cluster = scene.closes(Cluster(scene, 1)).form()
    node = cluster[1]
    cluster.add_volume("web", "16MiB", 1)
    for command in (["remove-resource", "web"], ["remove-volume", "web", "0"], ["undeploy-resource", "web"]):
        node.refuses(*command)
        check([r["name"] for r in node.json("list-resources")] == ["web"], "it is still there", command)
    check("Operation completed successfully" in node.blkrep("remove-resource", "web", "-q"), "drbdmanage's words")
    wait_for("it is gone", lambda: node.json("list-resources") == [], 20)


@story(minutes=3)
def commands_at_the_same_time(scene):
    """Eight different volumes are added at once, and all are made; of eight equal resources one is made and seven are refused."""
    cluster = scene.closes(Cluster(scene, 2)).form()

    def add(number):
        return cluster.nodes[number % 2].run("add-volume", f"v{number}", "16MiB", "--deploy", "2")

    def define(number):
        return cluster.nodes[number % 2].run("add-resource", "same")

    with ThreadPoolExecutor(8) as pool:
        added, defined = list(pool.map(add, range(8))), list(pool.map(define, range(8)))
    check(all(done.returncode == 0 for done in added), "all are made", [d.stderr for d in added])
    check(sorted(done.returncode for done in defined) == [0] + [1] * 7, "one is made", defined)
    for number in range(8):
        cluster.wait_up_to_date(f"v{number}", 2)
    ids = [r["id"] for r in cluster[1].json("status")["resources"]]
    check(len(set(ids)) == 9, "every resource has an id of its own", ids)


def blkrep(*arguments):
    return subprocess.run([BINARY, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)


def listed_verbs():
    """The verbs that `--help` lists: lines of two spaces, a name, and what it does."""
    found = re.findall(r"^  ([a-z]+(?:[- ][a-z]+)*)  +[A-Z]", blkrep("--help").stdout, re.MULTILINE)
    return [verb for verb in found if not verb.startswith("-")]


if __name__ == "__main__":
    sys.exit(run_stories())
