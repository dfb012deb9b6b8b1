"""Credential plugins: programs that a kubeconfig names, which print who we are.

Source: client.authentication.k8s.io/v1, ExecCredential.
"""

import json
import os
import subprocess
from collections.abc import Mapping
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


def ask(entry: Mapping[str, Any], folder: Path) -> Told:
    """Run a plugin.

    Args:
        entry: `exec` of a user.
        folder: of the kubeconfig.

    Raises:
        UsageError: the entry makes no sense, or the program is not there.
        KubeError: the program failed, or did not say who we are.
    """
    version = str(entry.get("apiVersion", ""))[:100]
    if version not in _VERSIONS:
        raise UsageError(f"the kubeconfig's credential plugin is of {version!r}", "update it")
    command = [_program(entry, folder), *_texts(entry.get("args"))]
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    environment = {**os.environ, "KUBERNETES_EXEC_INFO": json.dumps(info), **_variables(entry)}
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=_PATIENCE,
            check=False,
        )
    except FileNotFoundError as error:
        hint = str(entry.get("installHint") or "install it, or put it on PATH")[:300]
        raise UsageError(f"the kubeconfig's credential plugin {name} is not there", hint) from error
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise KubeError(f"the credential plugin {name} failed: {type(error).__name__}") from None
    if done.returncode != 0:
        raise KubeError(
            f"the credential plugin {name} ended with {done.returncode}", "log in again with it"
        )
    return _read(done.stdout[:_LIMIT], name)


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
    try:
        status = json.loads(data).get("status")
    except (ValueError, AttributeError, RecursionError):
        status = None
    if not isinstance(status, dict):
        raise KubeError(f"the credential plugin {name} did not say who we are")
    token, certificate, key = (
        value if isinstance(value := status.get(field), str) else ""
        for field in ("token", "clientCertificateData", "clientKeyData")
    )
    if not token and not (certificate and key):
        raise KubeError(f"the credential plugin {name} gave neither a token nor a certificate")
    return Told(token, certificate.encode(), key.encode())
