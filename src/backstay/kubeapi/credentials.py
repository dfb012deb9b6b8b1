"""Who we are for an API server: by a kubeconfig, or as the service account of our pod.

kr8s is not used: it writes keys into files of the temporary directory and leaves them there, asks
the server for its version first, follows redirects with the token, and knows no `tokenFile`.
"""

import base64
import binascii
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from backstay.errors import UsageError
from backstay.files import read_private
from backstay.kubeapi import exec_plugin
from backstay.kubeapi.kubeconfig import Context, ReadFile, find_files, read_context
from backstay.kubeapi.proxy import proxy_for
from backstay.kubeapi.trust import Trust, tls_context

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
        server_name: the name that the certificate must have, if not the host's; `tls` holds to
            it by itself.
        namespace: that the context names; empty where it names none.
        origin: where all that is from, for messages.
        insecure: whether the kubeconfig says not to verify the server.
        material: stands for the certificates and the key that `tls` was made of.
    """

    server: str
    tls: ssl.SSLContext | None = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    proxy: str | None = field(default=None, repr=False)
    server_name: str | None = None
    namespace: str = ""
    origin: str = ""
    insecure: bool = False
    material: bytes = field(default=b"", repr=False)

    @property
    def connection(self) -> tuple[object, ...]:
        """All that a connection is made by; while it is equal, connections can stay."""
        return (self.server, self.material, self.proxy, self.server_name, self.insecure)

    def describe(self) -> str:
        """Say in a few words which cluster it is, and a warning where its name is not proven."""
        text = f"{self.server} ({self.origin})"
        return f"{text}; WARNING: its certificate is not verified" if self.insecure else text


@dataclass(frozen=True, slots=True)
class Login:
    """Where credentials come from; read again when a server does not take them any more.

    Attributes:
        kubeconfig: the file that the user names; None looks where kubectl looks.
        context: that the user names; None takes the current one.
        service_account: where a pod has its token.
        read_file: reads the kubeconfig and what it names, where these are no files of this machine;
            nothing else is looked for then.
    """

    kubeconfig: Path | None = None
    context: str | None = None
    service_account: Path = SERVICE_ACCOUNT
    read_file: ReadFile | None = None

    def read(self) -> Credentials:
        """Read who we are; tokens and plugins are asked anew each time.

        Raises:
            UsageError: there is no kubeconfig and no service account, or they make no sense.
            KubeError: a credential plugin failed.
        """
        if self.read_file is not None and self.kubeconfig is not None:
            return _of_context(read_context((self.kubeconfig,), self.context, self.read_file))
        files = find_files(self.kubeconfig)
        if files:
            return _of_context(read_context(files, self.context))
        if self.context:
            raise UsageError(
                f"there is no kubeconfig to look for context {self.context[:100]!r} in",
                "name one with --kubeconfig or KUBECONFIG",
            )
        if (self.service_account / "token").is_file():
            return _of_pod(self.service_account)
        listed = os.environ.get("KUBECONFIG", "")
        missing = f" ({listed[:200]} is not there)" if listed else ""
        raise UsageError(
            "nothing says which cluster is meant: there is no kubeconfig"
            f"{missing}, and this is no pod",
            "name a kubeconfig with --kubeconfig or KUBECONFIG",
        )


def _of_pod(folder: Path) -> Credentials:
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise UsageError("KUBERNETES_SERVICE_HOST is not set, so the API can't be found")
    server = _server(f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}", "pod")
    token = _token(read_private(folder / "token", limit=_LIMIT), str(folder / "token"))
    trust = Trust(authority=read_private(folder / "ca.crt", limit=_LIMIT))
    return Credentials(
        server=server,
        tls=tls_context(trust, str(folder)),
        headers={"Authorization": f"Bearer {token}"},
        proxy=proxy_for(server),
        origin="the pod's service account",
        material=trust.digest(),
    )


def _of_context(context: Context) -> Credentials:
    cluster = context.cluster
    where = f"context {context.name[:100]} of {context.file}"
    server = _server(_text(cluster, "server"), where)
    insecure = cluster.get("insecure-skip-tls-verify") is True
    name = _text(cluster, "tls-server-name")
    tls, trust, headers = None, Trust(), dict[str, str]()
    if server.startswith("https://"):
        # As with kubectl, nobody logs in where all can listen.
        told = _told(context, where)
        user = context.user
        trust = Trust(
            authority=_data(cluster, "certificate-authority", context, where),
            certificate=told.certificate or _data(user, "client-certificate", context, where),
            key=told.key or _data(user, "client-key", context, where),
            verify=not insecure,
            name=name,
        )
        tls = tls_context(trust, where)
        has_certificate = bool(trust.certificate)
        headers = _headers(context, told.token, where, has_certificate=has_certificate)
    return Credentials(
        server=server,
        tls=tls,
        headers=headers,
        proxy=_text(cluster, "proxy-url") or proxy_for(server),
        server_name=name or None,
        namespace=context.namespace,
        origin=where,
        insecure=insecure,
        material=trust.digest(),
    )


def _told(context: Context, where: str) -> exec_plugin.Told:
    """Ask the credential plugin, where there is one."""
    entry = context.user.get("exec")
    if not isinstance(entry, dict):
        return exec_plugin.Told()
    if not context.here:
        raise UsageError(
            f"{where} asks a program who we are, and that is not run here",
            "name another kubeconfig with --kubeconfig",
        )
    return exec_plugin.ask(entry, context.user_folder, context.cluster)


def _server(text: str, where: str) -> str:
    """Take a server's URL, if it is one that is only an address."""
    try:
        url = urlsplit(text.strip())
        whole = bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        whole = False
    if not whole or url.scheme not in {"https", "http"} or not text.isascii():
        raise UsageError(f"{where} has no server with an https:// URL", "mend the kubeconfig")
    if "@" in url.netloc or url.query or url.fragment:
        # It may be a password: it is not repeated.
        raise UsageError(f"{where} has a server with more than an address", "mend the kubeconfig")
    return url.geturl().rstrip("/")


def _headers(context: Context, token: str, where: str, *, has_certificate: bool) -> dict[str, str]:
    user = context.user
    if not token and _text(user, "tokenFile"):
        path = context.user_folder / _text(user, "tokenFile")
        token = _token(context.read(path, limit=_LIMIT), str(path))
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
    return headers | _impersonation(user, where)


def _impersonation(user: Mapping[str, Any], where: str) -> dict[str, str]:
    """Act as another user, where the kubeconfig says so.

    What can't be obeyed is refused: without it we might have more rights than were meant.
    """
    if any(user.get(name) for name in ("as-groups", "as-user-extra")):
        raise UsageError(
            f"{where} acts as another user with groups or extras of its own, which is not known"
            " here",
            "use a context without as-groups and as-user-extra",
        )
    headers = {}
    for name, header in (("as", "Impersonate-User"), ("as-uid", "Impersonate-Uid")):
        text = _text(user, name)
        if text and not (text.isascii() and text.isprintable()):
            raise UsageError(f"{where}: its {name!r} is no name", "mend the kubeconfig")
        if text:
            headers[header] = text
    return headers


def _token(data: bytes, where: str) -> str:
    text = data.decode(errors="replace").strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise UsageError(f"{where} holds no token", "log in again")
    return text


def _data(entry: Mapping[str, Any], name: str, context: Context, where: str) -> bytes:
    """A certificate or key, from within the kubeconfig or from a file beside it."""
    inline, path = _text(entry, f"{name}-data"), _text(entry, name)
    if inline:
        try:
            return base64.b64decode("".join(inline.split()), validate=True)
        except (binascii.Error, ValueError):
            pass
        # The text is a secret, and the library's error would hold it.
        raise UsageError(f"{where}: {name}-data is no base64", "mend the kubeconfig")
    folder = context.cluster_folder if entry is context.cluster else context.user_folder
    return context.read(folder / path, limit=_LIMIT) if path else b""


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""
