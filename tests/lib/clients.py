"""NBD clients from outside: libnbd, nbdcopy, nbdinfo, fio. Each takes a URI and, if given, lives in a node's network namespace."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import nbd


class ClientFailed(RuntimeError):
    """A client ended with an error."""


def unix_uri(socket, export=""):
    return f"nbd+unix:///{export}?socket={socket}"


def tcp_uri(address, export="", port=10809):
    return f"nbd://{address}:{port}/{export}"


def copy(source, target, *, flush=True, enter=None, seconds=120):
    """nbdcopy, between two of: a file, a URI. Returns when all is written, and flushed if `flush`."""
    options = ["--flush"] if flush else []
    output(["nbdcopy", *options, str(source), str(target)], enter=enter, seconds=seconds)


def size(uri, *, enter=None):
    """The size that an export announces, in bytes."""
    return int(output(["nbdinfo", "--size", uri], enter=enter))


def output(command, *, enter=None, seconds=60):
    """Runs a client and returns its standard output."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, preexec_fn=enter, timeout=seconds
    )
    if done.returncode != 0:
        raise ClientFailed(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def connect(uri):
    """A connection to an export, as a handle of libnbd."""
    handle = nbd.NBD()
    handle.connect_uri(uri)
    return handle


@dataclass
class Latency:
    """In microseconds."""

    median: float
    p99: float


@dataclass
class FioResult:
    """One direction of a fio job."""

    operations: int
    iops: float
    megabytes: float
    latency: Latency
    errors: int


def fio(arguments, folder, *, enter=None, seconds=300):
    """Runs fio with `arguments` (a dictionary of job options) and returns its job as JSON tells it."""
    return finish_fio(start_fio(arguments, folder, enter=enter), seconds)


def start_fio(arguments, folder, *, enter=None):
    """Starts fio and leaves it running; `finish_fio` waits for it."""
    report = Path(folder) / "fio.json"
    report.unlink(missing_ok=True)
    options = [f"--{key}={value}" for key, value in arguments.items()]
    command = ["fio", "--name=job", "--output-format=json", f"--output={report}", *options]
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=enter
    )
    process.report = report
    return process


def finish_fio(process, seconds=300, interrupted=False):
    """Waits for fio; `interrupted` if it was told to stop by SIGINT, of which it also tells by its exit status."""
    said, _ = process.communicate(timeout=seconds)
    if process.returncode != (128 if interrupted else 0):
        raise ClientFailed(f"{' '.join(process.args)}: exit status {process.returncode}\n{said}")
    text = process.report.read_text()
    # Notes come before the JSON in some versions.
    job = json.loads(text[text.index("{") :])["jobs"][0]
    if job["error"]:
        raise ClientFailed(f"fio: error {job['error']}\n{said}")
    return job


def fio_result(job, direction):
    """The numbers of `direction`, "read" or "write", of a job."""
    part = job[direction]
    percentiles = part["clat_ns"].get("percentile", {})
    latency = Latency(percentiles.get("50.000000", 0) / 1000, percentiles.get("99.000000", 0) / 1000)
    return FioResult(part["total_ios"], part["iops"], part["bw_bytes"] / 1e6, latency, job["error"])
