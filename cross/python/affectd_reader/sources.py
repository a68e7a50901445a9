"""Where messages come from: JSON lines in a file or on standard input, a serial port, and an MQTT broker.

Each source yields decoded messages. A file ends; ports and brokers do not. Invalid input is counted. The reader
connects again to a port or broker that is away.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable
from urllib.parse import parse_qsl, unquote, urlsplit

from . import records, wire
from .records import Estimate, InvalidMessage, Message, Status

log = logging.getLogger("affectd_reader")

RETRY_S = 0.5
POLL_S = 0.2
# More than any message has. A longer line is noise.
MAX_LINE_BYTES = 64 * 1024
# In a stream of bytes: what comes next does not continue what came before.
LOST = b""
# Ten minutes at ten estimates per second. What exceeds it is missing, and counted as such.
MAX_WAITING = 6000


class SourceError(Exception):
    """The source cannot be used as it is written: a mistake in it, or a package that is missing."""


@dataclass
class Counters:
    """What was read since the start."""

    estimates: int = 0
    missing: int = 0
    """Estimates that did not come: gaps in the sequence numbers."""
    repeated: int = 0
    """Estimates that came twice, which MQTT alone allows. Only the first is passed on."""
    restarts: int = 0
    """How often affectd began to count anew."""
    invalid: int = 0
    """Lines, frames and payloads that are not messages of affectd, or are damaged."""
    reconnects: int = 0
    """How often a port or broker came back."""


@dataclass
class _Sequence:
    """The sequence numbers of one board."""

    counters: Counters
    # Over MQTT, an estimate may come twice. Elsewhere, a number that comes again means that affectd counts anew.
    may_repeat: bool
    last: Estimate | None = None
    # Recent estimates, by number: an MQTT broker may send all again that a board had not seen acknowledged.
    recent: dict[int, Estimate] = field(default_factory=dict)

    def is_new(self, estimate: Estimate) -> bool:
        # The time alone does not tell a restart, because it may be unknown. The latency is that of each sending.
        last, identity = self.last, replace(estimate, latency_ms=None)
        if last is not None and estimate.seq != last.seq + 1:
            if estimate.seq > last.seq and estimate.t >= last.t:
                self.counters.missing += estimate.seq - last.seq - 1
            elif self.may_repeat and self.recent.get(estimate.seq) == identity:
                self.counters.repeated += 1
                return False
            else:
                self.counters.restarts += 1
                self.recent.clear()
        self.last = estimate
        if self.may_repeat:
            self.recent[estimate.seq] = identity
            if len(self.recent) > MAX_WAITING:
                del self.recent[next(iter(self.recent))]
        return True


class Reader:
    """Iterates over the messages of a source. Iterate once; it ends when a file does, or after close().

    `-`: JSON lines on standard input.
    `FILE`: JSON lines of a file; with follow=True also what is added later, as `tail -F` does.
    `serial:PORT?baud=115200&wire=json`: a serial port, with the options of affectd's output; wire=json or wire=frame.
    `mqtt://[user@]host[:port][/base]?device=NAME`, `mqtts://…`: an MQTT broker; without device and base, all its devices. Further
    options are password_file, ca, cert and key.
    """

    def __init__(self, source: str, follow: bool = False):
        self._name = _without_password(source)
        self.counters = Counters()
        self._sequences: dict[str | None, _Sequence] = {}
        self._closed = False
        self._connected = threading.Event()
        self._write: Callable[[str], None] | None = None
        scheme, separator, _ = source.partition("://")
        self._may_repeat = source.startswith(("mqtt://", "mqtts://"))
        if self._may_repeat:
            self._messages = self._mqtt(_Mqtt.parse(source))
        elif source.startswith("serial:"):
            self._messages = self._serial(_Serial.parse(source))
        elif separator and scheme.isalpha():
            raise SourceError(
                f"{self._name}: unknown kind of address: expected mqtt://, mqtts://, serial:, a file or -"
            )
        elif follow and source != "-":
            self._messages = self._lines(self._follow(source))
        else:
            self._messages = self._lines(self._file(source))

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Message]:
        with contextlib.closing(self._messages):
            for message in self._messages:
                if isinstance(message, Estimate):
                    sequence = self._sequences.setdefault(message.device, _Sequence(self.counters, self._may_repeat))
                    if not sequence.is_new(message):
                        continue
                    self.counters.estimates += 1
                yield message
                if self._closed:
                    break

    @property
    def connected(self) -> bool:
        """Whether the port is open, or the broker has confirmed the subscription."""
        return self._connected.is_set()

    def estimates(self) -> Iterator[Estimate]:
        """Only the estimates."""
        return (message for message in self if isinstance(message, Estimate))

    def send(self, command: str) -> None:
        """Sends a command such as `pause` or `health` to a serial port, or to the one device of an MQTT source.

        The answer comes as a message. Raises SourceError if the source cannot take commands or is not connected.
        """
        if self._write is None:
            raise SourceError(f"{self._name}: takes no commands now: it is not connected, or names no device")
        try:
            self._write(command)
        except OSError as error:
            raise SourceError(f"{self._name}: {error}") from None

    def close(self) -> None:
        """Ends the iteration. Within an iteration, it ends after the present message."""
        self._closed = True

    # Lines and bytes.

    def _lines(self, blocks: Iterator[bytes], synchronized: bool = True) -> Iterator[Message]:
        split = _LineSplitter(self._count_invalid, synchronized)
        for block in blocks:
            if block is LOST:
                split.lose()
            yield from self._parsed(split.feed(block))
        yield from self._parsed(split.end())

    def _parsed(self, lines: Iterator[bytes]) -> Iterator[Message]:
        for line in lines:
            try:
                yield records.parse(line)
            except InvalidMessage as error:
                self._count_invalid(error)

    def _frames(self, blocks: Iterator[bytes]) -> Iterator[Message]:
        reader, counted = wire.Reader(), 0
        for block in blocks:
            if block is LOST:
                reader, counted = wire.Reader(), 0
            for message in reader.feed(block):
                self.counters.invalid += reader.invalid - counted
                counted = reader.invalid
                if isinstance(message, str):
                    yield from self._parsed(iter([message.encode()]))
                    continue
                try:
                    yield Estimate.from_fields({**message, "time": None})
                except InvalidMessage as error:
                    self._count_invalid(error)
            self.counters.invalid += reader.invalid - counted
            counted = reader.invalid

    def _count_invalid(self, reason: object) -> None:
        self.counters.invalid += 1
        log.debug("%s: invalid: %s", self._name, reason)

    # Files.

    def _file(self, source: str) -> Iterator[bytes]:
        try:
            # Without a buffer, so that lines of a pipe are passed on as they come. _blocks closes it.
            file = sys.stdin.buffer.raw if source == "-" else Path(source).open("rb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise SourceError(f"{self._name}: {error.strerror}") from None
        except AttributeError:
            raise SourceError("standard input is closed: connect it to a file or a program") from None
        return self._blocks(file)

    def _blocks(self, file) -> Iterator[bytes]:
        with file:
            while block := self._read(file):
                yield block

    def _read(self, file) -> bytes:
        try:
            return file.read(MAX_LINE_BYTES)
        except OSError as error:
            raise SourceError(f"{self._name}: cannot be read: {error.strerror}") from None

    def _follow(self, path: str) -> Iterator[bytes]:
        reported = _Report(path)
        while not self._closed:
            try:
                file = Path(path).open("rb", buffering=0)  # noqa: SIM115 (the next lines may not be tried again)
            except OSError as error:
                reported.trouble(error.strerror)
                time.sleep(POLL_S)
                continue
            reported.well()
            with file:
                if not file.seekable():
                    raise SourceError(
                        f"{path}: is not a regular file, so it cannot be followed: read it without --follow"
                    )
                yield from self._until_replaced(path, file)
            # A torn last line does not continue in the next file.
            yield b"\n"

    def _until_replaced(self, path: str, file) -> Iterator[bytes]:
        while not self._closed:
            # Checked before reading, so that the old file is read to its end.
            replaced = not _is_same_file(path, file)
            while block := self._read(file):
                yield block
            if replaced:
                return
            if os.fstat(file.fileno()).st_size < file.tell():
                file.seek(0)
                yield b"\n"
                continue
            time.sleep(POLL_S)

    # Serial ports.

    def _serial(self, options: _Serial) -> Iterator[Message]:
        serial = _import("serial", "pyserial", "serial")
        blocks = self._port(serial, options)
        return self._frames(blocks) if options.wire == "frame" else self._lines(blocks, synchronized=False)

    def _port(self, serial, options: _Serial) -> Iterator[bytes]:
        reported = _Report(self._name)
        while not self._closed:
            try:
                with serial.serial_for_url(options.port, options.baud, timeout=POLL_S, exclusive=_exclusive()) as port:
                    self.counters.reconnects += reported.well()
                    self._write = lambda command: port.write(command.encode() + b"\n")
                    self._connected.set()
                    while not self._closed:
                        if block := port.read(max(1, port.in_waiting)):
                            yield block
            except (ValueError, OverflowError) as error:
                raise SourceError(f"{self._name}: {error}") from None
            except OSError as error:
                self._write = None
                self._connected.clear()
                reported.trouble(error)
                yield LOST
                time.sleep(RETRY_S)

    # MQTT.

    def _mqtt(self, options: _Mqtt) -> Iterator[Message]:
        paho = _import("paho.mqtt.client", "paho-mqtt", "mqtt")
        waiting: queue.Queue = queue.Queue(MAX_WAITING)
        reported = _Report(self._name)
        client = options.client(paho)

        def on_connect(client, _userdata, _flags, reason, _properties=None):
            if reason != 0:
                reported.trouble(paho.connack_string(reason) if isinstance(reason, int) else reason)
                return
            self.counters.reconnects += reported.well()
            client.subscribe([(f"{options.base}/{topic}", 1) for topic in ("estimate", "health", "status", "response")])

        def on_subscribe(*_arguments):
            self._connected.set()

        def on_disconnect(*_arguments):
            self._connected.clear()
            reported.trouble("connection lost")

        def on_message(_client, _userdata, message):
            # What is full drops the message, and the gap in the sequence counts it.
            with contextlib.suppress(queue.Full):
                waiting.put_nowait((message.topic, message.payload))

        client.on_connect, client.on_subscribe, client.on_disconnect = on_connect, on_subscribe, on_disconnect
        client.on_message = on_message
        if hasattr(client, "on_connect_fail"):
            client.on_connect_fail = lambda *_arguments: reported.trouble("no connection: check host, port and TLS")
        client.reconnect_delay_set(1, 5)
        client.connect_async(options.host, options.port, keepalive=30)
        if "+" not in options.base:
            self._write = lambda command: client.publish(f"{options.base}/command", command)
        return self._received(client, waiting, options)

    def _received(self, client, waiting: queue.Queue, options: _Mqtt) -> Iterator[Message]:
        client.loop_start()
        try:
            while not self._closed:
                try:
                    topic, payload = waiting.get(timeout=POLL_S)
                except queue.Empty:
                    continue
                yield from self._payload(topic, payload, options)
        finally:
            self._write = client.on_disconnect = None
            self._connected.clear()
            client.disconnect()
            client.loop_stop()

    def _payload(self, topic: str, payload: bytes, options: _Mqtt) -> Iterator[Message]:
        base, _, kind = topic.rpartition("/")
        device = options.name(base)
        if kind == "status":
            if payload in (b"online", b"offline"):
                yield Status(payload == b"online", device)
            # An empty payload deletes a retained message.
            elif payload:
                self._count_invalid(topic)
        elif payload:
            try:
                yield records.parse(payload, device)
            except InvalidMessage as error:
                self._count_invalid(f"{topic}: {error}")


class _LineSplitter:
    """Splits bytes into lines. A serial line may begin within a line: then it is not synchronized until the first line end."""

    def __init__(self, on_invalid: Callable[[object], None], synchronized: bool):
        self._on_invalid = on_invalid
        self._synchronized = synchronized
        self._rest = bytearray()
        self._too_long = False

    def feed(self, block: bytes) -> Iterator[bytes]:
        *lines, rest = block.split(b"\n")
        for line in lines:
            yield from self._line(line)
            self._synchronized = True
        self._append(rest)

    def end(self) -> Iterator[bytes]:
        return self._line(b"")

    def lose(self) -> None:
        self._rest.clear()
        self._too_long = self._synchronized = False

    def _append(self, piece: bytes) -> None:
        self._too_long |= len(self._rest) + len(piece) > MAX_LINE_BYTES
        if not self._too_long:
            self._rest += piece

    def _line(self, end: bytes) -> Iterator[bytes]:
        self._append(end)
        line, too_long = bytes(self._rest).strip(), self._too_long
        self._rest.clear()
        self._too_long = False
        if too_long:
            self._on_invalid("a line that is too long")
        # The rest of a line is not an error.
        elif line and (self._synchronized or line.startswith(b"{")):
            yield line


class _Report:
    """Logs why a source is away, once for each reason, and that it is back."""

    def __init__(self, source: str):
        self._source = source
        # Those logged since the source was last well: two may alternate for ever.
        self._reasons: set[str] = set()
        self._was_well = False

    def trouble(self, reason: object) -> None:
        reason = str(reason)
        if reason not in self._reasons:
            log.warning("%s: %s: trying again", self._source, reason)
        self._reasons.add(reason)

    def well(self) -> bool:
        """Returns whether the source was connected before."""
        was_well, self._was_well = self._was_well, True
        if self._reasons:
            log.warning("%s: connected", self._source)
        self._reasons.clear()
        return was_well


@dataclass(frozen=True)
class _Serial:
    port: str
    baud: int
    wire: str

    @classmethod
    def parse(cls, source: str) -> _Serial:
        port, _, query = source[len("serial:") :].partition("?")
        options = _options(source, query, {"baud": "115200", "wire": "json"})
        if options["wire"] not in ("json", "frame"):
            raise SourceError(f"{source}: wire={options['wire']}: must be json or frame")
        if not options["baud"].isdecimal():
            raise SourceError(f"{source}: baud={options['baud']}: must be a number")
        if not port:
            raise SourceError(f"{source}: names no port, for example serial:/dev/ttyUSB0")
        return cls(port, int(options["baud"]), options["wire"])


@dataclass(frozen=True)
class _Mqtt:
    host: str
    port: int
    base: str
    """The topics' beginning, with + for any device."""
    tls: bool
    user: str | None
    password: str | None
    ca: str
    cert: str
    key: str

    @classmethod
    def parse(cls, source: str) -> _Mqtt:
        shown = _without_password(source)
        try:
            url = urlsplit(source)
            port = url.port
        except ValueError:
            # The error of urlsplit may quote a part of the password.
            raise SourceError(
                f"{shown}: is not an address: the port is a number, and /, # and ? in a password are %2F, %23 and %3F"
            ) from None
        options = _options(shown, url.query, {"device": "", "password_file": "", "ca": "", "cert": "", "key": ""})
        base = url.path.strip("/")
        if base and options["device"]:
            raise SourceError(f"{shown}: give a base or a device, not both")
        if not url.hostname:
            raise SourceError(f"{shown}: names no broker, for example mqtt://broker.lan")
        try:
            url.hostname.encode("idna")
        except UnicodeError:
            raise SourceError(f"{shown}: {url.hostname!r} is not a host name") from None
        if any(sign in base + options["device"] for sign in "+#"):
            raise SourceError(f"{shown}: a base or a device has no + and no #: leave it out for all boards")
        password = unquote(url.password) if url.password else None
        if options["password_file"]:
            try:
                password = Path(options["password_file"]).read_text().rstrip("\n")
            except OSError as error:
                raise SourceError(f"{options['password_file']}: {error.strerror}") from None
            except UnicodeDecodeError:
                raise SourceError(
                    f"{options['password_file']}: is not text: write the password into a text file"
                ) from None
        tls = url.scheme == "mqtts"
        return cls(
            host=url.hostname,
            port=port or (8883 if tls else 1883),
            base=base or f"affectd/{options['device'] or '+'}",
            tls=tls,
            user=unquote(url.username) if url.username else None,
            password=password,
            ca=options["ca"],
            cert=options["cert"],
            key=options["key"],
        )

    def client(self, paho):
        version = getattr(paho, "CallbackAPIVersion", None)  # Since paho-mqtt 2.
        client = paho.Client(version.VERSION2) if version else paho.Client()
        if self.user is not None:
            client.username_pw_set(self.user, self.password)
        if self.tls:
            try:
                context = ssl.create_default_context(cafile=self.ca or None)
                if self.cert:
                    context.load_cert_chain(self.cert, self.key or None)
            except OSError as error:
                raise SourceError(f"the files of ca=, cert= and key=: {error}") from None
            client.tls_set_context(context)
        return client

    def name(self, base: str) -> str:
        """The device of a topic."""
        return base[len("affectd/") :] if base.startswith("affectd/") else base


def _without_password(source: str) -> str:
    """The source for messages: an address may have a password in it."""
    scheme, separator, rest = source.partition("://")
    if separator:
        return scheme + separator + rest.rpartition("@")[2]
    # An address without its slashes.
    is_address = source.lower().startswith(("mqtt:", "mqtts:", "http:", "https:")) and "@" in source
    return f"{source.partition(':')[0]}:…@{source.rpartition('@')[2]}" if is_address else source


def _options(source: str, query: str, defaults: dict[str, str]) -> dict[str, str]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    unknown = [name for name in given if name not in defaults]
    if unknown:
        raise SourceError(f"{source}: unknown option {unknown[0]}: expected {', '.join(defaults)}")
    return {**defaults, **given}


def _import(module: str, package: str, extra: str):
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise SourceError(f"needs the package {package}: pip install 'affectd-reader[{extra}]'") from None


def _exclusive() -> bool | None:
    # Windows opens every port exclusively, and knows only None.
    return True if os.name == "posix" else None


def _is_same_file(path: str, file) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except OSError:
        return False
