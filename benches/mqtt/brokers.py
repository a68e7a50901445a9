"""Brokers for the benches: mosquitto, and small servers that misbehave, each in a process of its own."""

import contextlib
import json
import multiprocessing
import os
import random
import socket
import subprocess
import threading
import time

DEVICE = "bench"
BASE = f"affectd/{DEVICE}"
ANNOUNCED = b"\x30\xff\xff\xff\x7f"  # a PUBLISH of 256 MiB, the largest packet
# affectd then estimates nothing, and sends that five times a second.
WITHOUT_DEVICES = {**os.environ, "AFFECTD_CAMERA_DEVICE": "/dev/absent", "AFFECTD_MICROPHONE_DEVICE": "off"}
# Starts processes from a program that has no threads.
FAKES = multiprocessing.get_context("forkserver")


class Peer:
    """One client, as a broker sees it."""

    def __init__(self, connection, received):
        self.connection = connection
        self.received = received
        self.version = 4
        self.sending = threading.Lock()

    def read(self, count):
        data = b""
        while len(data) < count:
            part = self.connection.recv(count - len(data))
            if not part:
                raise ConnectionError
            data += part
        return data

    def packet(self):
        kind = self.read(1)[0]
        length = shift = 0
        while True:
            byte = self.read(1)[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return kind, self.read(length)

    def send(self, data):
        with self.sending:
            self.connection.sendall(data)

    def accept(self, properties=b""):
        """Reads CONNECT and answers it."""
        _, body = self.packet()
        self.version = body[6]
        if self.version == 5:
            self.send(packet(0x20, b"\0\0" + length_of(properties) + properties))
        else:
            self.send(b"\x20\x02\0\0")

    def publish(self, topic, payload, kind=0x30, number=b"", properties=b""):
        body = len(topic).to_bytes(2) + topic.encode() + number
        if self.version == 5:
            body += length_of(properties) + properties
        return packet(kind, body + payload)

    def serve(self, times=1, delay=0.0, subscribe=None):
        """Acknowledges all that comes, until the connection ends."""
        while True:
            kind, body = self.packet()
            if kind >> 4 == 3:
                size = int.from_bytes(body[:2])
                topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
                if kind & 6:
                    time.sleep(delay)
                    self.send(packet(0x40, rest[:2]) * times)
                if topic == f"{BASE}/estimate":
                    self.note(body)
            elif kind >> 4 == 8:
                if subscribe:
                    self.send(subscribe(self, body))
                else:
                    self.send(packet(0x90, body[:2] + self.empty() + b"\0"))
            elif kind >> 4 == 12:
                self.send(b"\xd0\0")

    def empty(self):
        return b"\0" if self.version == 5 else b""

    def note(self, body):
        """Remembers the number of an estimate that this broker has taken."""
        estimate = json.loads(body[body.index(b"{") :])
        with self.received.open("a") as file:
            print(estimate["seq"], file=file)

    def serve_aside(self, **options):
        def run():
            with contextlib.suppress(OSError):
                self.serve(**options)

        threading.Thread(target=run, daemon=True).start()

    def flood(self, data):
        data *= max(1, 65536 // len(data))
        while True:
            self.send(data)


def length_of(data):
    length, encoded = len(data), b""
    while True:
        length, byte = divmod(length, 128)
        encoded += bytes([byte | 0x80 if length else byte])
        if not length:
            return encoded


def packet(kind, body):
    return bytes([kind]) + length_of(body) + body


def flood_of_authentication(peer):
    peer.accept()
    peer.serve_aside()
    peer.flood(b"\xf0\0")


def flood_of_releases(peer):
    peer.accept()
    peer.serve_aside()
    peer.flood(b"".join(packet(0x62, n.to_bytes(2)) for n in range(1, 1000)))


def silence(peer):
    while peer.connection.recv(65536):
        pass


def accepts_and_is_silent(peer):
    peer.accept()
    silence(peer)


def accepts_and_closes(peer):
    peer.accept()


def closes(peer):
    pass


def accepts_slowly(peer):
    peer.packet()
    for byte in b"\x20\x03\0\0\0":
        peer.send(bytes([byte]))
        time.sleep(3)


def takes_over(peer):
    peer.accept()
    if peer.version == 5:
        peer.send(b"\xe0\x02\x8e\0")


def speaks_http(peer):
    peer.connection.recv(65536)
    peer.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def random_bytes(peer):
    peer.accept()
    peer.send(random.randbytes(4096))


def flood_of_messages(peer):
    peer.accept()
    peer.serve_aside()
    peer.flood(peer.publish("homeassistant/status", b"offline"))


def flood_of_messages_without_acceptance(peer):
    peer.flood(peer.publish("homeassistant/status", b"offline"))


def flood_of_large_messages(peer):
    peer.accept()
    peer.serve_aside()
    peer.flood(peer.publish("a", bytes(1_000_000)))


def flood_of_qos_2(peer):
    peer.accept()
    peer.serve_aside()
    messages = [peer.publish("homeassistant/status", b"x", 0x34, n.to_bytes(2)) for n in range(1, 65536)]
    peer.flood(b"".join(messages))


def flood_of_properties(peer):
    peer.accept()
    peer.serve_aside()
    pair = b"\x26\0\x01a\0\x01b"
    peer.flood(peer.publish("homeassistant/status", b"x", properties=pair * 8000))


def flood_of_ping_responses(peer):
    peer.accept()
    peer.serve_aside()
    peer.flood(b"\xd0\0")


def flood_of_acknowledgements(peer):
    peer.accept()
    peer.serve_aside()
    peer.flood(b"".join(packet(0x40, n.to_bytes(2)) for n in range(1, 1000)))


def packet_without_end(peer):
    peer.accept()
    peer.send(ANNOUNCED)
    peer.flood(b"a")


def acknowledges_twice(peer):
    peer.accept()
    peer.serve(times=2)


def acknowledges_slowly(peer):
    peer.accept(b"\x21\0\x01")  # receive maximum 1
    peer.serve(delay=1)


def short_keep_alive(peer):
    peer.accept(b"\x13\0\x01")
    peer.connection.settimeout(1.5)
    peer.serve()


def denies_subscriptions(peer):
    def deny(peer, body):
        return packet(0x90, body[:2] + peer.empty() + b"\x80") * 10_000

    peer.accept()
    peer.serve(subscribe=deny)


def run_fake(behaviour, port, received):
    """The process of a broker of this script."""
    listener = socket.create_server(("127.0.0.1", port))

    def treat(connection):
        with contextlib.suppress(OSError), connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            behaviour(Peer(connection, received))

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=treat, args=(connection,), daemon=True).start()


class Fake:
    def __init__(self, behaviour, port, folder):
        received = folder / "received"
        received.touch()
        self.process = FAKES.Process(target=run_fake, args=(behaviour, port, received), daemon=True)
        self.process.start()
        wait_for_port(port)

    def stop(self):
        self.process.kill()
        self.process.join()


class Mosquitto:
    def __init__(self, port, folder, settings="", host="127.0.0.1", publisher=None):
        folder.mkdir(exist_ok=True)
        config = folder / "mosquitto.conf"
        anonymous = "" if "allow_anonymous" in settings else "allow_anonymous true\n"
        # Started by root, it would change to a user who cannot read the folder.
        config.write_text(f"user root\nlistener {port} {host}\n{anonymous}{settings}\n")
        self.port = port
        self.log = (folder / "mosquitto.log").open("a")
        self.process = subprocess.Popen(["mosquitto", "-c", config], stdout=self.log, stderr=self.log)
        wait_for_port(port, host)
        self.publisher = publisher and threading.Thread(target=publisher, args=(self,), daemon=True)
        self.running = True
        if self.publisher:
            self.publisher.start()

    def stop(self):
        self.process.terminate()
        self.clean_up()

    def kill(self):
        self.process.kill()
        self.clean_up()

    def clean_up(self):
        self.running = False
        self.process.wait()
        self.log.close()
        if self.publisher:
            self.publisher.join()


def wait_for_port(port, host="127.0.0.1"):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port}")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
