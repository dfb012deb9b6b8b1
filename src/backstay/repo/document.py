"""Small JSON documents from outside: bounded, no key twice, and nothing that is too new.

Source: docs/formats.md. msgspec takes a key that stands twice, and deep nesting until the stack
ends; a document is looked at here before it is given to it.
"""

import json
from typing import Any, TypeVar

import msgspec

from backstay.errors import FormatError

MAX_SIZE = 16 << 20
FORMAT = 1

T = TypeVar("T")


def decode(data: bytes, kind: type[T], name: str) -> T:
    """Read a document of a known type.

    Args:
        data: its bytes.
        kind: a msgspec Struct.
        name: what messages call the document.

    Raises:
        FormatError: it is no such document, or asks for what this version does not know.
    """
    if len(data) > MAX_SIZE:
        raise FormatError(f"{name} has {len(data)} bytes", f"more than {MAX_SIZE} are not read")
    try:
        raw = json.loads(data, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name} is no JSON document: {_short(error)}") from error
    _check_needs(raw, name)
    try:
        return msgspec.convert(raw, kind)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        raise FormatError(f"{name} makes no sense: {_short(error)}") from error


def _short(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key stands twice")
    return document


def _check_needs(raw: Any, name: str) -> None:
    if not isinstance(raw, dict):
        raise FormatError(f"{name} is no JSON object")
    version = raw.get("format")
    needs = raw.get("requires", [])
    if isinstance(version, int) and version > FORMAT:
        raise FormatError(f"{name} has format {version}", "update backstay to read it")
    if needs and isinstance(needs, list):
        words = ", ".join(str(need)[:40] for need in needs[:5])
        raise FormatError(f"{name} requires {words}", "update backstay to read it")


def encode(document: msgspec.Struct) -> bytes:
    """Write a document: indented JSON, fields in the order of the type, a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def plain(document: msgspec.Struct) -> Any:
    """Turn a document into dictionaries and lists, as --json prints it."""
    return msgspec.to_builtins(document)
