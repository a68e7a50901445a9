"""Messages as cross/messages.md and the schemas describe them."""

import csv
import json
import re
import unittest
from dataclasses import fields
from datetime import datetime, timezone
from pathlib import Path

from affectd_reader import Answer, Box, Estimate, Health, InvalidMessage, parse, table, to_json

CROSS = Path(__file__).parents[2]
DOCUMENTED = (CROSS / "messages.md").read_text()
EXAMPLES = re.findall(r'^{"schema".*}$', DOCUMENTED, re.MULTILINE)
FULL, EMPTY = [line for line in EXAMPLES if '"seq"' in line]
HEALTH = next(line for line in EXAMPLES if '"uptime_s"' in line)


class RecordsTests(unittest.TestCase):
    def test_documented_estimate_is_read_field_by_field(self):
        estimate = parse(FULL, "kitchen")
        self.assertEqual((estimate.seq, estimate.t, estimate.valence, estimate.confidence), (1042, 208.4, 0.42, 0.81))
        self.assertEqual(estimate.time, datetime(2026, 11, 24, 9, 0, 0, 123000, timezone.utc))
        self.assertEqual(estimate.face.box, Box(0.31, 0.22, 0.18, 0.24))
        self.assertEqual(
            (estimate.voice.level_db, estimate.likely_expression, estimate.device), (-23.1, "happiness", "kitchen")
        )

    def test_documented_messages_are_written_as_they_were(self):
        for line in (FULL, EMPTY, HEALTH):
            self.assertEqual(json.loads(to_json(parse(line))), json.loads(line))

    def test_classes_have_the_fields_of_the_schemas(self):
        for class_, name in ((Estimate, "estimate"), (Health, "health")):
            schema = json.loads((CROSS / "schema" / f"{name}.schema.json").read_text())
            names = {field.name for field in fields(class_)} - {"device"}
            self.assertEqual(names, set(schema["properties"]) - {"schema"})

    def test_unknown_fields_are_ignored(self):
        line = {**json.loads(FULL), "new": 1}
        self.assertEqual(parse(json.dumps(line)), parse(FULL))

    def test_health_comes_alone_and_as_an_answer(self):
        self.assertEqual(parse(f'{{"ok":{HEALTH}}}'), parse(HEALTH))
        self.assertEqual(parse(HEALTH).mqtt.connections, 1)
        self.assertIsNone(parse(re.sub(r',"mqtt":{.*?}', "", HEALTH)).mqtt)

    def test_health_of_an_older_affectd_has_unknown_values(self):
        older = json.loads(HEALTH)
        del older["low_voltage"], older["throttled"]
        health = parse(json.dumps(older))
        self.assertEqual((health.low_voltage, health.throttled, health.frames), (None, None, older["frames"]))
        del older["frames"]
        with self.assertRaisesRegex(InvalidMessage, "no field frames"):
            parse(json.dumps(older))

    def test_other_answers_keep_their_content(self):
        self.assertEqual(parse('{"ok":"pong"}', "x"), Answer({"ok": "pong"}, "x"))
        self.assertEqual(parse('{"error":"rate 0"}').content["error"], "rate 0")

    def test_what_is_no_message_is_invalid(self):
        valid = json.loads(FULL)
        changed = [{"schema": 2}, {"seq": -1}, {"seq": True}, {"valence": "0.4"}, {"face": {"id": 1}}, {"face": []}]
        changed += [
            {"time": "noon"},
            {"modalities": "face"},
            {"expression": {"joy": None}},
            {"face": {**valid["face"], "box": [0]}},
        ]
        texts = [json.dumps({**valid, **change}) for change in changed]
        without = json.dumps({name: value for name, value in valid.items() if name != "paused"})
        for text in [*texts, without, "", "null", "[1]", "{", "{}", b"\xff", "[" * 100_000]:
            with self.subTest(text=text[:80]), self.assertRaises(InvalidMessage):
                parse(text)

    def test_table_has_the_documented_columns_and_cells(self):
        header, documented = re.search(r"```text\n(seq,.*)\n(.*)\n```", DOCUMENTED).groups()
        self.assertEqual(",".join(table.COLUMNS), f"{header},device")
        cells = dict(zip(table.COLUMNS, map(str, table.row(parse(FULL)))))
        self.assertEqual(len(table.row(parse(FULL))), len(table.COLUMNS))
        for name, cell in next(csv.DictReader([header, documented])).items():
            # The JSON line has no expression below 0.05.
            if not name.startswith("expression_") or float(cell) >= 0.05:
                self.assertEqual(cells[name], cell, name)
        self.assertEqual(cells["expression_surprise"], "")


if __name__ == "__main__":
    unittest.main()
