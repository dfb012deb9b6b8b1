"""Small JSON documents from outside: bounded, no key twice, and nothing that is too new.

Source: docs/formats.md. msgspec takes a key that stands twice, and deep nesting until the stack
ends; Python's parser takes other encodings than UTF-8, and numbers that are none. A document is
looked at here before it is given to either.
"""

import json
import math
import threading
from datetime import datetime
from typing import Any, NoReturn, TypeVar

import msgspec

from backstay.errors import FormatError

MAX_SIZE = 16 << 20
FORMAT = 1
_FIRST_YEAR, _LAST_YEAR = 1970, 9000

T = TypeVar("T")

_learning = threading.Lock()
_learned = set[type[Any]]()


def decode(data: bytes, kind: type[T], name: str, *, limit: int = MAX_SIZE) -> T:
    """Read a document of a known type.

    Args:
        data: its bytes.
        kind: a msgspec Struct.
        name: what messages call the document.
        limit: bytes that such a document has at most.

    Raises:
        FormatError: it is no such document, or asks for what this version does not know.
    """
    if len(data) > limit:
        raise FormatError(f"{name} has {len(data)} bytes", f"more than {limit} are not read")
    try:
        raw = json.loads(
            data.decode(),
            object_pairs_hook=_no_key_twice,
            parse_constant=_no_number,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name} is no JSON document: {_short(error)}") from error
    _check_needs(raw, name)
    _learn(kind)
    try:
        return msgspec.convert(raw, kind)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        raise FormatError(f"{name} makes no sense: {_short(error)}") from error


def _learn(kind: type[Any]) -> None:
    """Have msgspec look at a type while nobody else does.

    It does so at the first use, and two threads that come first together can crash the process
    (seen with msgspec 0.22): one takes what the other has half made.
    """
    if kind not in _learned:
        with _learning:
            msgspec.json.Decoder(kind)
            _learned.add(kind)


def _short(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key stands twice")
    return document


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _check_needs(raw: Any, name: str) -> None:
    if not isinstance(raw, dict):
        raise FormatError(f"{name} is no JSON object")
    version = raw.get("format")
    needs = raw.get("requires", [])
    if isinstance(version, int | float) and version > FORMAT:
        raise FormatError(f"{name} has format {version:g}", "update backstay to read it")
    if needs and isinstance(needs, list):
        words = ", ".join(str(need)[:40] for need in needs[:5])
        raise FormatError(f"{name} requires {words}", "update backstay to read it")


def check_time(moment: datetime, name: str) -> datetime:
    """Give a time of a document back, if it can be compared with others and shown.

    Raises:
        FormatError: it has no zone, or is of no year that we could live in.
    """
    if moment.tzinfo is None:
        raise FormatError(f"{name} has a time without a zone")
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise FormatError(f"{name} has a time of the year {moment.year}")
    return moment


def encode(document: msgspec.Struct) -> bytes:
    """Write a document: indented JSON, fields in the order of the type, a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def plain(document: msgspec.Struct) -> Any:
    """Turn a document into dictionaries and lists, as --json prints it."""
    return msgspec.to_builtins(document)
