"""Kubeconfig files: which server is meant, and who we are there.

Read here, and not by a library: those that there are write client keys into temporary files and
leave them there, or know no `tokenFile`, or ask the server things that need rights of their own.

Source: k8s.io/client-go, tools/clientcmd (of several files the first that says something wins;
relative paths are relative to the file that has them).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from backstay.errors import UsageError
from backstay.files import read_private

_LIMIT = 4 << 20
_SHOWN = 10


class ReadFile(Protocol):
    """Reads a small file whole: a kubeconfig, or what it names."""

    def __call__(self, path: Path, *, limit: int) -> bytes:
        """Read it.

        Raises:
            BackstayError: it can't be read, or has more than `limit` bytes.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a context of a kubeconfig means.

    Attributes:
        name: of the context.
        file: where it stands.
        namespace: that it names; empty where it names none.
        cluster: the entry of its cluster.
        user: the entry of its user.
        cluster_folder: where relative paths of the cluster begin.
        user_folder: where those of the user begin.
        read: reads the files that it names.
    """

    name: str
    file: Path
    namespace: str
    cluster: Mapping[str, Any] = field(repr=False)
    user: Mapping[str, Any] = field(repr=False)
    cluster_folder: Path
    user_folder: Path
    read: ReadFile = read_private

    @property
    def here(self) -> bool:
        """Whether its files are this machine's, and not those of another root."""
        return self.read is read_private


def find_files(named: Path | None) -> tuple[Path, ...]:
    """Say which kubeconfig files there are: the one that is named, or those that kubectl reads.

    Raises:
        UsageError: the one that is named is not there.
    """
    if named is not None:
        if not named.exists() or named.is_dir():
            raise UsageError(f"there is no kubeconfig {named}", "look at --kubeconfig")
        return (named,)
    listed = os.environ.get("KUBECONFIG", "")
    paths = [Path(part) for part in listed.split(os.pathsep) if part]
    if not paths:
        try:
            paths = [Path.home() / ".kube" / "config"]
        except RuntimeError:  # a user without a home
            return ()
    return tuple(path for path in paths if path.is_file())


def read_context(
    files: tuple[Path, ...], wanted: str | None, read: ReadFile = read_private
) -> Context:
    """Find a context in kubeconfig files.

    Args:
        files: at least one.
        wanted: the context's name; None takes the current one.
        read: reads the files, and later those that they name.

    Raises:
        UsageError: a file is none, or there is no such context, cluster or user.
    """
    documents = [(path, _document(path, read)) for path in files]
    names = ", ".join(map(str, files))
    name = wanted or next((text for _, d in documents if (text := _text(d, "current-context"))), "")
    if not name:
        raise UsageError(f"{names} has no current context", "name one with --context")
    entry = _entry(documents, "contexts", "context", name)
    if entry is None:
        there = ", ".join(_names(documents, "contexts")[:_SHOWN]) or "none"
        raise UsageError(f"{names} has no context {name[:100]!r}", f"there are: {there}")
    file, context = entry
    cluster = _entry(documents, "clusters", "cluster", _text(context, "cluster"))
    if cluster is None:
        raise UsageError(f"{names}: context {name[:100]!r} names no cluster that is there")
    user = _entry(documents, "users", "user", _text(context, "user"))
    if user is None:
        user = (cluster[0], {})
    return Context(
        name=name,
        file=file,
        namespace=_text(context, "namespace"),
        cluster=cluster[1],
        user=user[1],
        cluster_folder=cluster[0].absolute().parent,
        user_folder=user[0].absolute().parent,
        read=read,
    )


def _document(path: Path, read: ReadFile) -> Mapping[str, Any]:
    data = read(path, limit=_LIMIT)
    try:
        document = YAML(typ="safe", pure=True).load(data.decode())
    except (YAMLError, ValueError, TypeError, AttributeError, RecursionError):
        # What the parser says may quote a token.
        document = False
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise UsageError(f"{path} is no kubeconfig", "mend it, or name another with --kubeconfig")
    return document


def _entry(
    documents: list[tuple[Path, Mapping[str, Any]]], plural: str, kind: str, name: str
) -> tuple[Path, Mapping[str, Any]] | None:
    for path, document in documents:
        for item in _items(document, plural):
            if item.get("name") == name and name:
                found = item.get(kind)
                return path, found if isinstance(found, dict) else {}
    return None


def _names(documents: list[tuple[Path, Mapping[str, Any]]], plural: str) -> list[str]:
    return [_text(item, "name") for _, document in documents for item in _items(document, plural)]


def _items(document: Mapping[str, Any], plural: str) -> list[Mapping[str, Any]]:
    items = document.get(plural)
    if not isinstance(items, list):
        return []
    return [item for item in items if isinstance(item, dict)]


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""
