"""The test runner behind tests/run: a table of suites, each with its packages, its budget and its commands.

Only Python's standard library, so that a fresh Debian 12 with Rust can run it. Every cargo command uses the release profile:
what one suite has compiled, the next one finds.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from leftovers import sweep
from processes import adopt_orphans, descendants, end_all

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "target" / "test-logs"
TAIL_LINES = 60
# Seconds that a suite over its budget has to tidy up.
GRACE = 20

CARGO_PACKAGES = ["gcc", "libc6-dev"]
NBD_PACKAGES = ["python3-libnbd", "libnbd-bin", "nbdkit", "qemu-utils", "fio"]
CLUSTER_PACKAGES = [*NBD_PACKAGES, "lvm2", "iproute2", "nftables", "xfsprogs", "e2fsprogs", "mount"]

# The engine's own package brings containerd and runc. Its service may want to start when it is installed; nothing here uses it.
DOCKER_PACKAGES = [*CLUSTER_PACKAGES, "docker.io", "busybox-static"]

CLI_PACKAGES = [*CLUSTER_PACKAGES, "groff-base"]

# What a command may leave behind for the count of tests: cargo's summary, or the suites' own.
CARGO_COUNT = re.compile(rb"^test result: \w+\. (\d+) passed; (\d+) failed", re.MULTILINE)
OWN_COUNT = re.compile(rb"^(\d+) passed, (\d+) failed$", re.MULTILINE)
# What a whole suite says that cannot run on this machine.
SKIPPED = re.compile(rb"^skipped: (.*)$", re.MULTILINE)


@dataclass
class Suite:
    """A suite passes when all its commands exit 0 within `minutes` together."""

    name: str
    minutes: float
    packages: list
    commands: list
    needs_binary: bool = False


def cargo(*arguments, **environment):
    return Step(["cargo", *arguments], environment)


def script(path, *arguments):
    return Step(["/usr/bin/python3", "-u", path, *arguments], {})


@dataclass
class Step:
    argv: list
    environment: dict


# The documentation is for those who change the program: public items may point at private ones.
DENY_WARNINGS = {"RUSTDOCFLAGS": "-D warnings -A rustdoc::private_intra_doc_links"}

LINT = [
    cargo("fmt", "--all", "--check"),
    cargo("clippy", "--release", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"),
    cargo("doc", "--release", "--locked", "--workspace", "--no-deps", "--document-private-items", **DENY_WARNINGS),
]
if shutil.which("cargo-deny"):
    LINT.append(cargo("deny", "--locked", "check"))

UNIT = [
    cargo("test", "--release", "--locked", "--workspace", "--lib", "--bins"),
    cargo("test", "--release", "--locked", "--workspace", "--doc"),
]
ARCHITECTURE = [cargo("test", "--release", "--locked", "--test", "architecture")]

SIM = [cargo("test", "--release", "--locked", "--test", "sim", "--", "--seeds", "2000", "--seconds", "300")]
MODEL = [cargo("test", "--release", "--locked", "--test", "model")]
MUTANTS = [cargo("test", "--release", "--locked", "--features", "mutants", "--test", "sim", "--", "--mutants")]
POOLS = [cargo("test", "--release", "--locked", "-p", "drbdpool", "--tests", BLKREP_TEST_ROOT="1")]

# A new suite is one line here. Order: what fails soonest comes first.
SUITES = [
    Suite("lint", 12, CARGO_PACKAGES, LINT),
    Suite("architecture", 10, CARGO_PACKAGES, ARCHITECTURE),
    Suite("unit", 12, CARGO_PACKAGES, UNIT),
    Suite("model", 8, CARGO_PACKAGES, MODEL),
    Suite("sim", 12, CARGO_PACKAGES, SIM),
    Suite("mutants", 12, CARGO_PACKAGES, MUTANTS),
    Suite("pools", 8, CLUSTER_PACKAGES, POOLS),
    Suite("docker", 5, DOCKER_PACKAGES, [script("tests/docker/run.py")], needs_binary=True),
    Suite("vm", 9, [*CLUSTER_PACKAGES, "thin-provisioning-tools", "btrfs-progs", "nbd-client"], [script("tests/vm/run.py")], needs_binary=True),
    Suite("harness", 3, CLUSTER_PACKAGES, [script("tests/lib/selftest.py")]),
    Suite("cli", 10, CLI_PACKAGES, [script("tests/cli/run.py"), script("tests/cli/detail.py"), script("tests/cli/careless.py")], needs_binary=True),
    Suite("nbd", 8, CLUSTER_PACKAGES, [script("tests/nbd/on_blkrep.py")], needs_binary=True),
    Suite("cluster", 20, CLUSTER_PACKAGES, [script("tests/cluster/run.py")], needs_binary=True),
    Suite("chaos", 8, CLUSTER_PACKAGES, [script("tests/chaos/run.py", "--minutes", "4")], needs_binary=True),
]

BUILD = Suite("build", 12, CARGO_PACKAGES, [cargo("build", "--release", "--locked", "--bin", "blkrep", "--example", "faultfs")])
# Beyond the minutes that a long round is given: for the round that has begun when they are over, and to tidy up.
MARGIN = 6


def main():
    arguments = parse_arguments()
    if arguments.list:
        for suite in SUITES:
            print(f"{suite.name:14} {suite.minutes:4g} min")
        return 0
    suites = [suite for suite in SUITES if suite.name in arguments.suites] if arguments.suites else SUITES
    if arguments.minutes:
        suites = [longer(suite, arguments.minutes) if suite.name == "chaos" else suite for suite in suites]
    if any(suite.needs_binary for suite in suites):
        first = next(n for n, suite in enumerate(suites) if suite.needs_binary)
        suites = [*suites[:first], BUILD, *suites[first:]]
    if not arguments.no_install:
        install({package for suite in suites for package in suite.packages})
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    LOGS.mkdir(parents=True, exist_ok=True)
    try:
        return run_all(suites, arguments)
    finally:
        end_all(descendants())
        sweep()


def longer(suite, minutes):
    """A suite that is told how long to go on."""
    path = suite.commands[0].argv[2]
    return replace(suite, minutes=minutes + MARGIN, commands=[script(path, "--minutes", str(minutes))])


def parse_arguments():
    parser = argparse.ArgumentParser(prog="tests/run", description="Run the test suites, all of them unless some are named.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(suite.name for suite in SUITES))
    parser.add_argument("--list", action="store_true", help="list the suites and their budgets")
    parser.add_argument("--no-install", action="store_true", help="do not install missing Debian packages")
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first suite that fails")
    parser.add_argument("--verbose", action="store_true", help="show the output of every suite as it comes")
    parser.add_argument("--total-minutes", type=float, default=float("inf"), help="fail what has not finished by then")
    parser.add_argument("--minutes", type=float, help="let the chaos suite go on for so long")
    arguments = parser.parse_args()
    unknown = set(arguments.suites) - {suite.name for suite in SUITES}
    if unknown:
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are: {', '.join(suite.name for suite in SUITES)}")
    return arguments


def run_all(suites, arguments):
    passed = failed = 0
    deadline = time.monotonic() + arguments.total_minutes * 60
    for suite in suites:
        sweep()
        outcome = run(suite, deadline, arguments.verbose)
        passed += outcome.passed
        failed += outcome.failed
        print(f"{suite.name:14} {outcome.word:6} {outcome.seconds:7.1f} s   {outcome.detail}", flush=True)
        if outcome.word == "FAILED":
            show_tail(suite)
            if arguments.fail_fast or suite is BUILD:
                break
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


@dataclass
class Outcome:
    word: str
    seconds: float
    passed: int
    failed: int
    detail: str


def run(suite, deadline, verbose):
    """Runs the commands of a suite, one after the other, all of them even if one fails, until the budget is spent."""
    started = time.monotonic()
    limit = min(started + suite.minutes * 60, deadline)
    log = LOGS / f"{suite.name}.log"
    reasons = []
    with open(log, "wb") as output:
        for step in suite.commands:
            output.write(f"\n$ {' '.join(step.argv)}\n".encode())
            output.flush()
            reasons.append(execute(step, output, limit, verbose))
    seconds = time.monotonic() - started
    wrong = [reason for reason in reasons if reason]
    passed, failed, counted = count(log.read_bytes())
    skipped = None if counted else SKIPPED.search(log.read_bytes())
    if skipped and not wrong:
        return Outcome("skip", seconds, 0, 0, skipped[1].decode(errors="replace"))
    if not counted:
        passed, failed = len(reasons) - len(wrong), len(wrong)
    elif not wrong and passed + failed == 0:
        wrong = ["no test ran"]
    elif not wrong and failed:
        wrong = ["exit status 0 in spite of failures"]
    if wrong:
        return Outcome("FAILED", seconds, passed, max(failed, 1), f"{', '.join(wrong)}; log: {log.relative_to(ROOT)}")
    return Outcome("ok", seconds, passed, 0, f"{passed} passed")


def execute(step, output, limit, verbose):
    """Runs one command in a process group of its own. Returns what went wrong, empty if nothing did."""
    remaining = limit - time.monotonic()
    if remaining <= 0:
        return "out of time before it began"
    environment = {**os.environ, **step.environment}
    shown = subprocess.PIPE if verbose else output
    try:
        child = subprocess.Popen(
            step.argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=shown, stderr=subprocess.STDOUT, start_new_session=True
        )
    except OSError as error:
        output.write(f"{error}\n".encode())
        return str(error)
    tee = subprocess.Popen(["tee", "-a", output.name], stdin=child.stdout) if verbose else None
    try:
        status = child.wait(remaining)
        reason = "" if status == 0 else f"exit status {status}"
    except subprocess.TimeoutExpired:
        reason = "over budget"
        output.write(b"\nover budget: ended\n")
    finally:
        end_group(child)
        # Daemons that left the group are our orphans now.
        end_all(set(descendants()) - {tee.pid if tee else None})
        if tee:
            child.stdout.close()
            tee.wait()
    return reason


def end_group(child):
    """SIGTERM, so that a suite can tidy up; SIGKILL to the whole group when it does not."""
    if child.poll() is not None:
        return
    for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, 10)):
        try:
            os.killpg(child.pid, number)
            child.wait(patience)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def count(log):
    """The tests that a log tells of: passed, failed, and whether it told of any."""
    found = [*CARGO_COUNT.findall(log), *OWN_COUNT.findall(log)]
    return sum(int(ok) for ok, _ in found), sum(int(bad) for _, bad in found), bool(found)


def show_tail(suite):
    lines = (LOGS / f"{suite.name}.log").read_text(errors="replace").splitlines()
    for line in lines[-TAIL_LINES:]:
        print(f"    | {line}")


def install(packages):
    """Installs what is missing. A package that is there stays as it is: nothing is upgraded, downgraded or removed."""
    missing = sorted(package for package in packages if not installed(package))
    if not missing:
        return
    if os.geteuid() != 0:
        sys.exit(f"missing packages: {' '.join(missing)}; install them, or run as root")
    print(f"installing {' '.join(missing)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    LOGS.mkdir(parents=True, exist_ok=True)
    with open(LOGS / "install.log", "wb") as log:
        for command in (
            ["apt-get", "-q", "update"],
            ["apt-get", "-q", "-y", "install", "--no-install-recommends", "--no-upgrade", "--no-remove", *missing],
        ):
            if subprocess.call(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT) != 0:
                sys.exit(f"{' '.join(command)} failed; log: {log.name}")


def installed(package):
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    return subprocess.run(query, capture_output=True, text=True).stdout == "installed"


if __name__ == "__main__":
    sys.exit(main())
