"""Whom we trust and who we are, in TLS; keys stay in memory.

OpenSSL takes client certificates from files only, so they are shown to it in a file that has no
name and lies on no disk: it is gone with the process, however that ends.
"""

import hashlib
import os
import ssl
from dataclasses import dataclass, field
from typing import Any

from backstay.errors import UsageError


@dataclass(frozen=True, slots=True)
class Trust:
    """What TLS to a server is made of.

    Attributes:
        authority: PEM of whom we trust; empty is whom the system trusts.
        certificate: PEM of ours; empty where we have none.
        key: PEM of its key.
        verify: whether the server has to prove its name.
        name: that the server's certificate must have; empty is the host's.
    """

    authority: bytes = field(default=b"", repr=False)
    certificate: bytes = field(default=b"", repr=False)
    key: bytes = field(default=b"", repr=False)
    verify: bool = True
    name: str = ""

    def digest(self) -> bytes:
        """Give what stands for all the PEM, and tells nothing of it."""
        parts = (self.authority, self.certificate, self.key)
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


class NamedContext(ssl.SSLContext):
    """What we trust and who we are, for a server whose certificate has another name.

    The libraries can be told the name in some of the ways to a server, and not in others (through
    a proxy): here it holds for all of them.
    """

    name: str | None = None

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        """Begin TLS on a socket."""
        return super().wrap_socket(*args, **self._named(options))

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Begin TLS without a socket."""
        return super().wrap_bio(*args, **self._named(options))

    def _named(self, options: dict[str, Any]) -> dict[str, Any]:
        return {**options, "server_hostname": self.name} if self.name else options


def tls_context(trust: Trust, where: str) -> ssl.SSLContext:
    """Make what a connection needs.

    Args:
        trust: what it is made of.
        where: it comes from, for messages.

    Raises:
        UsageError: it is no PEM, the key is not the certificate's, or has a passphrase.
    """
    if bool(trust.certificate) != bool(trust.key):
        raise UsageError(f"{where} has a client certificate without its key, or a key alone")
    context = NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.name = trust.name or None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not trust.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    reason = ""
    try:
        if trust.authority:
            # That authority and no other, as kubectl does. Bundles have comments in any language.
            context.load_verify_locations(cadata=trust.authority.decode("ascii", "ignore"))
        else:
            context.load_default_certs()
        if trust.certificate:
            _show(context, trust.certificate, trust.key)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
    if reason:
        raise UsageError(f"{where}: its certificates can't be used: {reason}")
    return context


def _show(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    fd = os.memfd_create("backstay", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(certificate.rstrip() + b"\n" + key.rstrip() + b"\n")
        # An empty password, so that nobody is asked for one at the terminal.
        context.load_cert_chain(f"/proc/self/fd/{fd}", password="")
    finally:
        os.close(fd)
