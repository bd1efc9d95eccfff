#!/usr/bin/python3
"""Tries a running NBD server: byte-level cases, libnbd, and the tools that people use.

    tests/nbd/run.py --uri nbd+unix:///disk?socket=/run/nbd.sock
    tests/nbd/run.py --socket /run/nbd.sock --export disk --size 67108864 --only handshake

The export's contents are overwritten. A line for every case, and "N passed, N failed" at the end; exit status 1 if any failed.
"""

import argparse
import fnmatch
import signal
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

# Importing a file of cases registers them; the order here is that of running.
import cases_handshake  # noqa: E402, F401
import cases_tls  # noqa: E402, F401
import cases_requests  # noqa: E402, F401
import cases_status  # noqa: E402, F401
import cases_data  # noqa: E402, F401
import cases_abuse  # noqa: E402, F401
import cases_libnbd  # noqa: E402, F401
import cases_tools  # noqa: E402, F401
from case import Skipped, Target, all_cases  # noqa: E402
from wire import Address  # noqa: E402


def main():
    arguments = parse()
    cases = [case for case in all_cases() if wanted(case.name, arguments.only) and not unwanted(case.name, arguments.skip)]
    if arguments.list:
        for case in cases:
            print(f"{case.name:60} {case.doc.partition(chr(10))[0]}")
        return 0
    address = Address.of_uri(arguments.uri) if arguments.uri else Address(path=arguments.socket)
    if arguments.export is not None:
        address.export = arguments.export
    if arguments.tls_certificates:
        arguments.tls_certificates = str(Path(arguments.tls_certificates).resolve())
    target = Target.explore(address, arguments.size, arguments.tls_certificates, arguments.pid)
    print(f"{address.uri()}: {target.size} bytes, flags {target.flags:#06x}", flush=True)
    outcomes = [run(case, target) for case in cases]
    skipped = outcomes.count("skip")
    if skipped:
        print(f"{skipped} do not apply to this server")
    print(f"{outcomes.count('ok')} passed, {outcomes.count('FAIL')} failed")
    return 1 if "FAIL" in outcomes or "ok" not in outcomes else 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=not {"--list", "-h", "--help"} & set(sys.argv))
    where.add_argument("--uri", help="nbd://HOST:PORT/NAME, nbds://…, nbd+unix:///NAME?socket=PATH")
    where.add_argument("--socket", help="a unix socket")
    parser.add_argument("--export", help="the export's name; default: the URI's, or the empty one")
    parser.add_argument("--size", type=int, help="its size in bytes, which is then checked")
    parser.add_argument("--tls-certificates", metavar="DIR", help="ca-cert.pem, client-cert.pem, client-key.pem")
    parser.add_argument("--pid", type=int, help="the server's process, whose memory is then watched")
    parser.add_argument("--only", action="append", metavar="PART", help="cases with this in their name, or of this pattern")
    parser.add_argument("--skip", action="append", metavar="PART", help="not those")
    parser.add_argument("--list", action="store_true", help="list the cases")
    return parser.parse_args()


def wanted(name, parts):
    return not parts or any(part in name or fnmatch.fnmatch(name, part) for part in parts)


def unwanted(name, parts):
    return bool(parts) and wanted(name, parts)


class OutOfTime(BaseException):
    """Not an Exception, so that no case catches it."""


def run(case, target):
    """Runs one case; it passes if it raises nothing and the server still serves."""
    started = time.monotonic()
    signal.signal(signal.SIGALRM, out_of_time)
    detail = ""
    try:
        signal.setitimer(signal.ITIMER_REAL, case.seconds)
        if case.writes and target.is_read_only:
            raise Skipped("the export is read-only")
        case.function(target)
        target.check_alive()
        outcome = "ok"
    except Skipped as reason:
        outcome, detail = "skip", f" ({reason})"
    except OutOfTime:
        outcome, detail = "FAIL", f"\n     not finished after {case.seconds:g} s\n{where(sys.exc_info()[2])}"
    except Exception as error:
        outcome, detail = "FAIL", f"\n     {type(error).__name__}: {error}\n{where(error.__traceback__)}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    print(f"{outcome:4} {case.name} {time.monotonic() - started:.1f} s{detail}", flush=True)
    return outcome


def where(trace):
    """The lines of the case that led here."""
    frames = [frame for frame in traceback.extract_tb(trace) if Path(frame.filename).name != "run.py"]
    return "\n".join(f"     | {Path(frame.filename).name}:{frame.lineno} {frame.line}" for frame in frames)


def out_of_time(*_):
    raise OutOfTime


if __name__ == "__main__":
    sys.exit(main())
