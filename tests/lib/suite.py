"""A suite: stories that run one after the other, each with a time limit and a clean end. Those that mostly wait run in a lane of their own,
beside the others.

    @story(minutes=2)
    def a_volume_survives_its_primary(scene):
        "One paragraph: what is done and what must hold."
        ...

    if __name__ == "__main__":
        sys.exit(run_stories())

A story fails by raising; `check` says what was expected. What it opens it hands to `scene.closes`, so that it is closed in any case.
"""

import argparse
import contextlib
import inspect
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import leftovers
import network
from processes import adopt_orphans, descendants, end_all

KEPT = Path(__file__).resolve().parents[2] / "target" / "test-logs"

# Whether there is time for all that a story can try; else it tries a part.
long = False
_stories = []
# Those of them that wait for most of their time.
_idle = set()
# Seconds that a lane has to tidy up when the suite is ended.
GRACE = 15


def story(minutes=2.0, idle=False):
    """Makes a function with a `scene` argument a story of the suite. An idle one waits for most of its time and disturbs no other: it
    runs beside them."""

    def register(function):
        _stories.append((function, minutes))
        if idle:
            _idle.add(function)
        return function

    return register


class Scene(contextlib.ExitStack):
    """Where a story takes place: a folder of its own, and a list of what has to be closed at its end."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def closes(self, thing):
        """Calls `thing.close()` when the story ends, last things first."""
        self.callback(thing.close)
        return thing

    def note(self, text):
        """A line for the log."""
        print(f"     {text}", flush=True)


class OutOfTime(Exception):
    """A story took longer than it may."""


def check(condition, expectation, *details):
    """Fails the story unless `condition` holds."""
    if not condition:
        raise AssertionError(": ".join([expectation, *map(str, details)]))


def wait_for(what, condition, seconds):
    """Calls `condition` until it answers something true, which is returned. An exception in it counts as "not yet"."""
    deadline = time.monotonic() + seconds
    pause = 0.005
    while True:
        trouble = None
        try:
            answer = condition()
            if answer:
                return answer
        except (AssertionError, OSError, KeyError, IndexError, ValueError, RuntimeError) as error:
            trouble = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}" + (f" ({trouble})" if trouble else ""))
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def chosen(parts):
    """The stories whose names have one of `parts`, all if there are none: (function, minutes)."""
    return [s for s in _stories if not parts or any(part in s[0].__name__ for part in parts)]


def run_stories():
    """Runs the stories named on the command line, or all. Returns the exit status."""
    # A shell starts what it puts into the background deaf to it, and so would be everything that is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser()
    parser.add_argument("stories", nargs="*", help="names, or parts of names")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--lane", choices=["idle", "busy"], help="only the stories that run in that lane when all are run")
    arguments = parser.parse_args()
    stories = chosen(arguments.stories)
    if arguments.lane:
        stories = [story for story in stories if (story[0] in _idle) == (arguments.lane == "idle")]
    if arguments.list:
        for function, minutes in stories:
            told = " ".join((inspect.getdoc(function) or "").split())
            print(f"{function.__name__:60} {minutes:4g} min  {told}")
        return 0
    prepare()
    if _idle and not arguments.stories and not arguments.lane:
        return run_in_lanes()
    failed = sum(not run(function, minutes) for function, minutes in stories)
    print(f"{len(stories) - failed} passed, {failed} failed")
    return 1 if failed or not stories else 0


def run_in_lanes():
    """Two processes share the suite. What the idle one says follows when the other has ended; each counts its own."""
    with tempfile.TemporaryFile("w+") as said:
        command = [sys.executable, "-u", sys.argv[0], "--lane"]
        lanes = [subprocess.Popen([*command, "idle"], stdout=said, stderr=subprocess.STDOUT), subprocess.Popen([*command, "busy"])]
        try:
            results = [lane.wait() for lane in reversed(lanes)]
        finally:
            end_lanes(lanes)
            said.seek(0)
            print(said.read(), end="", flush=True)
    return max(map(abs, results))


def end_lanes(lanes):
    for lane in lanes:
        lane.terminate()
    for lane in lanes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            lane.wait(GRACE)
    end_all(descendants())


def prepare():
    """Before the first story of a process."""
    adopt_orphans()
    leftovers.sweep()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def run(function, minutes):
    started = time.monotonic()
    folder = leftovers.new_folder()
    trouble = ""
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(max(1, int(minutes * 60)))
    try:
        with Scene(folder) as scene:
            function(scene)
            signal.alarm(0)
    except Exception:
        trouble = traceback.format_exc()
    finally:
        signal.alarm(0)
        tidy(folder, Path(function.__name__) if trouble else None)
    print(f"{'FAIL' if trouble else 'ok':4} {function.__name__} {time.monotonic() - started:.1f} s", flush=True)
    if trouble:
        print(trouble, flush=True)
    return not trouble


def out_of_time(*_):
    raise OutOfTime("the story is over its time limit")


def tidy(folder, keep_as):
    """Ends what is left of a story. After a failure the logs of its daemons are kept, and their ends shown."""
    end_all(descendants())
    # Before the logs are looked for: a file system whose server is gone cannot be walked through.
    leftovers.release(folder)
    if keep_as:
        kept = KEPT / keep_as
        shutil.rmtree(kept, ignore_errors=True)
        for log in sorted(folder.rglob("*.log")):
            copy = kept / log.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, copy)
            print(f"     -- the end of {copy}")
            for line in log.read_text(errors="replace").splitlines()[-15:]:
                print(f"     | {line}")
    network.remove_own()
    shutil.rmtree(folder, ignore_errors=True)
