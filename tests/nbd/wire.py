"""An NBD client made of bytes: it can say anything, also what no library would let it.

`Connection` has three layers, each usable alone: raw bytes (`send`, `receive`, `expect_end`), the handshake (`option`, `answers`,
`start`), and the transmission phase (`ask`, `reply`, `read`, `write` ...). Every reply is checked against the protocol as it is
read; a server that breaks it raises `Broken`.
"""

import contextlib
import socket
import ssl
import struct
import urllib.parse
from dataclasses import dataclass, field

GREETING = b"NBDMAGIC"
OPTION = b"IHAVEOPT"
REPLY_MAGIC = 0x3E889045565A9
REQUEST, EXTENDED_REQUEST = 0x25609513, 0x21E41C71
SIMPLE, STRUCTURED, EXTENDED = 0x67446698, 0x668E33EF, 0x6E8A278C

OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_PEEK, OPT_STARTTLS, OPT_INFO, OPT_GO = 1, 2, 3, 4, 5, 6, 7
OPT_STRUCTURED, OPT_LIST_META, OPT_SET_META, OPT_EXTENDED = 8, 9, 10, 11

ACK, SERVER, INFO, META = 1, 2, 3, 4
ERR = 1 << 31
ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_PLATFORM, ERR_TLS_REQD = ERR | 1, ERR | 2, ERR | 3, ERR | 4, ERR | 5
ERR_UNKNOWN, ERR_SHUTDOWN, ERR_BLOCK_SIZE_REQD, ERR_TOO_BIG, ERR_EXT_HEADER_REQD = ERR | 6, ERR | 7, ERR | 8, ERR | 9, ERR | 10

INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = 0, 1, 2, 3

HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, ROTATIONAL, SEND_TRIM, SEND_ZEROES = (1 << bit for bit in range(7))
SEND_DF, MULTI_CONN, SEND_CACHE, SEND_FAST_ZERO, STATUS_PAYLOAD = 1 << 7, 1 << 8, 1 << 10, 1 << 11, 1 << 12

READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = (1 << bit for bit in range(6))

NONE, DATA, HOLE, STATUS32, STATUS64 = 0, 1, 2, 5, 6
CHUNK_ERROR, CHUNK_ERROR_OFFSET = 0x8001, 0x8002

EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN = 1, 5, 12, 22, 28, 75, 95, 108
ERRORS = {EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN}

MAX_PAYLOAD = 32 << 20
MAX_STRING = 4096


class Broken(AssertionError):
    """The server broke the protocol."""


class Ended(ConnectionError):
    """The server closed the connection."""


# How the end of a connection shows itself in Python.
ENDS = (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


@dataclass
class Address:
    """Where a server listens: a unix socket, or a host and a port."""

    path: str | None = None
    host: str = "127.0.0.1"
    port: int = 10809
    export: str = ""
    tls: bool = False

    @classmethod
    def of_uri(cls, uri):
        parts = urllib.parse.urlsplit(uri)
        export = urllib.parse.unquote(parts.path.removeprefix("/"))
        tls = parts.scheme.startswith("nbds")
        if parts.scheme.endswith("+unix"):
            return cls(path=urllib.parse.parse_qs(parts.query)["socket"][0], export=export, tls=tls)
        if parts.scheme not in ("nbd", "nbds"):
            raise ValueError(f"'{uri}' is no NBD URI: nbd://, nbds://, nbd+unix:// and nbds+unix:// are")
        return cls(host=parts.hostname or "127.0.0.1", port=parts.port or 10809, export=export, tls=tls)

    def uri(self, export=None):
        name = urllib.parse.quote(self.export if export is None else export)
        scheme = "nbds" if self.tls else "nbd"
        if self.path:
            return f"{scheme}+unix:///{name}?socket={urllib.parse.quote(self.path)}"
        return f"{scheme}://{self.host}:{self.port}/{name}"

    def connect(self, timeout):
        if self.path:
            plug = socket.socket(socket.AF_UNIX)
            plug.settimeout(timeout)
            plug.connect(self.path)
        else:
            plug = socket.create_connection((self.host, self.port), timeout)
            plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return plug


@dataclass
class Reply:
    """A whole reply to a request: error 0, or the number and the text of the error."""

    cookie: int
    error: int = 0
    text: str = ""
    # READ: offset, bytes (None for a hole) and length of each content chunk.
    pieces: list = field(default_factory=list)
    # BLOCK_STATUS: (length, flags) of each extent, by context.
    status: dict = field(default_factory=dict)
    chunks: int = 0

    def data(self, offset, length):
        """The bytes of a READ. They must have been sent exactly once."""
        whole, seen = bytearray(length), bytearray(length)
        for at, data, size in self.pieces:
            if at < offset or at + size > offset + length:
                raise Broken(f"a chunk of {at}+{size} in a reply for {offset}+{length}")
            start = at - offset
            if any(seen[start : start + size]):
                raise Broken(f"bytes {at}+{size} were sent twice")
            seen[start : start + size] = b"\1" * size
            if data is not None:
                whole[start : start + size] = data
        if not all(seen):
            raise Broken(f"byte {offset + seen.index(0)} of {offset}+{length} was not sent")
        return bytes(whole)


class Connection:
    """A connection to a server, from the first byte."""

    def __init__(self, address, timeout=20.0, certificates=None):
        self.address, self.certificates = address, certificates
        self.plug = address.connect(timeout)
        self.structured = self.extended = self.no_zeroes = False
        self.contexts = {}
        self.size = self.flags = self.blocks = None
        self.cookie = 0
        # What a reply cannot be understood without: the length of each READ in flight, by cookie, in the order of asking.
        self.reads = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.plug.close()

    def reset(self):
        """Ends the connection the rude way."""
        self.plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.plug.close()

    # Bytes.

    def send(self, *parts):
        try:
            self.plug.sendall(b"".join(parts))
        except ENDS as error:
            raise Ended(f"while sending: {error}") from error

    def receive(self, count):
        data = bytearray(count)
        view, got = memoryview(data), 0
        while got < count:
            try:
                fresh = self.plug.recv_into(view[got:])
            except ENDS as error:
                raise Ended(f"after {got} of {count} bytes: {error}") from error
            if not fresh:
                raise Ended(f"after {got} of {count} bytes")
            got += fresh
        return bytes(data)

    def expect_end(self):
        """The server must close the connection, and say nothing more."""
        try:
            more = self.plug.recv(64)
        except ENDS:
            return
        except TimeoutError as error:
            raise Broken("the server did not close the connection") from error
        if more:
            raise Broken(f"the server said {more.hex()} where it should close the connection")

    def provoke(self, *parts):
        """Sends what must end the connection, which may end before all of it is sent."""
        with contextlib.suppress(Ended):
            self.send(*parts)
        self.expect_end()

    def fields(self, layout):
        return struct.unpack(layout, self.receive(struct.calcsize(layout)))

    # Handshake.

    def greet(self, flags=3):
        """Reads the greeting and answers with client flags (none if None)."""
        magic, option, offered = self.fields(">8s8sH")
        if (magic, option) != (GREETING, OPTION):
            raise Broken(f"the greeting is {magic + option}")
        self.offered = offered
        self.no_zeroes = bool(flags and flags & offered & 2)
        if flags is not None:
            self.send(struct.pack(">I", flags))
        return self

    def say(self, code, data=b"", length=None):
        """Sends an option, without waiting for its answer. `length` is a lie about the data's."""
        self.send(option_bytes(code, data, length))

    def answer(self):
        """One reply to an option: the option, its type and its data."""
        magic, option, kind, length = self.fields(">QIII")
        if magic != REPLY_MAGIC:
            raise Broken(f"an option reply begins with {magic:#x}")
        if length > MAX_STRING + 100:
            raise Broken(f"an option reply of {length} bytes")
        data = self.receive(length)
        if kind & ERR:
            data.decode()
        return option, kind, data

    def answers(self, code):
        """All replies to an option up to the one that ends them: a list of (type, data)."""
        found = []
        while True:
            option, kind, data = self.answer()
            if option != code:
                raise Broken(f"a reply to option {option} while {code} was asked")
            found.append((kind, data))
            if kind == ACK or kind & ERR:
                return found

    def option(self, code, data=b""):
        """Sends an option and returns the replies to it."""
        self.say(code, data)
        answers = self.answers(code)
        accepted = answers[-1][0] == ACK
        if code == OPT_STRUCTURED and accepted:
            self.structured = True
        elif code == OPT_EXTENDED and accepted:
            self.structured = self.extended = True
        elif code == OPT_SET_META:
            selected = [data for kind, data in answers if kind == META and accepted]
            self.contexts = {data[4:].decode(): struct.unpack(">I", data[:4])[0] for data in selected}
        return answers

    def verdict(self, code, data=b""):
        """The type of the last reply to an option."""
        return self.option(code, data)[-1][0]

    def start_tls(self):
        """STARTTLS and the TLS handshake. The server's name is not checked: tests connect by address."""
        if self.verdict(OPT_STARTTLS) != ACK:
            raise Broken("STARTTLS was refused")
        self.secure()

    def secure(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(f"{self.certificates}/ca-cert.pem")
        context.load_cert_chain(f"{self.certificates}/client-cert.pem", f"{self.certificates}/client-key.pem")
        self.plug = context.wrap_socket(self.plug)
        self.structured = self.extended = False
        self.contexts = {}

    def informations(self, code, export, kinds=(INFO_BLOCK_SIZE,)):
        """INFO or GO: the informations by kind, or None when refused."""
        answers = self.option(code, go_bytes(export, kinds))
        if answers[-1][0] != ACK:
            return None
        found = {}
        for kind, data in answers[:-1]:
            if kind != INFO:
                raise Broken(f"a reply of type {kind} to INFO or GO")
            (what,) = struct.unpack(">H", data[:2])
            if what in found:
                raise Broken(f"information {what} was sent twice")
            found[what] = data[2:]
        if INFO_EXPORT not in found:
            raise Broken("an export was accepted without size and flags")
        return found

    def go(self, export=None, kinds=(INFO_BLOCK_SIZE,)):
        found = self.informations(OPT_GO, self.address.export if export is None else export, kinds)
        if found is None:
            raise Broken("GO was refused")
        self.size, self.flags = struct.unpack(">QH", found[INFO_EXPORT])
        if INFO_BLOCK_SIZE in found:
            self.blocks = struct.unpack(">III", found[INFO_BLOCK_SIZE])
        return self

    # Transmission.

    def header(self, command, flags=0, offset=0, length=0, cookie=None, magic=None):
        """The bytes of a request, and its cookie."""
        if cookie is None:
            self.cookie += 1
            cookie = self.cookie
        if magic is None:
            magic = EXTENDED_REQUEST if self.extended else REQUEST
        return struct.pack(">IHHQQQ" if self.extended else ">IHHQQI", magic, flags, command, cookie, offset, length), cookie

    def ask(self, command, flags=0, offset=0, length=0, payload=b"", cookie=None):
        """Sends a request and returns its cookie. For a READ it is remembered how long the answer will be."""
        header, cookie = self.header(command, flags, offset, length, cookie)
        self.expect(command, cookie, offset, length)
        self.send(header, payload)
        return cookie

    def expect(self, command, cookie, offset, length):
        """For requests that were sent by other means than `ask`."""
        if command == READ:
            self.reads.setdefault(cookie, []).append((offset, length))

    def reply(self):
        """The next whole reply, of whatever request. Chunks of other requests must not come between (see `replies`)."""
        return self.replies({})

    def replies(self, partial):
        """Reads chunks until a reply is complete, and returns it. `partial` keeps the incomplete ones between calls."""
        while True:
            cookie, last = self.chunk(partial)
            if last:
                reply = partial.pop(cookie)
                self.finish(reply)
                return reply

    def finish(self, reply):
        asked = self.reads.get(reply.cookie)
        if asked:
            offset, length = asked.pop(0)
            if not reply.error:
                reply.data(offset, length)
        if reply.error and reply.error not in ERRORS:
            raise Broken(f"error number {reply.error}, which the protocol does not have")

    def chunk(self, partial):
        (magic,) = self.fields(">I")
        if magic == SIMPLE and not self.extended:
            return self.simple(partial)
        if magic == STRUCTURED and self.structured and not self.extended:
            flags, kind, cookie, length = self.fields(">HHQI")
        elif magic == EXTENDED and self.extended:
            flags, kind, cookie, _offset, length = self.fields(">HHQQQ")
        else:
            raise Broken(f"a reply begins with {magic:#x}")
        reply = partial.setdefault(cookie, Reply(cookie))
        reply.chunks += 1
        if length > MAX_PAYLOAD + 8:
            raise Broken(f"a chunk of {length} bytes")
        self.take(reply, kind, self.receive(length))
        if kind == NONE and not flags & 1:
            raise Broken("a chunk of nothing that is not the last")
        return cookie, bool(flags & 1)

    def simple(self, partial):
        error, cookie = self.fields(">IQ")
        reply = partial.setdefault(cookie, Reply(cookie))
        reply.error = error
        asked = self.reads.get(cookie)
        if asked:
            if self.structured:
                raise Broken("a simple reply to a READ after structured replies were agreed on")
            offset, length = asked[0]
            if not error:
                reply.pieces.append((offset, self.receive(length), length))
        return cookie, True

    def take(self, reply, kind, payload):
        if kind == NONE:
            if payload:
                raise Broken("a chunk of nothing with a payload")
        elif kind == DATA:
            if len(payload) < 9:
                raise Broken("a data chunk without data")
            reply.pieces.append((struct.unpack(">Q", payload[:8])[0], payload[8:], len(payload) - 8))
        elif kind == HOLE:
            offset, length = struct.unpack(">QI", payload)
            if not length:
                raise Broken("a hole of nothing")
            reply.pieces.append((offset, None, length))
        elif kind == (STATUS64 if self.extended else STATUS32):
            self.take_status(reply, payload)
        elif kind in (CHUNK_ERROR, CHUNK_ERROR_OFFSET):
            reply.error, size = struct.unpack(">IH", payload[:6])
            rest = 6 + size + (8 if kind == CHUNK_ERROR_OFFSET else 0)
            if not reply.error or len(payload) != rest or size > MAX_STRING:
                raise Broken(f"an error chunk of {payload.hex()}")
            reply.text = payload[6 : 6 + size].decode()
        else:
            raise Broken(f"a chunk of type {kind}")

    def take_status(self, reply, payload):
        start, size, layout = (8, 16, ">QQ") if self.extended else (4, 8, ">II")
        (context,) = struct.unpack(">I", payload[:4])
        extents = list(struct.iter_unpack(layout, payload[start:]))
        if not extents or any(not length for length, _ in extents):
            raise Broken("a status without extents, or with an extent of nothing")
        if self.extended and struct.unpack(">I", payload[4:8])[0] != len(extents):
            raise Broken("a status that does not count its extents")
        if context in reply.status or context not in self.contexts.values():
            raise Broken(f"a status of context {context}, which was not selected or was told already")
        reply.status[context] = extents

    # One request and its reply.

    def do(self, command, flags=0, offset=0, length=0, payload=b""):
        cookie = self.ask(command, flags, offset, length, payload)
        reply = self.reply()
        if reply.cookie != cookie:
            raise Broken(f"a reply to request {reply.cookie} while {cookie} was asked")
        return reply

    def pipeline(self, requests):
        """Many requests, given as (command, flags, offset, length, payload), in few big sends. Returns the replies in the order
        of the requests. What is unanswered always fits into the socket's buffers, so that a server that waits for its replies to
        be read before it reads more does not wait for ever."""
        replies, partial, flying = {}, {}, []
        cookies = []
        for burst in bursts(requests):
            parts, sent = [], []
            for command, flags, offset, length, payload in burst:
                header, cookie = self.header(command, flags, offset, length)
                self.expect(command, cookie, offset, length)
                parts += [header, payload]
                sent.append(cookie)
            self.send(*parts)
            for _ in flying:
                reply = self.replies(partial)
                replies[reply.cookie] = reply
            cookies += sent
            flying = sent
        for _ in flying:
            reply = self.replies(partial)
            replies[reply.cookie] = reply
        if set(replies) != set(cookies):
            raise Broken("replies to what was not asked")
        return [replies[cookie] for cookie in cookies]

    def write_all(self, writes):
        """Writes (offset, data) pairs, many at once."""
        for reply in self.pipeline([(WRITE, self.with_payload, offset, len(data), data) for offset, data in writes]):
            if reply.error:
                raise AssertionError(f"a write failed with error {reply.error} {reply.text}")

    def error(self, command, flags=0, offset=0, length=0, payload=b""):
        """The error number of a request, 0 for success."""
        return self.do(command, flags, offset, length, payload).error

    def must(self, command, flags=0, offset=0, length=0, payload=b""):
        reply = self.do(command, flags, offset, length, payload)
        if reply.error:
            raise AssertionError(f"command {command} of {offset}+{length}, flags {flags:#x}: error {reply.error} {reply.text}")
        return reply

    def read(self, offset, length, flags=0):
        return self.must(READ, flags, offset, length).data(offset, length)

    def write(self, offset, data, flags=0):
        self.must(WRITE, flags | self.with_payload, offset, len(data), data)

    def zero(self, offset, length, flags=0):
        self.must(ZEROES, flags, offset, length)

    def trim(self, offset, length, flags=0):
        self.must(TRIM, flags, offset, length)

    def flush(self):
        self.must(FLUSH)

    def status(self, offset, length, flags=0):
        """The extents of base:allocation."""
        reply = self.must(STATUS, flags, offset, length)
        extents = reply.status.get(self.contexts["base:allocation"])
        if len(reply.status) != len(self.contexts) or not extents:
            raise Broken(f"a status of {len(reply.status)} contexts, {len(self.contexts)} were selected")
        if sum(size for size, _ in extents[:-1]) >= length:
            raise Broken(f"extents {extents} beyond the {length} bytes asked for")
        return extents

    @property
    def with_payload(self):
        """The flag that every WRITE needs in extended mode."""
        return PAYLOAD_LEN if self.extended else 0

    def disconnect(self):
        self.send(self.header(DISC)[0])
        self.expect_end()


def bursts(requests, count=64, size=64 << 10):
    """Requests in groups of limited number and size."""
    group, total = [], 0
    for request in requests:
        if group and (len(group) == count or total + len(request[4]) > size):
            yield group
            group, total = [], 0
        group.append(request)
        total += len(request[4])
    if group:
        yield group


def option_bytes(code, data=b"", length=None):
    return struct.pack(">8sII", OPTION, code, len(data) if length is None else length) + data


def counted(data):
    data = data.encode() if isinstance(data, str) else data
    return struct.pack(">I", len(data)) + data


def go_bytes(export, kinds=()):
    return counted(export) + struct.pack(f">H{len(kinds)}H", len(kinds), *kinds)


def meta_bytes(export, *queries):
    return counted(export) + struct.pack(">I", len(queries)) + b"".join(map(counted, queries))
