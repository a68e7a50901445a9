"""Runs affectd with a real RTSP server, which is killed and frozen. run.sh starts it: check.py AFFECTD CLIP."""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

PORT = "18554"
PASSWORD = "s3cr3tword"
DEADLINE_S = 120
SERVER = Path(__file__).with_name("server.py")


class Server:
    def __init__(self, clip, codec, login):
        self.command = [sys.executable, SERVER, PORT, codec, login, clip]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "ready\n":
            sys.exit("check.py: the server does not start: see its message above")

    def send(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait()


class Daemon:
    def __init__(self, affectd, address):
        self.log_file = tempfile.NamedTemporaryFile()  # noqa: SIM115  (open as long as the daemon runs)
        command = [affectd, "run", "--camera", address, "--microphone", address]
        settings = {"AFFECTD_CONFIG": "/dev/null", "AFFECTD_LOG": "debug"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log_file, text=True, env=os.environ | settings
        )
        # A failed check leaves no daemon behind, and the daemon no ffmpeg.
        atexit.register(self.process.kill)
        self.newest = None
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.newest = json.loads(line)

    def log(self):
        return Path(self.log_file.name).read_text()

    def until(self, fact, holds):
        """Waits until `holds()`. Prints how long that took."""
        began = time.monotonic()
        while not holds():
            if self.process.poll() is not None or time.monotonic() - began > DEADLINE_S:
                sys.exit(f"check.py: not seen: {fact}: the log of affectd is\n{self.log()}")
            time.sleep(0.02)
        print(f"    {fact}: after {time.monotonic() - began:.1f} s", flush=True)

    def until_estimate(self, modalities):
        self.newest = None
        self.until(f"estimates with {modalities}", lambda: self.newest and self.newest["modalities"] == modalities)

    def until_logged(self, text, times=1):
        self.until(f'"{text}" in the log', lambda: self.log().count(text) >= times)

    def programs(self):
        """The process groups of ffmpeg."""
        command = ["ps", "-o", "pid=", "--ppid", str(self.process.pid)]
        # ps fails if there is none.
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return [int(pid) for pid in listed.split()]

    def stop(self):
        groups = self.programs()
        assert len(groups) == 2, f"one ffmpeg for each device, not {groups}"
        self.process.terminate()
        assert self.process.wait(30) == 0, self.log()
        command = ["ps", "-eo", "pgid=,stat=,args="]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        # A zombie has ended; its new parent has not collected it.
        left = [line for line in listed if int(line.split()[0]) in groups and not line.split()[1].startswith("Z")]
        assert not left, f"programs are left: {left}"
        log = self.log()
        self.log_file.close()
        return log


def killed_and_frozen(affectd, clip):
    server = Server(clip, "h264", "none")
    try:
        daemon = Daemon(affectd, f"rtsp://127.0.0.1:{PORT}/live")
        daemon.until_estimate(["face", "voice"])
        server.kill()
        daemon.until_logged("Connection refused", times=2)
        daemon.until_estimate([])
        server.start()
        daemon.until_estimate(["face", "voice"])
        server.send(signal.SIGSTOP)
        daemon.until_logged("the program wrote nothing for", times=2)
        server.send(signal.SIGCONT)
        daemon.until_estimate(["face", "voice"])
        daemon.stop()
    finally:
        server.kill()


def demands_a_password(affectd, clip, codec, login):
    server = Server(clip, codec, login)
    try:
        daemon = Daemon(affectd, f"rtsp://bob:{PASSWORD}@127.0.0.1:{PORT}/live")
        daemon.until_estimate(["face", "voice"])
        log = daemon.stop()
        assert PASSWORD not in log and "rtsp://bob:…@127.0.0.1" in log, log
        wrong = Daemon(affectd, f"rtsp://bob:wr0ng@127.0.0.1:{PORT}/live")
        wrong.until_logged("401 Unauthorized", times=2)
        wrong.process.terminate()
        wrong.process.wait(30)
        assert "wr0ng" not in wrong.log(), wrong.log()
    finally:
        server.kill()


def main():
    affectd, clip = sys.argv[1:]
    print("H.264 and AAC; the server is killed, and frozen", flush=True)
    killed_and_frozen(affectd, clip)
    for codec, login in (("mjpeg", "basic"), ("h264", "digest")):
        print(f"{codec}, {login} login", flush=True)
        demands_a_password(affectd, clip, codec, login)
    print("pass")


main()
