"""Where messages come from: JSON lines in a file or on standard input, a serial port, and an MQTT broker.

Each source yields decoded messages. A file ends; ports and brokers do not. Invalid input is counted. The reader
connects again to a port or broker that is away.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import stat
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable

from . import errors, records, wire
from .addresses import Mqtt, Serial, refuse_scheme, without_password
from .errors import SourceError
from .follow import Position
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
    `FILE` or `file:FILE`: JSON lines of a file; with follow=True also what is added later, as `tail -F` does.
    `serial:PORT?baud=115200&wire=json`: a serial port, with the options of affectd's output; wire=json or wire=frame.
    `mqtt://[user@]host[:port][/base]?device=NAME`, `mqtts://…`: an MQTT broker; without device and base, all its devices. Further
    options are password_file, ca, cert and key.
    """

    def __init__(self, source: str, follow: bool = False):
        self._name = without_password(source)
        self.counters = Counters()
        self._sequences: dict[str | None, _Sequence] = {}
        self._closed = False
        self._connected = threading.Event()
        self._write: Callable[[str], None] | None = None
        self._may_repeat = source.startswith(("mqtt://", "mqtts://"))
        if self._may_repeat:
            self._messages = self._mqtt(Mqtt.parse(source))
        elif source.startswith("serial:"):
            self._messages = self._serial(Serial.parse(source))
        elif source == "-":
            self._messages = self._lines(self._standard_input())
        else:
            if not source.startswith("file:"):
                refuse_scheme(source)
            path = source.removeprefix("file:")
            _refuse_port(path)
            self._messages = self._lines(self._follow(path) if follow else self._file(path))

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
            raise SourceError(f"{self._name}: {errors.of_port(error)}") from None

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

    def _standard_input(self) -> Iterator[bytes]:
        try:
            return self._blocks(sys.stdin.buffer.raw)
        except AttributeError:
            raise SourceError("standard input is closed: connect it to a file or a program") from None

    def _file(self, path: str) -> Iterator[bytes]:
        try:
            # Without a buffer, so that lines of a pipe are passed on as they come. _blocks closes it.
            file = Path(path).open("rb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise SourceError(f"{path}: {errors.of_file(error)}") from None
        return self._blocks(file)

    def _blocks(self, file) -> Iterator[bytes]:
        with file:
            while block := self._read(file):
                yield block

    def _read(self, file) -> bytes:
        try:
            return file.read(MAX_LINE_BYTES)
        except OSError as error:
            raise SourceError(f"{self._name}: {errors.of_file(error)}") from None

    def _follow(self, path: str) -> Iterator[bytes]:
        reported = _Report(path)
        while not self._closed:
            try:
                file = Path(path).open("rb", buffering=0)  # noqa: SIM115 (the next lines may not be tried again)
            except IsADirectoryError as error:
                raise SourceError(f"{path}: {errors.of_file(error)}") from None
            except OSError as error:
                reported.trouble(errors.of_file(error))
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
        position = Position()
        while not self._closed:
            # Checked before reading, so that the old file is read to its end.
            replaced = not _is_same_file(path, file)
            while True:
                block = self._read(file)
                # Checked after reading: the block may be of a file that was just truncated and written again.
                if not position.is_in(file):
                    file.seek(0)
                    position = Position()
                    # A torn last line does not continue at the new beginning.
                    yield b"\n"
                elif block:
                    position.advance(block)
                    yield block
                else:
                    break
            if replaced:
                return
            time.sleep(POLL_S)

    # Serial ports.

    def _serial(self, options: Serial) -> Iterator[Message]:
        serial = _import("serial", "pyserial", "serial")
        blocks = self._port(serial, options)
        return self._frames(blocks) if options.wire == "frame" else self._lines(blocks, synchronized=False)

    def _port(self, serial, options: Serial) -> Iterator[bytes]:
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
            except (ValueError, OverflowError):
                raise SourceError(
                    f"{self._name}: the port does not have baud={options.baud}: use 115200, which works on nearly every port"
                ) from None
            except OSError as error:
                self._write = None
                self._connected.clear()
                _refuse_no_port(options.port)
                reported.trouble(errors.of_port(error))
                yield LOST
                time.sleep(RETRY_S)

    # MQTT.

    def _mqtt(self, options: Mqtt) -> Iterator[Message]:
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

    def _received(self, client, waiting: queue.Queue, options: Mqtt) -> Iterator[Message]:
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

    def _payload(self, topic: str, payload: bytes, options: Mqtt) -> Iterator[Message]:
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


def _import(module: str, package: str, extra: str):
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise SourceError(f"needs the package {package}: pip install 'affectd-reader[{extra}]'") from None


def _exclusive() -> bool | None:
    # Windows opens every port exclusively, and knows only None.
    return True if os.name == "posix" else None


def _refuse_port(path: str) -> None:
    """Raises SourceError for a serial port that is named like a file: it has a baud rate, and opening it could wait for ever."""
    name = os.path.basename(os.path.realpath(path))
    try:
        is_port = stat.S_ISCHR(os.stat(path).st_mode) and name.startswith("tty")
    except OSError:
        # What does not exist is reported when it is opened.
        return
    if is_port:
        raise SourceError(f"{path}: is a serial port: write serial:{path}")


def _refuse_no_port(path: str) -> None:
    """Raises SourceError if something is there that never becomes a port. Called after a failure, because opening a port resets
    some boards."""
    if os.name != "posix":
        return
    try:
        mode = os.stat(path).st_mode
    except OSError:
        # It may be plugged in later.
        return
    if stat.S_ISCHR(mode):
        what = "is not a serial port" if _is_no_terminal(path) else ""
    else:
        what = "is a folder" if stat.S_ISDIR(mode) else "is a file, not a serial port"
    if what:
        raise SourceError(f"{path}: {what}: name a port, for example serial:/dev/ttyUSB0")


def _is_no_terminal(path: str) -> bool:
    import termios

    try:
        device = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        termios.tcgetattr(device)
    except termios.error as error:
        # A port that was just unplugged has other errors.
        return error.args[0] in (errno.ENOTTY, errno.EINVAL)
    finally:
        os.close(device)
    return False


def _is_same_file(path: str, file) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except OSError:
        return False
