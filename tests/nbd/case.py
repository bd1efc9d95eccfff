"""Cases: functions that try one thing on a running server, and the target they try it on."""

import inspect
from dataclasses import dataclass

from wire import OPT_EXTENDED, OPT_SET_META, OPT_STRUCTURED, READ_ONLY, ACK, Address, Broken, Connection, meta_bytes

_cases = []


class Skipped(Exception):
    """The case does not apply to this server; the text says why."""


@dataclass
class Case:
    name: str
    doc: str
    function: object
    seconds: float
    writes: bool


def case(seconds=60.0, writes=True):
    """Registers a function with a `target` argument. `writes=False`: it also runs on a read-only export."""

    def register(function):
        name = function.__name__.removeprefix("_")
        _cases.append(Case(name, inspect.getdoc(function) or "", function, seconds, writes))
        return function

    return register


def all_cases():
    return list(_cases)


def check(condition, expectation, *details):
    if not condition:
        raise AssertionError(": ".join([expectation, *map(str, details)]))


def equal(found, expected, what="found"):
    if found != expected:
        raise AssertionError(f"{what}: {shown(found)} instead of {shown(expected)}")


def one_of(found, expected, what="found"):
    if found not in expected:
        raise AssertionError(f"{what}: {shown(found)} instead of one of {shown(expected)}")


def same_bytes(found, expected, offset):
    """Compares two byte strings and names the first byte that differs."""
    if found == expected:
        return
    equal(len(found), len(expected), "bytes read")
    at = next(n for n, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1])
    count = sum(a != b for a, b in zip(found, expected, strict=True))
    raise AssertionError(f"{count} bytes differ, first at {offset + at}: {found[at]:#04x} instead of {expected[at]:#04x}")


def shown(value):
    text = repr(value)
    return text if len(text) < 200 else text[:200] + "…"


MODES = ("simple", "structured", "extended")


@dataclass
class Target:
    """The server under test."""

    address: Address
    size: int
    flags: int = 0
    has_structured: bool = False
    has_extended: bool = False
    has_allocation: bool = False
    certificates: str | None = None
    needs_tls: bool = False
    pid: int | None = None
    # Seconds without a byte after which a server counts as stuck.
    patience: float = 20.0

    @classmethod
    def explore(cls, address, size=None, certificates=None, pid=None):
        """Looks at the server once, to know what applies to it."""
        target = cls(address, 0, certificates=certificates, needs_tls=address.tls, pid=pid)
        with target.greeted() as link:
            target.has_structured = link.verdict(OPT_STRUCTURED) == ACK
            target.has_extended = link.verdict(OPT_EXTENDED) == ACK
            if target.has_structured:
                link.option(OPT_SET_META, meta_bytes(address.export, "base:allocation"))
                target.has_allocation = "base:allocation" in link.contexts
            link.go()
            target.size, target.flags = link.size, link.flags
        if size is not None:
            equal(target.size, size, "the export's size")
        return target

    @property
    def export(self):
        return self.address.export

    @property
    def is_read_only(self):
        return bool(self.flags & READ_ONLY)

    def has(self, flag):
        return bool(self.flags & flag)

    def raw(self, timeout=None):
        """A connection on which nothing was said."""
        return Connection(self.address, timeout or self.patience, self.certificates)

    def greeted(self, flags=3, timeout=None):
        """A connection in option haggling, with TLS where the server insists on it."""
        link = self.raw(timeout).greet(flags)
        if self.needs_tls:
            link.start_tls()
        return link

    def open(self, mode="extended", allocation=True, timeout=None):
        """A connection in the transmission phase, in the given mode or the best below it."""
        link = self.greeted(timeout=timeout)
        if mode == "extended" and self.has_extended:
            equal(link.verdict(OPT_EXTENDED), ACK)
        elif mode != "simple" and self.has_structured:
            equal(link.verdict(OPT_STRUCTURED), ACK)
        if allocation and link.structured and self.has_allocation:
            link.option(OPT_SET_META, meta_bytes(self.export, "base:allocation"))
        return link.go()

    def modes(self):
        """A connection in each mode that the server has."""
        for mode in MODES:
            if (mode != "structured" or self.has_structured) and (mode != "extended" or self.has_extended):
                with self.open(mode) as link:
                    yield link

    def check_alive(self):
        """The server must serve a new client."""
        try:
            with self.open("simple") as link:
                equal(link.size, self.size, "the export's size")
                link.read(0, min(4096, self.size))
        except (OSError, Broken) as error:
            raise AssertionError(f"the server does not serve new clients any more: {error}") from error


def need(condition, what):
    """Skips the case unless the server can do `what`."""
    if not condition:
        raise Skipped(what)
