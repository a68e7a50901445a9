"""Sources: files that grow and are rotated, a pseudo-terminal as a serial port, and a real mosquitto."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tty
import unittest
from pathlib import Path

import paho.mqtt.client as paho
import serial
from affectd_reader import Answer, Estimate, Health, Reader, SourceError, Status, sources
from affectd_reader.__main__ import readable
from affectd_reader.records import parse

from tests.test_records import FULL, HEALTH
from tests.test_wire import DOCUMENTED

PACKAGE = Path(__file__).parents[1]


def line(seq, **changes):
    """An estimate with this number, at five per second."""
    return json.dumps({**json.loads(FULL), "seq": seq, "t": seq / 5, **changes}) + "\n"


def numbers(messages):
    return [message.seq for message in messages]


class FileTests(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "estimates.jsonl"

    def read(self, text):
        self.path.write_bytes(text.encode() if isinstance(text, str) else text)
        reader = Reader(str(self.path))
        return list(reader), reader.counters

    def test_gaps_are_counted(self):
        messages, counters = self.read(line(1) + line(2) + line(5) + line(9))
        self.assertEqual((numbers(messages), counters.missing, counters.estimates), ([1, 2, 5, 9], 5, 4))

    def test_a_first_number_other_than_one_is_not_a_gap(self):
        _, counters = self.read(line(1000) + line(1001))
        self.assertEqual(counters.missing, 0)

    def test_a_restart_with_the_same_times_loses_nothing(self):
        messages, counters = self.read((line(1, time=None) + line(2, time=None) + line(3, time=None)) * 2)
        self.assertEqual(
            (numbers(messages), counters.restarts, counters.repeated, counters.missing), ([1, 2, 3, 1, 2, 3], 1, 0, 0)
        )

    def test_a_repeated_estimate_of_a_broker_is_passed_on_once(self):
        counters = sources.Counters()
        sequence = sources._Sequence(counters, may_repeat=True)
        sent = [parse(line(seq, latency_ms=latency)) for latency, seq in enumerate([1, 2, 3, 2, 3, 4])]
        self.assertEqual(numbers(e for e in sent if sequence.is_new(e)), [1, 2, 3, 4])
        self.assertEqual((counters.repeated, counters.missing, counters.restarts), (2, 0, 0))

    def test_a_restart_of_a_board_without_time_is_no_repetition(self):
        counters = sources.Counters()
        sequence = sources._Sequence(counters, may_repeat=True)
        first = [parse(line(seq, time=None)) for seq in (1, 2, 3)]
        second = [parse(line(seq, time=None, valence=0.11)) for seq in (1, 2, 3)]
        self.assertTrue(all(sequence.is_new(estimate) for estimate in first + second))
        self.assertEqual((counters.repeated, counters.restarts), (0, 1))

    def test_values_that_no_estimate_has_are_invalid(self):
        changes = [{"t": 10**400}, {"valence": 77}, {"arousal": None}, {"schema": True}, {"confidence": -0.1}]
        texts = [line(2, **change) for change in changes] + [line(2, valence=float("nan")), line(2, t=float("inf"))]
        messages, counters = self.read(line(1) + "".join(texts) + line(2))
        self.assertEqual((numbers(messages), counters.invalid), ([1, 2], len(texts)))

    def test_what_could_control_the_terminal_is_escaped(self):
        expression = {"\x1b]0;title\x07\u202e\ud800": 0.9}
        text = readable(parse(line(1, expression=expression)))
        self.assertTrue(text.endswith("\\u001b]0;title\\u0007\\u202e\\ud800"), text)

    def test_mistakes_in_addresses_show_no_password(self):
        wrong = ["mqttt://u:SECRET@h", "http://u:SECRET@h", "mqtt:u:SECRET@h", "MQTT:u:SECRET@h", "mqtt://u:SEC/RET@h"]
        for source in [*wrong, "mqtt://a..b", "mqtt://h?device=%23"]:
            with self.assertRaises(SourceError) as raised:
                list(Reader(source))
            self.assertNotRegex(str(raised.exception), "SEC|RET")

    def test_a_restart_is_not_a_gap(self):
        messages, counters = self.read(line(7, t=100) + line(8, t=100.2) + line(1) + line(2) + line(30))
        self.assertEqual((numbers(messages), counters.restarts, counters.missing), ([7, 8, 1, 2, 30], 1, 27))

    def test_a_restart_that_is_noticed_late_is_not_a_gap(self):
        _, counters = self.read(line(7, t=100) + line(30))
        self.assertEqual((counters.restarts, counters.missing), (1, 0))

    def test_invalid_lines_are_counted_and_do_not_end_it(self):
        noise = b'\xff\xfe\n{"schema":1}\n' + b"x" * 200_000 + b"\n[]\n\n\r\n"
        messages, counters = self.read(line(1).encode() + noise + line(2).encode() + line(3)[:50].encode())
        self.assertEqual((numbers(messages), counters.invalid, counters.missing), ([1, 2], 5, 0))

    def test_a_last_line_without_its_end_is_read(self):
        messages, counters = self.read(line(1) + line(2).strip())
        self.assertEqual((numbers(messages), counters.invalid), ([1, 2], 0))

    def test_a_followed_file_may_appear_grow_be_rotated_and_be_emptied(self):
        messages = iter(reader := Reader(str(self.path), follow=True))
        self.addCleanup(messages.close)
        received = []

        def expect(*seqs):
            received.extend(next(messages).seq for _ in seqs)
            self.assertEqual(received[-len(seqs) :], list(seqs))

        threading.Timer(0.3, self.path.write_text, [line(1) + line(2)]).start()
        expect(1, 2)
        file = self.path.open("a")
        file.write(line(3)[:40])
        file.flush()
        file.write(line(3)[40:])
        file.flush()
        expect(3)
        # affectd renames a full file and goes on in a new one.
        self.path.rename(self.path.with_suffix(".1"))
        file.write(line(4))
        file.close()
        self.path.write_text(line(5))
        expect(4, 5)
        self.path.write_text("")
        threading.Timer(0.5, self.path.write_text, [line(6)]).start()
        expect(6)
        self.assertEqual((reader.counters.missing, reader.counters.invalid), (0, 0))

    def test_a_file_that_is_not_there_is_an_error_at_once(self):
        with self.assertRaisesRegex(SourceError, r"estimates.jsonl: does not exist: check the path"):
            Reader(str(self.path))

    def test_a_file_that_is_copied_and_truncated_loses_nothing(self):
        messages = iter(reader := Reader(f"file:{self.path}", follow=True))
        self.addCleanup(messages.close)
        self.path.write_text(line(1) + line(2))
        self.assertEqual([next(messages).seq, next(messages).seq], [1, 2])
        # As logrotate's copytruncate: affectd goes on in the same file, which soon is as long as before, and then longer.
        for first in (3, 6):
            shutil.copy(self.path, self.path.with_suffix(".1"))
            self.path.write_text(line(first) + line(first + 1) + line(first + 2))
            self.assertEqual([next(messages).seq for _ in range(3)], [first, first + 1, first + 2])
        self.assertEqual((reader.counters.missing, reader.counters.invalid), (0, 0))

    def test_what_is_no_file_is_refused_at_once_with_what_to_do(self):
        board, port = os.openpty()
        self.addCleanup(os.close, board)
        self.addCleanup(os.close, port)
        folder, link = self.path.parent, self.path.with_name("ttyUSB0")
        link.symlink_to(os.ttyname(port))
        for follow in (False, True):
            with self.assertRaises(SourceError) as raised:
                list(Reader(str(folder), follow=follow))
            self.assertEqual(str(raised.exception), f"{folder}: is a folder: name a file in it")
        with self.assertRaisesRegex(SourceError, r"/dev/tty: is a serial port: write serial:/dev/tty$"):
            Reader("/dev/tty")

    def test_other_schemes_are_named_with_the_right_one(self):
        for source, reason in (
            (
                "MQTT://broker",
                "MQTT://broker: unknown kind of address: write mqtt://HOST, in small letters and with two slashes",
            ),
            (
                "mqtts:broker",
                "mqtts:broker: unknown kind of address: write mqtts://HOST, in small letters and with two slashes",
            ),
            ("http://broker", "http://broker: http:// is not an MQTT broker: write mqtt://HOST"),
            ("wss://broker", "wss://broker: wss:// is not an MQTT broker: write mqtts://HOST"),
            (
                "ftp://host",
                "ftp://host: unknown kind of address: expected mqtt://, mqtts://, serial:, file:, a file or -",
            ),
        ):
            with self.assertRaises(SourceError) as raised:
                Reader(source)
            self.assertEqual(str(raised.exception), reason)

    def run_program(self, *arguments, text):
        command = [sys.executable, "-B", "-m", "affectd_reader", *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, cwd=PACKAGE, check=False)

    def test_program_passes_json_lines_on_unchanged(self):
        done = self.run_program("-", "--json", text=FULL + "\nnoise\n" + HEALTH + "\n")
        self.assertEqual(
            [json.loads(text) for text in done.stdout.splitlines()], [json.loads(FULL), json.loads(HEALTH)]
        )
        self.assertEqual(done.stderr, "1 estimates, 0 missing, 0 repeated, 0 restarts, 1 invalid, 0 reconnects\n")

    def test_program_says_what_is_wrong_with_a_source(self):
        for source, reason in (
            ("serial:/dev/null?wire=xml", "wire=xml: must be json or frame"),
            ("serial:/dev/null?speed=9600", "unknown option speed: expected baud, wire"),
            ("mqtt://bob:secret@h/base?device=x", "mqtt://h/base?device=x: give a base or a device, not both"),
            ("/no/file", "/no/file: does not exist: check the path"),
        ):
            done = self.run_program(source, text="")
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertIn(reason, done.stderr)
            self.assertNotIn("secret", done.stderr)


class SerialTests(unittest.TestCase):
    def test_what_is_no_port_is_refused_at_once(self):
        mend = ": name a port, for example serial:/dev/ttyUSB0"
        for path, what in (
            ("/dev/null", "is not a serial port"),
            (tempfile.gettempdir(), "is a folder"),
            (__file__, "is a file, not a serial port"),
        ):
            with self.assertRaises(SourceError) as raised:
                list(Reader(f"serial:{path}"))
            self.assertEqual(str(raised.exception), f"{path}: {what}{mend}")

    def test_a_port_that_another_program_uses_is_named_and_tried_again(self):
        board, port = self.open_port()
        self.addCleanup(os.close, board)
        other = serial.Serial(port, exclusive=True)
        messages = iter(reader := Reader(f"serial:{port}"))
        self.addCleanup(messages.close)
        when_connected(reader, lambda: os.write(board, b"\n" + line(1).encode()))
        with self.assertLogs(sources.log) as logged:
            threading.Timer(0.3, other.close).start()
            self.assertEqual(next(messages).seq, 1)
        self.assertIn("is in use by another program: stop that program", logged.output[0])

    def open_port(self):
        board, port = os.openpty()
        tty.setraw(port)
        self.addCleanup(os.close, port)
        return board, os.ttyname(port)

    def test_frames_and_answers_are_read_and_commands_written(self):
        board, port = self.open_port()
        self.addCleanup(os.close, board)
        reader = Reader(f"serial:{port}?wire=frame")
        when_connected(reader, lambda: os.write(board, DOCUMENTED[0][10:] + DOCUMENTED[1]))
        messages = iter(reader)
        self.addCleanup(messages.close)
        self.assertEqual(next(messages).seq, 1)
        reader.send("ping")
        self.assertEqual(os.read(board, 100), b"ping\n")
        os.write(board, b"\1\2\0" + DOCUMENTED[2] + DOCUMENTED[0])
        self.assertEqual(next(messages), Answer({"ok": "pong"}))
        estimate = next(messages)
        self.assertEqual((estimate.valence, estimate.time, reader.counters.invalid), (0.42, None, 1))

    def test_a_port_that_comes_back_is_opened_again(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        name = Path(folder.name) / "ttyUSB0"
        reader = Reader(f"serial:{name}")
        messages = iter(reader)
        self.addCleanup(messages.close)

        def plug_in(text):
            board, port = self.open_port()
            name.unlink(missing_ok=True)
            name.symlink_to(port)
            when_connected(reader, lambda: os.write(board, text.encode()))
            return board

        with self.assertLogs(sources.log) as logged:
            # The port appears after the start. Its first bytes are the rest of a line.
            boards = []
            threading.Timer(0.3, lambda: boards.append(plug_in("null}\n" + line(1)))).start()
            self.assertEqual(next(messages).seq, 1)
            os.close(boards[0])
            threading.Timer(0.3, lambda: boards.append(plug_in("\n" + line(4)))).start()
            self.assertEqual(next(messages).seq, 4)
            self.addCleanup(os.close, boards[1])
        self.assertIn("not plugged in: plug it in, or list the ports", logged.output[0])
        counters = reader.counters
        self.assertEqual((counters.missing, counters.reconnects, counters.invalid), (2, 1, 0))


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def when_connected(reader, act):
    """Acts in another thread, once the reader is connected. A port drops what it received before it was opened."""

    def wait():
        while not reader.connected:
            time.sleep(0.01)
        act()

    threading.Thread(target=wait, daemon=True).start()


class Broker:
    """A mosquitto on a free port."""

    def __init__(self, case, port=None):
        self.port = port or free_port()
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        self.process = subprocess.Popen([program, "-p", str(self.port)], stderr=subprocess.PIPE, text=True)
        case.addCleanup(self.stop)
        # It listens when it says that it runs.
        while not self.process.stderr.readline().endswith(" running\n"):
            pass
        self.log = threading.Thread(target=self.process.stderr.read)
        self.log.start()

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.log.join()
        self.process.stderr.close()

    def client(self):
        version = getattr(paho, "CallbackAPIVersion", None)
        client = paho.Client(version.VERSION2) if version else paho.Client()
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        return client

    def publish(self, topic, payload, retain=False):
        client = self.client()
        client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(10)
        client.disconnect()
        client.loop_stop()


class MqttTests(unittest.TestCase):
    def test_two_boards_have_their_own_sequences(self):
        broker = Broker(self)
        broker.publish("affectd/desk/status", "online", retain=True)
        reader = Reader(f"mqtt://127.0.0.1:{broker.port}")
        messages = iter(reader)
        self.addCleanup(messages.close)
        # The retained status shows that the reader has subscribed.
        self.assertEqual(next(messages), Status(True, "desk"))
        for device, seq in (("desk", 10), ("door", 70), ("desk", 11), ("door", 73)):
            broker.publish(f"affectd/{device}/estimate", line(seq))
        broker.publish("affectd/desk/estimate", "noise")
        broker.publish("affectd/desk/health", HEALTH)
        received = [next(messages) for _ in range(5)]
        self.assertEqual(
            [(m.device, m.seq) for m in received[:4]], [("desk", 10), ("door", 70), ("desk", 11), ("door", 73)]
        )
        self.assertIsInstance(received[4], Health)
        self.assertEqual((reader.counters.missing, reader.counters.invalid), (2, 1))
        with self.assertRaisesRegex(SourceError, "names no device"):
            reader.send("pause")

    def test_a_broker_that_comes_back_is_used_again(self):
        broker = Broker(self)
        broker.publish("room/status", "online", retain=True)
        reader = Reader(f"mqtt://127.0.0.1:{broker.port}/room")
        messages = iter(reader)
        self.addCleanup(messages.close)
        self.assertEqual(next(messages), Status(True, "room"))
        with self.assertLogs(sources.log):
            broker.stop()
            again = Broker(self, broker.port)
            again.publish("room/status", "online", retain=True)
            self.assertEqual(next(messages), Status(True, "room"))
        again.publish("room/estimate", line(1))
        self.assertIsInstance(next(messages), Estimate)
        self.assertEqual(reader.counters.reconnects, 1)

    def test_commands_reach_a_device_and_their_answers_the_reader(self):
        broker = Broker(self)
        broker.publish("affectd/desk/status", "online", retain=True)
        reader = Reader(f"mqtt://127.0.0.1:{broker.port}?device=desk")
        messages = iter(reader)
        self.addCleanup(messages.close)
        next(messages)
        # The board answers with the command that it received.
        board = broker.client()
        response = "affectd/desk/response"
        board.on_message = lambda client, _, message: client.publish(
            response, json.dumps({"ok": message.payload.decode()})
        )
        subscribed = threading.Event()
        board.on_subscribe = lambda *_: subscribed.set()
        board.subscribe("affectd/desk/command")
        self.assertTrue(subscribed.wait(10))
        reader.send("ping")
        self.assertEqual(next(messages), Answer({"ok": "ping"}, "desk"))
        board.disconnect()
        board.loop_stop()


if __name__ == "__main__":
    unittest.main()
