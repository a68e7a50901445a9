"""Memory, processor time and log lines of affectd with brokers that misbehave.

    python3 -m benches.mqtt.hostile target/release/affectd

Each case runs affectd without devices, so that only the outputs work, for a minute with one broker. Then a good mosquitto takes
over the port, with a reader that was subscribed before: the time until it gets the first estimate is the recovery, and estimates
that neither it nor the first broker got are lost. A second affectd gets SIGTERM while the first broker still runs.

Needs mosquitto, mosquitto_sub, mosquitto_pub, mosquitto_passwd and openssl. Brokers without a name of mosquitto are small servers
of this script. They run in processes of their own.
"""

import argparse
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benches.mqtt import brokers
from benches.mqtt.brokers import BASE, DEVICE, WITHOUT_DEVICES, Fake, Mosquitto, free_port

# The longest wait of affectd after a refusal, with a margin.
RECOVERY_S = 150


def publish_lines(broker, topic, lines, pause):
    """Publishes `lines` again and again."""
    command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(broker.port), "-t", topic, "-l"]
    while broker.running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, input=lines, stderr=subprocess.DEVNULL, timeout=30, check=False)
        time.sleep(pause)


def births(broker):
    publish_lines(broker, "homeassistant/status", b"online\n" * 10_000, 1)


def commands(broker):
    publish_lines(broker, f"{BASE}/command", b"health\n" * 10_000, 1)


def with_passwords(folder):
    file = folder / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", file, "somebody", "secret"], check=True)
    return f"allow_anonymous false\npassword_file {file}"


def with_access_list(folder):
    file = folder / "access"
    file.write_text("topic read #\n")
    return f"acl_file {file}"


def with_certificate(folder):
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return f"certfile {certificate}\nkeyfile {key}"


# Cases


@dataclass
class Case:
    name: str
    behaviour: object = None  # of a broker of this script
    settings: object = ""  # of mosquitto, or a function of a folder that returns them
    publisher: object = None
    scheme: str = "mqtt"
    denies: bool = False  # estimates are discarded, so none is lost unseen
    output: str = ""

    def start(self, port, folder):
        if self.behaviour:
            return Fake(self.behaviour, port, folder)
        settings = self.settings if isinstance(self.settings, str) else self.settings(folder)
        return Mosquitto(port, folder / "broker", settings, publisher=self.publisher)


WITHOUT, GOOD = Case("no MQTT output", output="file"), Case("a good mosquitto")
CASES = [
    Case("floods with small messages", brokers.flood_of_messages),
    Case("floods with messages before it accepts", brokers.flood_of_messages_without_acceptance),
    Case("floods with messages of 1 MB", brokers.flood_of_large_messages),
    Case("floods with messages of QoS 2", brokers.flood_of_qos_2),
    Case("floods with 8000 properties a message", brokers.flood_of_properties),
    Case("floods with ping responses", brokers.flood_of_ping_responses),
    # It acknowledges what it has not read.
    Case("floods with unasked acknowledgements", brokers.flood_of_acknowledgements, denies=True),
    Case("floods with AUTH packets", brokers.flood_of_authentication),
    Case("floods with unasked releases", brokers.flood_of_releases),
    Case("sends a packet of 256 MiB", brokers.packet_without_end),
    Case("mosquitto, 10,000 births of Home Assistant a second", publisher=births),
    Case("mosquitto, 10,000 commands a second", publisher=commands),
    Case("refuses subscriptions 10,000 times", brokers.denies_subscriptions),
    Case("sends random bytes", brokers.random_bytes),
    Case("speaks HTTP", brokers.speaks_http),
    Case("never answers", brokers.silence),
    Case("accepts in 15 s, byte by byte", brokers.accepts_slowly),
    Case("closes at once", brokers.closes),
    Case("accepts and closes", brokers.accepts_and_closes),
    Case("accepts and never answers again", brokers.accepts_and_is_silent),
    Case("says that another client took over", brokers.takes_over),
    Case("acknowledges everything twice", brokers.acknowledges_twice),
    Case("acknowledges one message a second", brokers.acknowledges_slowly),
    Case("server keep-alive of 1 s", brokers.short_keep_alive),
    Case("mosquitto, wrong password", settings=with_passwords),
    Case("mosquitto, access list denies all", settings=with_access_list, denies=True),
    Case("mosquitto, packets of at most 1500 bytes", settings="max_packet_size 1500"),
    Case("mosquitto, packets of at most 100 bytes", settings="max_packet_size 100", denies=True),
    Case("mosquitto, TLS where none is expected", settings=with_certificate),
    Case("mosquitto, untrusted certificate", settings=with_certificate, scheme="mqtts"),
]


class Affectd:
    """The program without devices and with one output."""

    def __init__(self, arguments, case, port, folder, device):
        options = f"&{arguments.options}" if arguments.options else ""
        output = f"{case.scheme}://localhost:{port}?device={device}{options}"
        if case.output:
            output = f"file:{folder / device}.jsonl"
        self.log = folder / f"{device}.log"
        command = [arguments.affectd, "run", "--output", output]
        limit = arguments.limit_mb << 20
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=folder,
                env=WITHOUT_DEVICES,
            )
        resource.prlimit(self.process.pid, resource.RLIMIT_DATA, (limit, limit))

    def peak_memory_kb(self):
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        values = dict(line.split(":", 1) for line in lines)
        # A process that has ended has no memory.
        return int(values["VmHWM"].split()[0])

    def cpu_s(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def log_lines(self):
        return len(self.log.read_text(errors="replace").splitlines())

    def stop(self):
        """Returns the exit code and the seconds until the exit."""
        began = time.monotonic()
        self.process.terminate()
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return code, time.monotonic() - began


class Reader:
    """A subscription that a good broker keeps from before its start on the port of the case."""

    SETTINGS = "max_queued_messages 0\npersistence true\nqueue_qos0_messages true\npersistence_location "

    def __init__(self, folder):
        self.folder = folder / "good"
        self.folder.mkdir()
        self.settings = f"{Reader.SETTINGS}{self.folder}/"
        broker = Mosquitto(free_port(), self.folder, self.settings)
        command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(broker.port), *self.arguments(), "-E"]
        subprocess.run(command, check=True)
        broker.stop()

    @staticmethod
    def arguments():
        return ["-c", "-i", "reader", "-q", "1", "-t", f"{BASE}/estimate"]

    def take_over(self, port):
        """Starts the good broker and a thread that reads from it."""
        until = time.monotonic() + 20
        while True:
            try:
                self.broker = Mosquitto(port, self.folder, self.settings)
                break
            except TimeoutError:
                if time.monotonic() > until:
                    raise
        command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), *self.arguments()]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.seqs, self.first = [], threading.Event()

        def read():
            for line in self.process.stdout:
                self.seqs.append(json.loads(line)["seq"])
                self.first.set()

        self.thread = threading.Thread(target=read, daemon=True)
        self.thread.start()

    def stop(self):
        time.sleep(1)
        self.process.terminate()
        self.thread.join()
        self.broker.stop()


def measure(case, arguments):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        port = free_port()
        broker = case.start(port, folder)
        reader = Reader(folder)
        affectd = Affectd(arguments, case, port, folder, DEVICE)
        began = time.monotonic()
        result = {"name": case.name, "ended": False}
        leaver = None
        while (passed := time.monotonic() - began) < arguments.seconds:
            if passed > arguments.seconds - 10 and not leaver:
                leaver = Affectd(arguments, case, port, folder, "leaver")
            try:
                measured = {"peak_kb": affectd.peak_memory_kb(), "cpu_s": affectd.cpu_s()}
            except (KeyError, OSError):
                result["ended"] = True
                break
            result |= measured
            time.sleep(0.2)
        result["log_lines"] = affectd.log_lines()
        result["log"] = affectd.log.read_text(errors="replace")
        if leaver:
            result["exit_code"], result["exit_s"] = leaver.stop()
        if case.output or case.scheme == "mqtts" or result["ended"]:
            result["code"] = affectd.stop()[0]
            broker.stop()
            return result
        broker.stop()
        reader.take_over(port)
        back = time.monotonic()
        recovered = reader.first.wait(RECOVERY_S)
        result["recovery_s"] = time.monotonic() - back if recovered else None
        time.sleep(3)
        result["code"], _ = affectd.stop()
        reader.stop()
        received = folder / "received"
        taken = set(map(int, received.read_text().split())) if received.exists() else set()
        if recovered:
            if isinstance(broker, Mosquitto):
                # It has no account of its own. What came before the first estimate after the change was acknowledged.
                taken = set(range(1, min(reader.seqs)))
            numbers = set(range(1, max(reader.seqs) + 1))
            result["lost"] = None if case.denies else len(numbers - set(reader.seqs) - taken)
            result["repeated"] = len(reader.seqs) - len(set(reader.seqs))
        return result


def table(results):
    base_kb = results[WITHOUT.name]["peak_kb"]
    base_cpu = results[GOOD.name]["cpu_s"] if GOOD.name in results else 0
    print(
        "| broker | peak memory above no output, MiB | CPU above a good broker, s | log lines | exit | recovery | lost |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for r in results.values():
        if "peak_kb" not in r:
            print(f"| {r['name']} | ended at once with code {r['code']} | | | | | |")
            continue
        memory = f"{(r['peak_kb'] - base_kb) / 1024:.1f}"
        cpu = f"{r['cpu_s'] - base_cpu:.1f}"
        if r["ended"]:
            print(f"| {r['name']} | {memory} | {cpu} | {r['log_lines']} | ended with code {r['code']} | – | – |")
            continue
        code = "" if r["exit_code"] == 0 else f", code {r['exit_code']}"
        exits = f"{r['exit_s']:.1f} s{code}"
        recovery = (
            f"{r['recovery_s']:.1f} s" if r.get("recovery_s") is not None else "–" if "recovery_s" not in r else "none"
        )
        lost = "–" if r.get("lost") is None else r["lost"]
        print(f"| {r['name']} | {memory} | {cpu} | {r['log_lines']} | {exits} | {recovery} | {lost} |")
    print(f"\nPeak memory without an MQTT output: {base_kb / 1024:.1f} MiB; CPU with a good broker: {base_cpu:.1f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("affectd", type=lambda path: str(Path(path).resolve(strict=True)), help="the program")
    parser.add_argument("--seconds", type=int, default=60, help="with each broker (default: 60)")
    parser.add_argument("--jobs", type=int, default=2, help="cases at once (default: 2)")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--options", default="", help="further options of the MQTT output, for example version=5")
    parser.add_argument("--limit-mb", type=int, default=1024, help="affectd may allocate this (default: 1024)")
    parser.add_argument("--json", type=Path, help="writes all results and logs to this file")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    cases = [WITHOUT, GOOD, *(case for case in CASES if arguments.only in case.name)]
    results = {}

    def run(case):
        results[case.name] = measure(case, arguments)
        print(f"{case.name}: done", file=sys.stderr)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(run, cases))
    results = {case.name: results[case.name] for case in cases}
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    table(results)


if __name__ == "__main__":
    main()
