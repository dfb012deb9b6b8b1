"""Which proxy leads to an API server, by the variables that kubectl obeys."""

from backstay.client.proxy import Proxies


def proxy_for(server: str) -> str | None:
    """Find the proxy for a server's URL; None where there is none."""
    return Proxies.of_environment().leading_to(server)
