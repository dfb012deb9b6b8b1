"""A document that people wrote and that holds secrets: YAML or JSON, bounded, never quoted.

The libraries' own messages quote the line they stumble over, and carry the whole text along, so
they are dropped: an error from here says where, not what. Anchors and aliases are refused: a few
of them can stand for gigabytes, and no tool writes them into such a document.
"""

import json
from collections.abc import Iterable
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    NodeEvent,
)

from backstay.errors import FormatError

#: Bytes; the reader of YAML takes up to a few seconds for so many of the worst kind.
SIZE_LIMIT = 64 << 10
_MAX_DEPTH = 32
#: The reader of YAML looks ahead over open brackets, in time that grows with their square.
_MAX_BRACKETS = 2000


def load_document(data: bytes, name: str) -> Any:
    """Read a document of one of the two notations into dicts, lists and scalars.

    Args:
        data: the text, in UTF-8.
        name: what messages call it.

    Raises:
        FormatError: it is too large, is neither YAML nor JSON, has anchors or tags, names one key
            twice, or is nested too deeply. The message quotes nothing of it.
    """
    if len(data) > SIZE_LIMIT:
        raise FormatError(f"{name} has more than {SIZE_LIMIT} bytes", "is it the right file?")
    reason = ""
    try:
        text = data.decode("utf-8-sig")
        return _json(text) if text.lstrip().startswith("{") else _yaml(text)
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is no UTF-8"
    except json.JSONDecodeError as error:
        reason = f"it is broken at line {error.lineno}, column {error.colno}"
    except _RefusedError as error:
        reason = str(error)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = f"it is broken at line {mark.line + 1}" if mark else "it is broken"
    except (YAMLError, ValueError, TypeError, RecursionError):
        reason = "it is broken"
    # Raised out here, so that the library's error, which quotes the text, is not its context.
    raise FormatError(f"{name} is neither YAML nor JSON that can be read: {reason}")


class _RefusedError(ValueError):
    """What the notation would allow and this program does not; the message quotes nothing."""


def _json(text: str) -> Any:
    # YAML takes most of JSON too, but neither its tabs nor its escapes.
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _RefusedError("a key stands twice in one object")
        found[key] = value
    return found


def _refuse_constant(_: str) -> NoReturn:
    raise _RefusedError("it has a number that JSON does not have")


def _yaml(text: str) -> Any:
    if text.count("[") + text.count("{") > _MAX_BRACKETS:
        raise _RefusedError("it has too many brackets")
    depth = documents = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        if isinstance(event, AliasEvent) or (
            isinstance(event, NodeEvent) and event.anchor is not None
        ):
            raise _RefusedError("it has anchors or aliases")
        if getattr(event, "ctag", None) is not None:
            raise _RefusedError("it has tags")
        depth += isinstance(event, CollectionStartEvent)
        depth -= isinstance(event, CollectionEndEvent)
        documents += isinstance(event, DocumentStartEvent)
        if depth > _MAX_DEPTH:
            raise _RefusedError("it is nested too deeply")
        if documents > 1:
            raise _RefusedError("it has more than one document")
    return YAML(typ="safe", pure=True).load(text)
