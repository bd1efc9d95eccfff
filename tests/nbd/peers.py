#!/usr/bin/python3
"""Tries the cases on other NBD servers, to know that they hold for whoever keeps to the protocol, and that they can fail; and on
blkrep's own protocol code with a piece of memory behind it (`cargo build --example nbd_memory`).

    tests/nbd/peers.py [memory] [nbdkit] [nbdkit-tls] [qemu-nbd] [--only PART]

What a server is known to do otherwise is in DIVERGENCES, with the reason: it must fail there, and nothing else may.
"""

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import certificates  # noqa: E402
from case import Target, all_cases  # noqa: E402
from run import run, wanted  # noqa: E402
from wire import Address  # noqa: E402

SIZE = 64 << 20
MEMORY = ["--filter=exportname", "memory", str(SIZE), "exportname=disk", "exportname-strict=true", "exportname-list=explicit"]


def memory(folder):
    return [built("nbd_memory"), f"{folder}/socket", "disk", str(SIZE)], {}


def memory_read_only(folder):
    return [*memory(folder)[0], "--read-only"], {}


def memory_tls(folder):
    certificates.make(folder)
    return [*memory(folder)[0], "--tls", str(folder)], {"certificates": str(folder)}


def built(example):
    """The newest build of an example."""
    found = [path for path in (HERE.parents[1] / "target").glob(f"*/examples/{example}") if path.is_file()]
    if not found:
        raise SystemExit(f"{example} is not built; run: cargo build --example {example}")
    return str(max(found, key=lambda path: path.stat().st_mtime))


def nbdkit(folder):
    return ["nbdkit", "-f", "-U", f"{folder}/socket", *MEMORY], {}


def nbdkit_read_only(folder):
    return ["nbdkit", "-f", "-r", "-U", f"{folder}/socket", *MEMORY], {}


def nbdkit_tls(folder):
    certificates.make(folder)
    options = ["--tls=require", f"--tls-certificates={folder}", "--tls-verify-peer"]
    return ["nbdkit", "-f", *options, "-U", f"{folder}/socket", *MEMORY], {"certificates": str(folder)}


def qemu_nbd(folder):
    image = folder / "image"
    with open(image, "wb") as file:
        file.truncate(SIZE)
    options = ["-f", "raw", "-x", "disk", "-e", "0", "-t", "--cache=writeback", "--discard=unmap"]
    return ["qemu-nbd", *options, "-k", f"{folder}/socket", str(image)], {}


def qemu_nbd_tls(folder):
    certificates.make(folder)
    argv, _ = qemu_nbd(folder)
    tls = ["--object", f"tls-creds-x509,id=tls,endpoint=server,dir={folder},verify-peer=yes", "--tls-creds=tls"]
    return [argv[0], *tls, *argv[1:]], {"certificates": str(folder)}


SERVERS = {
    "memory": memory,
    "memory-read-only": memory_read_only,
    "memory-tls": memory_tls,
    "nbdkit": nbdkit,
    "nbdkit-read-only": nbdkit_read_only,
    "nbdkit-tls": nbdkit_tls,
    "qemu-nbd": qemu_nbd,
    "qemu-nbd-tls": qemu_nbd_tls,
}

# A divergence that depends on who is faster.
SOMETIMES = "sometimes "

# nbdkit 1.32.5 and qemu-nbd 10.0.2.
NBDKIT = {
    "inner_lengths_that_lie_are_invalid": "it closes the connection",
    "inner_lengths_of_context_queries_that_lie_are_invalid": "it closes the connection",
    "a_selection_that_fails_voids_the_one_before": "a selection of nothing keeps the one before",
    "reads_of_more_than_the_largest_payload": "it serves up to 64 MiB",
    "errors_explain_themselves": "its errors have no text",
    "clients_that_vanish_with_requests_in_flight": "sometimes it aborts: connections.c, raw_send_socket: sock >= 0",
}
NBDKIT_WRITABLE = {
    "disconnect_finishes_what_is_in_flight": "sometimes it answers ESHUTDOWN",
    "lengths_of_zero_do_nothing": "it refuses them",
    "libnbd_does_nothing_at_all": "it refuses requests of no bytes",
    "a_payload_of_a_little_more_than_the_largest": "it serves up to 64 MiB",
    "a_client_that_writes_and_never_reads_stalls_only_itself": "sometimes it aborts when the client is gone",
    "clients_that_vanish_with_writes_in_flight": "sometimes it aborts",
}
NBDKIT_TLS = {
    **NBDKIT,
    **NBDKIT_WRITABLE,
    **dict.fromkeys(
        [
            "writes_beyond_the_end_find_no_space",
            "offsets_that_overflow_are_beyond_the_end",
            "flags_that_do_not_belong_are_invalid",
            "payload_flag_is_unknown_without_extended_headers",
            "requests_that_are_nearly_right",
            "libnbd_is_refused_what_makes_no_sense",
        ],
        "within TLS it skips more than the payload of a refused write",
    ),
}
QEMU = {
    "strings_that_are_none_are_refused": "its error text repeats a name that is not UTF-8",
    "options_that_are_nearly_right": "its error text repeats a name that is not UTF-8",
    "inner_lengths_of_context_queries_that_lie_are_invalid": "it does not mind bytes behind the queries of a list",
    "writes_beyond_the_end_find_no_space": "EINVAL",
    "offsets_that_overflow_are_beyond_the_end": "EINVAL",
    "lengths_that_overflow_are_beyond_the_end": "EINVAL",
    "libnbd_is_refused_what_makes_no_sense": "EINVAL for writes beyond the end",
    "a_payload_for_status_that_was_not_offered_is_skipped": "it aborts: nbd_co_block_status_payload_read: contexts.exp == exp",
}
DIVERGENCES = {
    "nbdkit": {**NBDKIT, **NBDKIT_WRITABLE},
    "nbdkit-read-only": NBDKIT,
    "nbdkit-tls": NBDKIT_TLS,
    "qemu-nbd": QEMU,
    "qemu-nbd-tls": {**QEMU, "required_tls_comes_first": "ABORT is told to start TLS first"},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="*", metavar="SERVER", help=", ".join(SERVERS))
    parser.add_argument("--only", action="append", metavar="PART")
    arguments = parser.parse_args()
    # So that the servers are ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    outcomes = []
    for name in arguments.servers or SERVERS:
        print(f"== {name}", flush=True)
        with tempfile.TemporaryDirectory(prefix="nbd-peers-") as folder, Server(name, Path(folder)) as server:
            for case in all_cases():
                if wanted(case.name, arguments.only):
                    outcomes.append(judged(server, case))
    print(f"{outcomes.count('skip')} do not apply")
    print(f"{outcomes.count('ok')} passed, {outcomes.count('FAIL')} failed")
    return 1 if "FAIL" in outcomes or "ok" not in outcomes else 0


def judged(server, case):
    """Runs a case; failing is right where it is known."""
    server.revive()
    known = server.known.get(case.name)
    outcome = run(case, server.target)
    if outcome == "FAIL":
        # It may be dying, and must not hinder the next case.
        server.stop()
    if outcome == "FAIL" and known:
        print(f"     as known: {known}", flush=True)
        return "ok"
    if outcome == "ok" and known and not known.startswith(SOMETIMES):
        print(f"     it passed, though it is known not to: {known}", flush=True)
        return "FAIL"
    return outcome


class Server:
    """A server that is started again when a case has brought it down."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        self.known = DIVERGENCES.get(name, {})
        self.argv, self.more = SERVERS[name](folder)
        self.process = self.target = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()

    def revive(self):
        if self.process and self.process.poll() is None:
            return
        self.stop()
        socket = self.folder / "socket"
        socket.unlink(missing_ok=True)
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        address = Address(path=str(socket), export="disk", tls="certificates" in self.more)
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError):
                self.target = Target.explore(address, SIZE, self.more.get("certificates"), self.process.pid)
                self.target.patience = 5.0
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.argv[0]} does not serve; see {self.folder}/log")
            time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main())
