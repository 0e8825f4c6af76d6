"""Where the sidecar listens, and whether an address leads back to it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_DEFAULT_PORT: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to listen on; port 0 takes a free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Listen:
        """Read `HOST:PORT` or `[IPV6]:PORT`.

        Raises:
            ValueError: If it is neither.
        """
        host, colon, port = text.strip().rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        if not colon or not host or (":" in host and not bracketed):
            raise ValueError(f"{text!r} is not HOST:PORT")
        if not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError(f"{port!r} is not a port (0 to 65535)")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def bind(self) -> socket.socket:
        """Bind a TCP socket here, listening not yet.

        Raises:
            OSError: If the address is taken or not ours; the text names it.
        """
        try:
            family, kind, proto, _, address = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            sock = socket.socket(family, kind, proto)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(address)
            except OSError:
                sock.close()
                raise
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {self}: {error.strerror or error}") from error
        return sock


def bound(sock: socket.socket) -> Listen:
    """Where a bound socket listens."""
    host, port = sock.getsockname()[:2]
    return Listen(host, port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_listener(endpoint: str, listeners: Iterable[Listen]) -> Listen | None:
    """The listener of ours that the URL `endpoint` leads to, under whatever name; else None.

    Resolves the name, so it may block for as long as the resolver does. A name that does not
    resolve is not ours.
    """
    url = urlsplit(endpoint)
    host, port = url.hostname or "", url.port or _DEFAULT_PORT.get(url.scheme, 0)
    here = [listener for listener in listeners if listener.port == port]
    if not here:
        return None
    names_us = host.casefold() in {socket.gethostname().casefold(), socket.getfqdn().casefold()}
    targets = [_plain(text) for text in _resolve(host)]
    for listener in here:
        own = [_plain(text) for text in _resolve(listener.host)]
        if names_us or any(_leads_to(target, address) for target in targets for address in own):
            return listener
    return None


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _resolve(host: str) -> list[str]:
    try:
        return [
            str(info[4][0]).partition("%")[0]
            for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        ]
    except OSError:
        return []


def _plain(text: str) -> _Address:
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def _leads_to(target: _Address, listener: _Address) -> bool:
    if target == listener:
        return True
    # Connecting to 0.0.0.0 or :: reaches this machine, as does any loopback address.
    if target.is_loopback or target.is_unspecified:
        return listener.is_loopback or listener.is_unspecified
    return listener.is_unspecified and _is_local(target)


def _is_local(address: _Address) -> bool:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True
