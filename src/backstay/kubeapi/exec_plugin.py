"""Credential plugins: programs that a kubeconfig names, which print who we are.

Source: client.authentication.k8s.io/v1, ExecCredential.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backstay.errors import KubeError, UsageError

_VERSIONS = {"client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"}
#: Seconds; a login in a browser takes a while.
_PATIENCE = 300
_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Told:
    """What a plugin said.

    Attributes:
        token: a bearer token; empty where it gave none.
        certificate: PEM; empty where it gave none.
        key: PEM; empty where it gave none.
    """

    token: str = field(default="", repr=False)
    certificate: bytes = field(default=b"", repr=False)
    key: bytes = field(default=b"", repr=False)


def ask(entry: Mapping[str, Any], folder: Path, cluster: Mapping[str, Any]) -> Told:
    """Run a plugin. It may talk to the user at the terminal, where there is one.

    Args:
        entry: `exec` of a user.
        folder: of the kubeconfig.
        cluster: the entry of the cluster, of which some plugins want to know.

    Raises:
        UsageError: the entry makes no sense, or the program is not there.
        KubeError: the program failed, or did not say who we are.
    """
    version = str(entry.get("apiVersion", ""))[:100]
    if version not in _VERSIONS:
        raise UsageError(f"the kubeconfig's credential plugin is of {version!r}", "update it")
    command = [_program(entry, folder), *_texts(entry.get("args"))]
    name = Path(command[0]).name
    interactive = _interactive(entry, name)
    spec = {"interactive": interactive, **_described(entry, cluster)}
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
    environment = {**os.environ, **_variables(entry), "KUBERNETES_EXEC_INFO": json.dumps(info)}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=_PATIENCE,
            check=False,
        )
    except FileNotFoundError as error:
        hint = str(entry.get("installHint") or "install it, or put it on PATH")[:300]
        raise UsageError(f"the kubeconfig's credential plugin {name} is not there", hint) from error
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        # What TimeoutExpired says holds the arguments.
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise KubeError(f"the credential plugin {name} failed: {reason}") from None
    if done.returncode != 0:
        raise KubeError(
            f"the credential plugin {name} ended with {done.returncode}", "log in again with it"
        )
    return _read(done.stdout[:_LIMIT], name)


def _interactive(entry: Mapping[str, Any], name: str) -> bool:
    """Whether it may ask the user something."""
    mode = entry.get("interactiveMode", "IfAvailable")
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if mode == "Always" and not terminal:
        raise UsageError(
            f"the credential plugin {name} wants to talk to somebody, and there is no terminal",
            "log in with it first, or use another context",
        )
    return terminal and mode != "Never"


def _described(entry: Mapping[str, Any], cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Tell about the cluster, to a plugin that asks for that."""
    if entry.get("provideClusterInfo") is not True:
        return {}
    names = (
        "server",
        "tls-server-name",
        "insecure-skip-tls-verify",
        "certificate-authority-data",
        "proxy-url",
    )
    return {"cluster": {name: cluster[name] for name in names if cluster.get(name)}}


def _program(entry: Mapping[str, Any], folder: Path) -> str:
    command = entry.get("command")
    if not isinstance(command, str) or not command:
        raise UsageError("the kubeconfig's credential plugin has no command")
    # A path is relative to the kubeconfig; a bare name is looked for on PATH.
    return str(folder / command) if "/" in command else command


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _variables(entry: Mapping[str, Any]) -> dict[str, str]:
    listed = entry.get("env")
    found = {}
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, dict) and isinstance(item.get("name"), str):
            found[item["name"]] = str(item.get("value", ""))
    return found


def _read(data: bytes, name: str) -> Told:
    status = None
    with suppress(ValueError, AttributeError, RecursionError):
        status = json.loads(data).get("status")
    if not isinstance(status, dict):
        raise KubeError(f"the credential plugin {name} did not say who we are")
    token, certificate, key = (
        value if isinstance(value := status.get(field), str) else ""
        for field in ("token", "clientCertificateData", "clientKeyData")
    )
    if not token and not (certificate and key):
        raise KubeError(f"the credential plugin {name} gave neither a token nor a certificate")
    return Told(token, certificate.encode(), key.encode())
