"""Which proxy leads to a server: as programs in Go decide it, so that all of a machine agree.

Source: golang.org/x/net/http/httpproxy. Networks in NO_PROXY count: OpenShift writes its own there,
and Python's library does not read them.
"""

import ipaddress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies_environment

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """The proxies of a machine, or of a cluster. False where there is none.

    Attributes:
        http: URL of the proxy to http:// servers; may hold a password; empty where there is none.
        https: of that to https:// servers.
        no_proxy: what is reached without, separated by commas: `*`, domains, addresses, networks.
    """

    http: str = field(default="", repr=False)
    https: str = field(default="", repr=False)
    no_proxy: str = ""

    @classmethod
    def of_environment(cls) -> Self:
        """Read HTTP_PROXY, HTTPS_PROXY and NO_PROXY, in capitals or not."""
        found = getproxies_environment()
        return cls(
            http=found.get("http", ""), https=found.get("https", ""), no_proxy=found.get("no", "")
        )

    def __bool__(self) -> bool:
        return bool(self.http or self.https)

    def leading_to(self, server: str) -> str | None:
        """Give the URL of the proxy that leads to a server; None where none does.

        Args:
            server: its URL.
        """
        try:
            parts = urlsplit(server)
            port = parts.port or _PORTS.get(parts.scheme)
        except ValueError:
            return None
        url = {"http": self.http, "https": self.https}.get(parts.scheme, "")
        if not url or self._excepts(parts, port):
            return None
        return url if "://" in url else f"http://{url}"

    @property
    def networks(self) -> tuple[str, ...]:
        """The addresses and networks among what is reached without."""
        return tuple(part for it in self.no_proxy.split(",") if _is_network(part := it.strip()))

    def _excepts(self, server: SplitResult, port: int | None) -> bool:
        host = (server.hostname or "").lower()
        if _is_local(host):
            return True
        excepted = (part.strip().lower() for part in self.no_proxy.split(","))
        return any(_covers(part, host, port) for part in excepted if part)


def is_usable(url: str) -> bool:
    """Whether it is the URL of a proxy that can be used."""
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def shown(url: str) -> str:
    """Write a proxy's URL for people: scheme, host and port, never a user or a password."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host or not host.isprintable():
        return "a proxy without an address"
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}{f':{port}' if port else ''}"


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _covers(part: str, host: str, port: int | None) -> bool:
    """Whether a part of NO_PROXY means a host: `*`, a domain, an address, a network."""
    if part == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(part, strict=False)
    except ValueError:
        pass
    name, colon, number = part.rpartition(":")
    if colon and number.isascii() and number.isdigit():
        if number != str(port):
            return False
        part = name
    part = part.removeprefix("[").removesuffix("]").removeprefix("*")
    if part.startswith("."):
        return host.endswith(part)
    return bool(part) and (host == part or host.endswith(f".{part}"))
