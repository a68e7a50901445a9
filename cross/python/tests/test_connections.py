"""The files beside the package that connect affectd to other programs."""

import binascii
import json
import re
import struct
import subprocess
import tempfile
import unittest
from pathlib import Path

from tests.test_wire import DOCUMENTED

CROSS = Path(__file__).parents[2]

# What the sketch needs of an Arduino. Standard input has the time in milliseconds and a byte in hexadecimal, or - for none.
ARDUINO = """
#include <stdint.h>
#include <stdio.h>
enum { OUTPUT = 1 };
static uint32_t now_ms;
static int pending = -1, lamp = 0;
static uint32_t millis() { return now_ms; }
static void pinMode(uint8_t, uint8_t) {}
static void analogWrite(uint8_t, int level) {
    if (level != lamp) { printf("%lu %d\\n", (unsigned long)now_ms, level); }
    lamp = level;
}
static struct {
    void begin(unsigned long) {}
    int available() { return pending >= 0; }
    int read() { const int byte = pending; pending = -1; return byte; }
} Serial;
#include "affectd_lamp/affectd_lamp.ino"
int main() {
    setup();
    char text[8];
    unsigned long at;
    while (scanf("%lu %7s", &at, text) == 2) {
        now_ms = at;
        unsigned byte;
        pending = sscanf(text, "%x", &byte) == 1 ? (int)byte : -1;
        loop();
    }
}
"""


def frame(seq, valence):
    """A frame with a face and a voice. Valence is in ten-thousandths."""
    box = (3000, 2000, 2000, 2000)
    record = struct.pack("<BBIIhhhBB4HHhBBH", 1, 1, seq, seq * 200, valence, 0, 5000, 15, 95, *box, 1, -200, 3, 80, 40)
    content = record + binascii.crc_hqx(record, 0xFFFF).to_bytes(2, "little")
    return b"".join(bytes([len(run) + 1]) + run for run in content.split(b"\0")) + b"\0"


class LampTests(unittest.TestCase):
    def run_sketch(self, valences):
        """The times in seconds at which the lamp changes, if five estimates a second arrive, and then nothing for six seconds."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        source, program = Path(folder.name) / "lamp.cpp", Path(folder.name) / "lamp"
        source.write_text(ARDUINO)
        options = ["-std=c++11", "-Wall", "-Wextra", "-Werror", "-I", CROSS / "readers"]
        subprocess.run(["c++", *options, "-o", program, source], check=True)
        lines = [f"{seq * 200} {byte:x}" for seq, valence in enumerate(valences, 1) for byte in frame(seq, valence)]
        lines += [f"{len(valences) * 200 + wait} -" for wait in range(0, 6000, 100)]
        done = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True, check=True)
        return [(int(at) / 1000, int(level)) for at, level in map(str.split, done.stdout.splitlines())]

    def test_lamp_comes_on_after_five_seconds_of_low_valence_and_goes_off_with_it(self):
        self.assertEqual(self.run_sketch([4000] * 15 + [-5000] * 40 + [4000] * 5), [(8.2, 255), (11.2, 0)])

    def test_lamp_stays_off_if_low_valence_is_interrupted(self):
        self.assertEqual(self.run_sketch(([-5000] * 20 + [4000]) * 4), [])

    def test_lamp_goes_off_when_the_line_is_silent(self):
        (on, _), (off, level) = self.run_sketch([-5000] * 40)
        self.assertEqual((on, off, level), (5.2, 11.1, 0))

    def test_frames_of_this_test_are_those_of_affectd(self):
        self.assertEqual(len(frame(1, 4000)), len(DOCUMENTED[0]))


class FileTests(unittest.TestCase):
    def test_dashboard_asks_for_documented_metrics_only(self):
        documented = re.findall(r"[a-z_]+", (CROSS / "status.md").read_text().partition("## Metrics")[2])
        panels = json.loads((CROSS / "grafana.json").read_text())["panels"]
        asked = {
            name
            for panel in panels
            for target in panel["targets"]
            for name in re.findall(r"affectd_(\w+)", target["expr"])
        }
        self.assertGreater(len(asked), 10)
        self.assertLessEqual({name.removesuffix("_bucket") for name in asked}, set(documented))

    def test_nodes_of_the_flow_lead_to_nodes(self):
        nodes = json.loads((CROSS / "nodered.json").read_text())
        identifiers = {node["id"] for node in nodes}
        for node in nodes:
            wires = {target for output in node.get("wires", []) for target in output}
            self.assertLessEqual(wires | {node.get("broker", node["id"])} - {"127.0.0.1"}, identifiers)

    def test_python_of_the_recipes_compiles(self):
        blocks = re.findall(r"```python\n(.*?)```", (CROSS / "recipes.md").read_text(), re.DOTALL)
        self.assertGreater(len(blocks), 3)
        for block in blocks:
            compile(block, "recipes.md", "exec")


if __name__ == "__main__":
    unittest.main()
