"""Which proxy leads to an API server, by the variables that kubectl obeys.

Source: golang.org/x/net/http/httpproxy. Networks in NO_PROXY count: OpenShift writes its own there,
and Python's library does not read them.
"""

import ipaddress
from urllib.parse import urlsplit
from urllib.request import getproxies_environment


def proxy_for(server: str) -> str | None:
    """Find the proxy for a server's URL; None where there is none."""
    parts = urlsplit(server)
    host = (parts.hostname or "").lower()
    proxies = getproxies_environment()
    url = proxies.get(parts.scheme)
    if not url or _is_local(host):
        return None
    excepted = [part.strip().lower() for part in proxies.get("no", "").split(",")]
    if any(_covers(part, host, parts.port) for part in excepted if part):
        return None
    return url if "://" in url else f"http://{url}"


def is_usable(url: str) -> bool:
    """Whether it is the URL of a proxy that can be used."""
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _covers(part: str, host: str, port: int | None) -> bool:
    """Whether a part of NO_PROXY means a host: `*`, a domain, an address, a network."""
    if part == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(part, strict=False)
    except ValueError:
        pass
    name, colon, number = part.rpartition(":")
    if colon and number.isdigit():
        if port is not None and int(number) != port:
            return False
        part = name
    part = part.removeprefix("*")
    return (
        host.endswith(part) if part.startswith(".") else host == part or host.endswith(f".{part}")
    )
