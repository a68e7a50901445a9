"""What affectd sends, as dataclasses. The fields have the names and units of cross/messages.md; None means unknown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Any, Callable, NamedTuple, Union

SCHEMA = 1


class InvalidMessage(ValueError):
    """A text is not a message of affectd, or has a schema that this reader does not know."""


class Box(NamedTuple):
    """A rectangle in fractions of the camera frame, 0 to 1. x and y are its top left corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Face:
    """The tracked face."""

    id: int
    """The same while a face is tracked."""
    box: Box
    score: float
    """Certainty of the detector, 0 to 1."""


@dataclass(frozen=True)
class Voice:
    """The sound since the last estimate."""

    active: bool
    """Whether a person speaks."""
    level_db: float | None
    """dB relative to full scale; None for digital silence."""


@dataclass(frozen=True)
class Estimate:
    """One estimate of valence and arousal."""

    seq: int
    """Counts from 1."""
    t: float
    """Seconds on the source's clock."""
    time: datetime | None
    """Time of day in UTC; None while the board's clock is not synchronized, and in binary frames."""
    paused: bool
    """Whether camera and microphone are closed on request."""
    valence: float | None
    """-1 unpleasant to 1 pleasant."""
    arousal: float | None
    """-1 calm to 1 excited."""
    confidence: float | None
    """0 to 1: the weight for an average."""
    modalities: tuple[str, ...]
    """The modalities that valence and arousal use: "face", "voice", both or none."""
    face: Face | None
    voice: Voice | None
    expression: Mapping[str, float] | None
    """Probabilities of 0.05 and more, the most likely first; None without a face. Binary frames have only the first."""
    latency_ms: int | None
    """Milliseconds from the capture to the sending."""
    device: str | None = None
    """The name of the board on MQTT."""

    @property
    def time_text(self) -> str | None:
        """The time of day as affectd writes it, in RFC 3339."""
        return self.time and self.time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{self.time.microsecond // 1000:03}Z"

    @property
    def likely_expression(self) -> str | None:
        """The name of the most likely expression."""
        return next(iter(self.expression or ()), None)

    @classmethod
    def from_fields(cls, object_: Mapping[str, Any], device: str | None = None) -> Estimate:
        """Takes the fields of a JSON line."""
        get = _Fields(object_)
        face, voice = get("face", _optional(_mapping)), get("voice", _optional(_mapping))
        expression = get("expression", _optional(_probabilities))
        affect = {
            "valence": get("valence", _optional(_within(-1, 1))),
            "arousal": get("arousal", _optional(_within(-1, 1))),
            "confidence": get("confidence", _optional(_within(0, 1))),
        }
        if len({value is None for value in affect.values()}) > 1:
            raise InvalidMessage("valence, arousal and confidence are not known together")
        return cls(
            seq=get("seq", _count),
            t=get("t", _number),
            time=get("time", _optional(_time)),
            paused=get("paused", _boolean),
            **affect,
            modalities=get("modalities", _texts),
            face=face and Face(face("id", _count), face("box", _box), face("score", _number)),
            voice=voice and Voice(voice("active", _boolean), voice("level_db", _optional(_number))),
            expression=expression,
            latency_ms=get("latency_ms", _optional(_count)),
            device=device,
        )


@dataclass(frozen=True)
class Connection:
    """The board's connection to the MQTT broker."""

    estimates_waiting: int
    estimates_dropped: int
    messages_denied: int
    connections: int


@dataclass(frozen=True)
class Health:
    """A health report. The counters count since affectd started."""

    uptime_s: int
    camera: str
    microphone: str
    paused_by: tuple[str, ...]
    face_rate_hz: float
    frames: int
    frames_skipped: int
    frames_undecodable: int
    frames_malformed: int
    frames_missed: int
    frames_with_face: int
    xruns: int
    audio_blocks_lost: int
    estimates: int
    estimates_dropped: int
    estimates_skipped: int
    latency_p50_ms: int | None
    latency_p99_ms: int | None
    temperature_c: float | None
    """Degrees Celsius of the processor."""
    low_voltage: bool | None
    throttled: bool | None
    problem: str | None
    """What is wrong, in words."""
    mqtt: Connection | None = None
    device: str | None = None

    @classmethod
    def from_fields(cls, object_: Mapping[str, Any], device: str | None = None) -> Health:
        # The board may have an older affectd, which does not report every field: then it is unknown.
        reported = {field.name: field.type for field in fields(cls) if field.name not in ("mqtt", "device")}
        get = _Fields({**{name: None for name, type_ in reported.items() if type_.endswith("None")}, **object_})
        values = {name: get(name, _CHECKS[type_]) for name, type_ in reported.items()}
        mqtt = _optional(_mapping)(object_.get("mqtt"))
        connection = mqtt and Connection(*(mqtt(field.name, _count) for field in fields(Connection)))
        return cls(**values, mqtt=connection, device=device)


@dataclass(frozen=True)
class Status:
    """Whether a board is connected to the MQTT broker."""

    online: bool
    device: str | None = None


@dataclass(frozen=True)
class Answer:
    """The answer to a command other than `health`: the object with `ok` or `error`."""

    content: Mapping[str, Any]
    device: str | None = None


Message = Union[Estimate, Health, Status, Answer]


def parse(text: str | bytes, device: str | None = None) -> Message:
    """Reads one JSON object: an estimate, a health report or an answer. Unknown fields are ignored."""
    try:
        # NaN and Infinity are not JSON, although Python reads them.
        object_ = json.loads(text, parse_constant=_reject)
    except (ValueError, RecursionError):
        raise InvalidMessage("not JSON") from None
    if not isinstance(object_, dict):
        raise InvalidMessage("not a JSON object")
    # Only an answer has no schema of its own.
    if "schema" not in object_ and ("ok" in object_ or "error" in object_):
        content = object_.get("ok")
        if isinstance(content, dict) and "uptime_s" in content:
            return _report(content, device)
        return Answer(object_, device)
    return _report(object_, device)


def _report(object_: Mapping[str, Any], device: str | None) -> Message:
    schema = object_.get("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        raise InvalidMessage(f"schema {object_.get('schema')!r}, expected {SCHEMA}")
    return (Health if "uptime_s" in object_ else Estimate).from_fields(object_, device)


def to_json(message: Message) -> str:
    """One JSON line with affectd's field names, and `device` if it is known."""

    def plain(value: Any) -> dict[str, Any]:
        return {field.name: getattr(value, field.name) for field in fields(value)}

    content = {**message.content, "device": message.device} if isinstance(message, Answer) else plain(message)
    for name in ("device", "mqtt"):
        if content.get(name, 0) is None:
            del content[name]
    if isinstance(message, Estimate):
        content["time"] = message.time_text
    if isinstance(message, (Estimate, Health)):
        content = {"schema": SCHEMA, **content}
    return json.dumps(content, default=plain, separators=(",", ":"))


class _Fields:
    """Takes fields out of a JSON object, each with a check of its type."""

    def __init__(self, object_: Mapping[str, Any]):
        self._object = object_

    def __call__(self, name: str, check: Callable[[Any], Any]) -> Any:
        try:
            return check(self._object[name])
        except KeyError:
            raise InvalidMessage(f"no field {name}") from None
        except (TypeError, ValueError, ArithmeticError):
            raise InvalidMessage(f"field {name}: {self._object[name]!r}") from None


def _of(type_: type | tuple[type, ...]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        # In Python, but not in JSON, a boolean is a number.
        if not isinstance(value, type_) or (isinstance(value, bool) and type_ is not bool):
            raise TypeError
        return value

    return check


_boolean, _text, _integer = _of(bool), _of(str), _of(int)


def _reject(constant: str) -> None:
    raise ValueError(constant)


def _number(value: Any) -> float:
    number = float(_of((int, float))(value))
    if not math.isfinite(number):
        raise ValueError
    return number


def _within(low: float, high: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        number = _number(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return check


def _count(value: Any) -> int:
    if _integer(value) < 0:
        raise ValueError
    return value


def _time(value: Any) -> datetime:
    # fromisoformat understands Z only since Python 3.11.
    return datetime.strptime(_text(value), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(item) for item in _of(list)(value))


def _box(value: Any) -> Box:
    return Box(*(_number(side) for side in _of(list)(value)))


def _mapping(value: Any) -> _Fields:
    return _Fields(_of(dict)(value))


def _probabilities(value: Any) -> Mapping[str, float]:
    return {name: _number(probability) for name, probability in _of(dict)(value).items()}


def _optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


# The checks of the fields of Health, by their annotations, which are texts here.
_CHECKS = {
    "int": _count,
    "float": _number,
    "str": _text,
    "tuple[str, ...]": _texts,
    "int | None": _optional(_count),
    "float | None": _optional(_number),
    "bool | None": _optional(_boolean),
    "str | None": _optional(_text),
}
