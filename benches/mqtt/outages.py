"""How soon affectd delivers new estimates after an outage, and what is lost.

    python3 -m benches.mqtt.outages target/release/affectd up:20 kill:20 up:20 hole:60 up:20

A plan is a list of steps with their seconds:

    up      nothing happens
    kill    mosquitto is killed, and started again afterwards
    freeze  mosquitto is stopped (SIGSTOP): the kernel accepts what is sent to it, and nothing answers
    hole    packets vanish silently between affectd and mosquitto
    down    the link is down

It runs as root in two network namespaces with a cable between them, and changes nothing of the machine. Needs mosquitto,
mosquitto_sub, iproute2 and util-linux. The time of an outage ends when the broker or the link is back. The recovery ends with the
first message at a subscriber whose estimate was made after that.
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benches.mqtt.brokers import WITHOUT_DEVICES, Mosquitto

PORT = 1883
BROKER, BOARD = "10.77.0.1", "10.77.0.2"
BROKER_MAC, BOARD_MAC, NOBODYS_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:99"
INSIDE = "OUTAGES_INSIDE"
STEPS = ("up", "kill", "freeze", "hole", "down")


class Cable:
    """Two network namespaces: that of this process, with the broker, and that of affectd."""

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
        while os.readlink(f"/proc/{self.holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            time.sleep(0.01)
        self.inside = ["nsenter", "-t", str(self.holder.pid), "-n"]
        ends = f"broker address {BROKER_MAC} type veth peer name board address {BOARD_MAC}"
        ip(
            f"link set lo up; link add {ends} netns {self.holder.pid}; addr add {BROKER}/24 dev broker; link set broker up"
        )
        ip(f"link set lo up; addr add {BOARD}/24 dev board; link set board up", self.inside)
        self.connect()

    def connect(self):
        self.neighbours(BROKER_MAC, BOARD_MAC)

    def hole(self):
        self.neighbours(NOBODYS_MAC, NOBODYS_MAC)

    def neighbours(self, broker, board):
        ip(f"neigh replace {BROKER} lladdr {broker} nud permanent dev board", self.inside)
        ip(f"neigh replace {BOARD} lladdr {board} nud permanent dev broker")

    def down(self):
        ip("link set broker down")

    def up(self):
        ip("link set broker up")
        self.connect()


def ip(commands, inside=()):
    for command in commands.split("; "):
        subprocess.run([*inside, "ip", *command.split()], check=True)


class Subscriber:
    """Keeps its subscription while the broker is away."""

    def __init__(self):
        self.arrivals = []
        self.start()

    def start(self):
        command = f"mosquitto_sub -h {BROKER} -p {PORT} -c -i reader -q 1 -k 3600 -t affectd/bench/estimate"
        self.process = subprocess.Popen(command.split(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        threading.Thread(target=self.read, args=(self.process.stdout,), daemon=True).start()

    def read(self, lines):
        for line in lines:
            self.arrivals.append((time.monotonic(), json.loads(line)["seq"]))

    def stop(self):
        self.process.kill()
        self.process.wait()

    def wait_for(self, seq, seconds):
        """The time when the first estimate after `seq` arrived."""
        until = time.monotonic() + seconds
        seen = 0
        while time.monotonic() < until:
            while seen < len(self.arrivals):
                at, number = self.arrivals[seen]
                if number > seq:
                    return at
                seen += 1
            time.sleep(0.01)
        return None


class Affectd:
    def __init__(self, program, cable, options, log):
        output = f"mqtt://{BROKER}:{PORT}?device=bench{options}"
        command = [*cable.inside, program, "run", "--output", output, "--output", "stdout"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=WITHOUT_DEVICES)
        self.newest = 0
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            self.newest = json.loads(line)["seq"]

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.thread.join()


def run(program, plan, options, log):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        settings = (
            f"persistence true\npersistence_location {folder}/\nqueue_qos0_messages true\nmax_queued_messages 0\n"
            f"autosave_interval 1"
        )
        cable = Cable()

        def start():
            return Mosquitto(PORT, folder, settings, host=BROKER)

        broker = start()
        subscriber = Subscriber()
        time.sleep(2)  # the broker saves the subscription
        affectd = Affectd(program, cable, options, log)
        recoveries = []
        for step, seconds in plan:
            if step == "kill":
                broker.kill()
                subscriber.stop()
            elif step == "freeze":
                broker.process.send_signal(signal.SIGSTOP)
            elif step != "up":
                getattr(cable, step)()
            time.sleep(seconds)
            if step == "up":
                continue
            newest = affectd.newest
            if step == "kill":
                broker = start()
                subscriber.start()
            elif step == "freeze":
                broker.process.send_signal(signal.SIGCONT)
            else:
                {"hole": cable.connect, "down": cable.up}[step]()
            back = time.monotonic()
            at = subscriber.wait_for(newest, 180)
            recoveries.append((step, seconds, at and at - back))
            print(
                f"{step} for {seconds} s: new estimates after {'more than 180' if at is None else f'{at - back:.1f}'} s",
                flush=True,
            )
        affectd.stop()
        time.sleep(1)
        subscriber.stop()
        broker.stop()
        cable.holder.kill()
        report(affectd.newest, [seq for _, seq in subscriber.arrivals], recoveries)


def report(newest, seqs, recoveries):
    first = list(dict.fromkeys(seqs))
    missing = set(range(1, newest + 1)) - set(seqs)
    disordered = sum(later < earlier for earlier, later in itertools.pairwise(first))
    repeated = len(seqs) - len(first)
    print(f"{newest} estimates: {len(missing)} missing, {disordered} out of order, {repeated} sent again")
    times = sorted(180 if time is None else time for _, _, time in recoveries)
    if times:
        print(
            f"{len(times)} outages: recovery {times[0]:.1f} to {times[-1]:.1f} s, median {times[len(times) // 2]:.1f} s"
        )


def step(text):
    name, _, seconds = text.partition(":")
    if name not in STEPS or not seconds.isdigit():
        raise argparse.ArgumentTypeError(f"{text}: must be one of {', '.join(STEPS)}, with seconds, such as kill:20")
    return name, int(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("affectd", type=lambda path: str(Path(path).resolve(strict=True)), help="the program")
    parser.add_argument("plan", type=step, nargs="+", help="such as kill:20")
    parser.add_argument("--options", default="", help="further options of the MQTT output, for example '&version=5'")
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="of affectd")
    arguments = parser.parse_args()
    if INSIDE not in os.environ:
        # The namespace of processes ends them all with this one.
        namespaces = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command = [*namespaces, sys.executable, "-m", "benches.mqtt.outages", *sys.argv[1:]]
        os.execvpe(command[0], command, {**os.environ, INSIDE: "1"})
    with arguments.log.open("w") as log:
        run(arguments.affectd, arguments.plan, arguments.options, log)


if __name__ == "__main__":
    main()
