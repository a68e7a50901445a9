"""The time that a training still takes."""

import unittest

from ..progress import time_left


class TimeLeft(unittest.TestCase):
    def test_the_largest_unit_that_fits_is_used(self):
        self.assertEqual(time_left(13.4, 0), "0 s left")
        self.assertEqual(time_left(13.4, 3), "40 s left")
        self.assertEqual(time_left(13.4, 20), "4.5 min left")
        self.assertEqual(time_left(900, 14), "3.5 h left")
