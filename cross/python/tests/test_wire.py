"""Binary frames as cross/wire.md documents them. The Rust tests compare this reader with affectd's own on random streams."""

import re
import unittest
from pathlib import Path

from affectd_reader import wire

DOCUMENTED = [
    bytes.fromhex(line)
    for line in re.findall(
        r"^    ((?:[0-9a-f]{2} )+00)$", (Path(__file__).parents[2] / "wire.md").read_text(), re.MULTILINE
    )
]


class WireTests(unittest.TestCase):
    def test_documented_frames_are_read(self):
        reader = wire.Reader()
        full, empty, text = reader.feed(b"".join(DOCUMENTED))
        self.assertEqual((full["seq"], full["valence"], full["arousal"], full["latency_ms"]), (1042, 0.42, 0.1804, 41))
        self.assertEqual((empty["seq"], empty["valence"], empty["face"], empty["latency_ms"]), (1, None, None, None))
        self.assertEqual((text, reader.invalid), ('{"ok":"pong"}', 0))

    def test_every_flipped_bit_makes_a_frame_invalid(self):
        frame = DOCUMENTED[0]
        for bit in range((len(frame) - 1) * 8):
            damaged = bytearray(frame)
            damaged[bit // 8] ^= 1 << bit % 8
            reader = wire.Reader()
            self.assertEqual(list(reader.feed(b"\0" + bytes(damaged))), [], bit)
            self.assertGreaterEqual(reader.invalid, 1, bit)

    def test_the_rest_of_a_frame_at_the_beginning_is_not_an_error(self):
        reader = wire.Reader()
        messages = list(reader.feed(DOCUMENTED[0][20:] + DOCUMENTED[1]))
        self.assertEqual(([message["seq"] for message in messages], reader.invalid), ([1], 0))


if __name__ == "__main__":
    unittest.main()
