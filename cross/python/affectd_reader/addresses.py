"""The addresses of sources: serial ports and MQTT brokers."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from . import errors
from .errors import SourceError

# Schemes that people use for brokers elsewhere, and that of affectd.
_OTHER_SCHEMES = {
    "http": "mqtt",
    "tcp": "mqtt",
    "ws": "mqtt",
    "https": "mqtts",
    "wss": "mqtts",
    "ssl": "mqtts",
    "tls": "mqtts",
}


@dataclass(frozen=True)
class Serial:
    port: str
    baud: int
    wire: str

    @classmethod
    def parse(cls, source: str) -> Serial:
        port, _, query = source[len("serial:") :].partition("?")
        given = read_options(source, query, {"baud": "115200", "wire": "json"})
        if given["wire"] not in ("json", "frame"):
            raise SourceError(f"{source}: wire={given['wire']}: must be json or frame")
        if not given["baud"].isdecimal():
            raise SourceError(f"{source}: baud={given['baud']}: must be a number")
        if not port:
            raise SourceError(f"{source}: names no port, for example serial:/dev/ttyUSB0")
        return cls(port, int(given["baud"]), given["wire"])


@dataclass(frozen=True)
class Mqtt:
    host: str
    port: int
    base: str
    """The topics' beginning, with + for any device."""
    tls: bool
    user: str | None
    password: str | None
    ca: str
    cert: str
    key: str

    @classmethod
    def parse(cls, source: str) -> Mqtt:
        shown = without_password(source)
        try:
            url = urlsplit(source)
            port = url.port
        except ValueError:
            # The error of urlsplit may quote a part of the password.
            raise SourceError(
                f"{shown}: is not an address: the port is a number, and /, # and ? in a password are %2F, %23 and %3F"
            ) from None
        given = read_options(shown, url.query, {"device": "", "password_file": "", "ca": "", "cert": "", "key": ""})
        base = url.path.strip("/")
        if base and given["device"]:
            raise SourceError(f"{shown}: give a base or a device, not both")
        if not url.hostname:
            raise SourceError(f"{shown}: names no broker, for example mqtt://broker.lan")
        try:
            url.hostname.encode("idna")
        except UnicodeError:
            raise SourceError(f"{shown}: {url.hostname!r} is not a host name") from None
        if any(sign in base + given["device"] for sign in "+#"):
            raise SourceError(f"{shown}: a base or a device has no + and no #: leave it out for all boards")
        password = unquote(url.password) if url.password else None
        if given["password_file"]:
            try:
                password = Path(given["password_file"]).read_text().rstrip("\n")
            except OSError as error:
                raise SourceError(f"{given['password_file']}: {errors.of_file(error)}") from None
            except UnicodeDecodeError:
                raise SourceError(
                    f"{given['password_file']}: is not text: write the password into a text file"
                ) from None
        tls = url.scheme == "mqtts"
        return cls(
            host=url.hostname,
            port=port or (8883 if tls else 1883),
            base=base or f"affectd/{given['device'] or '+'}",
            tls=tls,
            user=unquote(url.username) if url.username else None,
            password=password,
            ca=given["ca"],
            cert=given["cert"],
            key=given["key"],
        )

    def client(self, paho):
        version = getattr(paho, "CallbackAPIVersion", None)  # Since paho-mqtt 2.
        client = paho.Client(version.VERSION2) if version else paho.Client()
        if self.user is not None:
            client.username_pw_set(self.user, self.password)
        if self.tls:
            client.tls_set_context(self._tls_context())
        return client

    def _tls_context(self) -> ssl.SSLContext:
        for path in filter(None, (self.ca, self.cert, self.key)):
            try:
                Path(path).read_bytes()
            except OSError as error:
                raise SourceError(f"{path}: {errors.of_file(error)}") from None
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except ssl.SSLError:
            raise SourceError(f"{self.ca}: has no certificate: name a PEM file for ca=") from None
        if self.cert:
            try:
                context.load_cert_chain(self.cert, self.key or None)
            except ssl.SSLError:
                raise SourceError(
                    f"{self.cert}: holds no certificate that belongs to the key: name PEM files for cert= and key="
                ) from None
        return context

    def name(self, base: str) -> str:
        """The device of a topic."""
        return base[len("affectd/") :] if base.startswith("affectd/") else base


def without_password(source: str) -> str:
    """The source for messages: an address may have a password in it."""
    scheme, separator, rest = source.partition("://")
    if separator:
        return scheme + separator + rest.rpartition("@")[2]
    # An address without its slashes.
    is_address = source.lower().startswith(("mqtt:", "mqtts:", "http:", "https:")) and "@" in source
    return f"{source.partition(':')[0]}:…@{source.rpartition('@')[2]}" if is_address else source


def refuse_scheme(source: str) -> None:
    """Raises SourceError if the source looks like an address, and is none of affectd's."""
    scheme, colon, rest = source.partition(":")
    known, shown = scheme.lower(), without_password(source)
    if colon and known in ("mqtt", "mqtts"):
        raise SourceError(
            f"{shown}: unknown kind of address: write {known}://HOST, in small letters and with two slashes"
        )
    if not (rest.startswith("//") and scheme.isalpha()):
        return
    if known in _OTHER_SCHEMES:
        raise SourceError(f"{shown}: {scheme}:// is not an MQTT broker: write {_OTHER_SCHEMES[known]}://HOST")
    raise SourceError(f"{shown}: unknown kind of address: expected mqtt://, mqtts://, serial:, file:, a file or -")


def read_options(source: str, query: str, defaults: dict[str, str]) -> dict[str, str]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    unknown = [name for name in given if name not in defaults]
    if unknown:
        raise SourceError(f"{source}: unknown option {unknown[0]}: expected {', '.join(defaults)}")
    return {**defaults, **given}
