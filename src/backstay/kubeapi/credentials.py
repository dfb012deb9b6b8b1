"""Who we are for an API server: by a kubeconfig, or as the service account of our pod.

Keys stay in memory: OpenSSL takes certificates from files only, so they are shown to it in a
file that has no name and lies on no disk.
"""

import base64
import binascii
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backstay.errors import UsageError
from backstay.files import read_private
from backstay.kubeapi import exec_plugin
from backstay.kubeapi.kubeconfig import Context, find_files, read_context
from backstay.kubeapi.proxy import proxy_for

_LIMIT = 1 << 20
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """How to reach an API server, and who we are there.

    Attributes:
        server: its URL, without a slash at the end.
        tls: what we trust and who we are; None for a plain http:// server.
        headers: of each request; they hold secrets.
        proxy: URL of the proxy; may hold a password.
        server_name: the name that the certificate must have, if not the host's.
        namespace: that the context names; empty where it names none.
        origin: where all that is from, for messages.
        insecure: whether the kubeconfig says not to verify the server.
    """

    server: str
    tls: ssl.SSLContext | None = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    proxy: str | None = field(default=None, repr=False)
    server_name: str | None = None
    namespace: str = ""
    origin: str = ""
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class Login:
    """Where credentials come from; read again when a server does not take them any more.

    Attributes:
        kubeconfig: the file that the user names; None looks where kubectl looks.
        context: that the user names; None takes the current one.
        service_account: where a pod has its token.
    """

    kubeconfig: Path | None = None
    context: str | None = None
    service_account: Path = SERVICE_ACCOUNT

    def read(self) -> Credentials:
        """Read who we are; tokens and plugins are asked anew each time.

        Raises:
            UsageError: there is no kubeconfig and no service account, or they make no sense.
            KubeError: a credential plugin failed.
        """
        files = find_files(self.kubeconfig)
        if files:
            return _of_context(read_context(files, self.context), str(files[0]))
        if self.context:
            raise UsageError(
                f"there is no kubeconfig to look for context {self.context[:100]!r} in",
                "name one with --kubeconfig or KUBECONFIG",
            )
        if (self.service_account / "token").is_file():
            return _of_pod(self.service_account)
        raise UsageError(
            "nothing says which cluster is meant: there is no kubeconfig, and this is no pod",
            "name a kubeconfig with --kubeconfig or KUBECONFIG",
        )


def _of_pod(folder: Path) -> Credentials:
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise UsageError("KUBERNETES_SERVICE_HOST is not set, so the API can't be found")
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    token = _token(read_private(folder / "token", limit=_LIMIT), str(folder / "token"))
    authority = read_private(folder / "ca.crt", limit=_LIMIT)
    return Credentials(
        server=server,
        tls=_tls(authority, b"", b"", verify=True, where=str(folder)),
        headers={"Authorization": f"Bearer {token}"},
        proxy=proxy_for(server),
        origin="the pod's service account",
    )


def _of_context(context: Context, file: str) -> Credentials:
    cluster, user = context.cluster, context.user
    where = f"context {context.name[:100]} of {file}"
    server = _text(cluster, "server").rstrip("/")
    if not server.startswith(("https://", "http://")):
        raise UsageError(f"{where} has no server", "mend the kubeconfig")
    told = exec_plugin.Told()
    if isinstance(user.get("exec"), dict):
        told = exec_plugin.ask(user["exec"], context.user_folder)
    certificate = told.certificate or _data(user, "client-certificate", context.user_folder, where)
    key = told.key or _data(user, "client-key", context.user_folder, where)
    insecure = cluster.get("insecure-skip-tls-verify") is True
    tls = None
    if server.startswith("https://"):
        authority = _data(cluster, "certificate-authority", context.cluster_folder, where)
        tls = _tls(authority, certificate, key, verify=not insecure, where=where)
    return Credentials(
        server=server,
        tls=tls,
        headers=_headers(context, told.token, where, has_certificate=bool(certificate)),
        proxy=_text(cluster, "proxy-url") or proxy_for(server),
        server_name=_text(cluster, "tls-server-name") or None,
        namespace=context.namespace,
        origin=where,
        insecure=insecure,
    )


def _headers(context: Context, token: str, where: str, *, has_certificate: bool) -> dict[str, str]:
    user = context.user
    if not token and _text(user, "tokenFile"):
        path = context.user_folder / _text(user, "tokenFile")
        token = _token(read_private(path, limit=_LIMIT), str(path))
    token = token or _text(user, "token")
    headers = {}
    if token:
        headers["Authorization"] = f"Bearer {_token(token.encode(), where)}"
    elif not has_certificate and ("auth-provider" in user or "username" in user):
        raise UsageError(
            f"{where} logs in by a way that Kubernetes has given up (a password, or an"
            " auth-provider)",
            "use a token, a certificate or a credential plugin",
        )
    if _text(user, "as"):
        headers["Impersonate-User"] = _text(user, "as")
    return headers


def _token(data: bytes, where: str) -> str:
    text = data.decode(errors="replace").strip()
    if not text or not text.isascii() or not text.isprintable():
        raise UsageError(f"{where} holds no token", "log in again")
    return text


def _data(entry: Mapping[str, Any], name: str, folder: Path, where: str) -> bytes:
    """A certificate or key, from within the kubeconfig or from a file beside it."""
    inline, path = _text(entry, f"{name}-data"), _text(entry, name)
    if inline:
        try:
            return base64.b64decode(inline, validate=True)
        except (binascii.Error, ValueError):
            pass
        # The text is a secret, and the library's error would hold it.
        raise UsageError(f"{where}: {name}-data is no base64", "mend the kubeconfig")
    return read_private(folder / path, limit=_LIMIT) if path else b""


def _tls(
    authority: bytes, certificate: bytes, key: bytes, *, verify: bool, where: str
) -> ssl.SSLContext:
    if bool(certificate) != bool(key):
        raise UsageError(f"{where} has a client certificate without its key, or a key alone")
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    reason = ""
    try:
        if authority:
            context = _trusting(authority, context)
        if certificate:
            _show(context, certificate, key)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
    if reason:
        raise UsageError(f"{where}: its certificates can't be used: {reason}")
    return context


def _trusting(authority: bytes, default: ssl.SSLContext) -> ssl.SSLContext:
    """Trust that authority and no other, as kubectl does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = default.minimum_version
    context.check_hostname = default.check_hostname
    context.verify_mode = default.verify_mode
    context.load_verify_locations(cadata=authority.decode("ascii"))
    return context


def _show(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    fd = os.memfd_create("backstay", os.MFD_CLOEXEC)
    try:
        os.write(fd, certificate.rstrip() + b"\n" + key.rstrip() + b"\n")
        context.load_cert_chain(f"/proc/self/fd/{fd}", password="")
    finally:
        os.close(fd)


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""
