"""Prints what affectd sends, for reading, as CSV or as JSON lines. Counts go to standard error at the end."""

from __future__ import annotations

import argparse
import contextlib
import csv
import logging
import os
import sys
from dataclasses import asdict

from . import errors, table
from .records import Answer, Estimate, Health, Message, Status, to_json
from .sources import Reader, SourceError

SOURCES = """sources:
  -                                       JSON lines on standard input
  FILE, file:FILE                         JSON lines of a file
  serial:/dev/ttyUSB0?baud=115200&wire=json  a serial port; or wire=frame
  mqtt://[user@]host[:port][/base]        an MQTT broker, all devices; also mqtts://, and the options
                                          device=, password_file=, ca=, cert=, key= after ?, with & between them
"""


def readable(message: Message) -> str:
    """A line for people, with escapes for what could control the terminal."""
    return "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in _line(message))


def _line(message: Message) -> str:
    device = f"{message.device}: " if message.device else ""
    if isinstance(message, Estimate):
        if message.valence is None:
            return f"{device}{message.t:8.1f} s  {'paused' if message.paused else 'nobody'}"
        expression = message.likely_expression or "no face"
        return (
            f"{device}{message.t:8.1f} s  valence {message.valence:+.2f}  arousal {message.arousal:+.2f}  "
            f"confidence {message.confidence:.2f}  {expression}"
        )
    if isinstance(message, Health):
        return f"{device}health: {message.problem or 'no problem'}, up {message.uptime_s} s"
    if isinstance(message, Status):
        return f"{device}{'online' if message.online else 'offline'}"
    return f"{device}{to_json(Answer(message.content))}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="affectd_reader", description=__doc__, epilog=SOURCES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--csv", action="store_true", help="the estimates, with the columns of affectd's CSV and the device"
    )
    form.add_argument("--json", action="store_true", help="one object per message")
    parser.add_argument(
        "--follow", action="store_true", help="wait for more in a file, also after a rotation, as tail -F does"
    )
    arguments = parser.parse_args()
    logging.basicConfig(format="affectd_reader: %(message)s")
    try:
        reader = Reader(arguments.source, follow=arguments.follow)
        with contextlib.suppress(KeyboardInterrupt):
            show(reader, arguments)
        print(", ".join(f"{count} {name}" for name, count in asdict(reader.counters).items()), file=sys.stderr)
    except SourceError as error:
        print(f"affectd_reader: {error}", file=sys.stderr)
        return 2
    except UnicodeError as error:
        print(f"affectd_reader: standard output: {error}", file=sys.stderr)
        return 5
    except BrokenPipeError:
        # The program that read the output has ended. Nothing may be written any more, also not at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"affectd_reader: standard output: {errors.of_file(error)}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 5
    return 0


def show(reader: Reader, arguments: argparse.Namespace) -> None:
    if arguments.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(table.COLUMNS)
        for estimate in reader.estimates():
            writer.writerow(table.row(estimate))
            sys.stdout.flush()
    else:
        for message in reader:
            print(to_json(message) if arguments.json else readable(message), flush=True)


if __name__ == "__main__":
    sys.exit(main())
