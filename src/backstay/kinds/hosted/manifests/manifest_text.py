"""The text of manifests: bounded, cut into its YAML documents, and written again.

Each document keeps its own text, and only one that was edited is written anew, by ruamel.yaml, with
its comments, order and quotes. What that changes in such a document: an empty value and `~` become
`null`, and folded lines of plain text become one line.

The text may be hostile: it is bounded, event by event, before anything is made of it. Anchors are
refused (a few of them can stand for gigabytes), and so are tags, merges and directives: no tool
writes them into manifests. What the objects mean is the business of `documents`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.representer import RoundTripRepresenter

from backstay.errors import FormatError

#: Bytes.
SIZE_LIMIT = 16 << 20
#: Rendered manifests have a few hundred values, the saved ones of a large cluster some thousands.
MAX_VALUES = 50_000
MAX_DEPTH = 64
MAX_DOCUMENTS = 2000

_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_NULL = "tag:yaml.org,2002:null"
_SURROGATE = re.compile("[\ud800-\udfff]")
#: What to do about a text that can't be read.
LOOK = "give what `create cluster ... --render` printed, and nothing else"


@dataclass(slots=True)
class Part:
    """One YAML document: its own text, and what it means.

    Attributes:
        head: all up to its first field: the line `---` where it has one, and comments.
        body: its lines.
        tail: from `...` on, where it has that.
        value: the tree that was made of `body`; None where it is empty.
        edited: whether `body` is out of date.
    """

    head: str
    body: str
    tail: str
    value: Any
    edited: bool = False

    def __repr__(self) -> str:
        return f"Part({len(self.body)} characters)"

    @property
    def explicit(self) -> bool:
        """Whether it begins with `---`."""
        return re.search("^---", self.head, re.MULTILINE) is not None

    @property
    def text(self) -> str:
        """Its text as it is now."""
        if not self.edited:
            return self.head + self.body + self.tail
        made = dump(self.value)
        if "\r\n" in self.body:
            made = made.replace("\n", "\r\n")
        return self.head + made + self.tail


def read_parts(data: bytes | str, name: str) -> list[Part]:
    """Read a text into its documents.

    Args:
        data: the text; bytes in UTF-8.
        name: what messages call it.

    Raises:
        FormatError: it can't be read, is too large or too deep, has what manifests don't have, or
            a document that is no object. The message quotes nothing of it.
    """
    size = len(data) if isinstance(data, bytes) else len(data.encode(errors="replace"))
    if size > SIZE_LIMIT:
        raise FormatError(f"{name} has more than {SIZE_LIMIT >> 20} MiB", "is it the right file?")
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        return list(_parts(text))
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is no UTF-8"
    except _OddError as error:
        reason = str(error)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = f"it is no YAML at line {mark.line + 1}" if mark else "it is no YAML"
    except (YAMLError, ValueError, TypeError, AttributeError, RecursionError, LookupError):
        # The library raises all of these where a text is odd enough.
        reason = "it is no YAML"
    # Raised out here, so that the library's error, which quotes the text, is not its context.
    raise FormatError(f"{name} can't be read: {reason}", LOOK)


class _OddError(ValueError):
    """What the notation would allow and manifests don't have; the message quotes nothing."""


def _parts(text: str) -> Iterator[Part]:
    if _SURROGATE.search(text):
        raise _OddError("it has half a character")
    spans = list(_spans(text))
    for number, span in enumerate(spans):
        # Comments before the first `---` belong to the head of its document.
        begin = span.start if number else 0
        end = spans[number + 1].start if number + 1 < len(spans) else len(text)
        yield _part(text, begin, end, span)


@dataclass(slots=True)
class _Span:
    """Where a document stands: offsets into the text.

    Attributes:
        start: where it starts: at its `---`, where it has one.
        explicit: whether it has one.
        line: number of that line, from 1.
        first: of its content; None where there is none.
        over: of its `...`; None where it has none.
    """

    start: int
    explicit: bool
    line: int
    first: int | None = None
    over: int | None = None


def _spans(text: str) -> Iterator[_Span]:
    span, number = None, 0
    for event in _bounded(_yaml().parse(text)):
        mark = event.start_mark
        if isinstance(event, DocumentStartEvent):
            span = _Span(mark.index, bool(event.explicit), mark.line + 1)
            number += 1
            if number > MAX_DOCUMENTS:
                raise _OddError(f"it has more than {MAX_DOCUMENTS} documents")
        elif span is not None and isinstance(event, DocumentEndEvent):
            span.over = mark.index if event.explicit else None
            yield span
        elif span is not None and isinstance(event, NodeEvent) and span.first is None:
            span.first = mark.index


def _part(text: str, begin: int, end: int, span: _Span) -> Part:
    stop = end if span.over is None else span.over
    split = begin
    if span.explicit:
        split = text.find("\n", span.start, stop) + 1 or stop
        if span.first is not None and span.first < split:
            # `--- {a: 1}`: what is on that line belongs to the document.
            split = span.first
    if span.first is not None:
        # Blank lines and comments before the first field are nothing that could be edited.
        split = max(split, text.rfind("\n", 0, span.first) + 1)
    body = text[split:stop]
    value = load(body)
    if value is not None and not isinstance(value, dict):
        raise _OddError(f"what begins at line {span.line} is no object")
    return Part(text[begin:split], body, text[stop:end], value)


def _bounded(events: Iterable[Event]) -> Iterator[Event]:
    """Pass events on, while they are what manifests have.

    Raises:
        _OddError: they are not.
    """
    values = 0
    # For each open collection: None for a list, else whether a key comes next.
    stack: list[bool | None] = []
    for event in events:
        if isinstance(event, DocumentStartEvent) and (event.version or event.tags):
            raise _OddError("it has directives")
        if isinstance(event, CollectionEndEvent):
            stack.pop()
        if isinstance(event, NodeEvent):
            values += 1
            _check_node(event)
            if stack and stack[-1] is not None:
                _check_key(event, is_key=stack[-1])
                stack[-1] = not stack[-1]
        if isinstance(event, CollectionStartEvent):
            stack.append(True if isinstance(event, MappingStartEvent) else None)
        if values > MAX_VALUES or len(stack) > MAX_DEPTH:
            raise _OddError("it has too many values, or is nested too deeply")
        yield event


def _check_node(event: NodeEvent) -> None:
    if isinstance(event, AliasEvent) or event.anchor is not None:
        raise _OddError(f"it has anchors or aliases, at line {event.start_mark.line + 1}")
    if getattr(event, "ctag", None) is not None:
        raise _OddError(f"it has tags, at line {event.start_mark.line + 1}")
    if isinstance(event, ScalarEvent) and _SURROGATE.search(event.value):
        raise _OddError(f"it has half a character, at line {event.start_mark.line + 1}")


def _check_key(event: NodeEvent, *, is_key: bool) -> None:
    if not is_key:
        return
    if not isinstance(event, ScalarEvent):
        raise _OddError(f"it has a key that is no text, at line {event.start_mark.line + 1}")
    if event.value == "<<" and event.style is None:
        raise _OddError(f"it has merges, at line {event.start_mark.line + 1}")


# --- ruamel.yaml, told how manifests are written


class _Whole(int):
    """A whole number, and how it is written."""

    text: str


class _Fraction(float):
    """Another number, and how it is written."""

    text: str


class _Time(str):
    """A time. It is a text for Kubernetes, and so it is here."""

    __slots__ = ("text",)
    text: str


class _Constructor(RoundTripConstructor):
    """Keeps how numbers and times are written; the library's own way with them changes some."""

    def whole(self, node: Any) -> _Whole:
        made = _Whole(super().construct_yaml_int(node))
        made.text = node.value
        return made

    def fraction(self, node: Any) -> _Fraction:
        made = _Fraction(super().construct_yaml_float(node))
        made.text = node.value
        return made

    def time(self, node: Any) -> _Time:
        made = _Time(node.value)
        made.text = node.value
        return made


class _Representer(RoundTripRepresenter):
    """Writes numbers and times as they were, and `null`, where the library would write nothing."""

    def whole(self, value: _Whole) -> Any:
        return self.represent_scalar(_INT, value.text)

    def fraction(self, value: _Fraction) -> Any:
        return self.represent_scalar(_FLOAT, value.text)

    def time(self, value: _Time) -> Any:
        return self.represent_scalar(_TIMESTAMP, value.text)

    def null(self, _: object) -> Any:
        return self.represent_scalar(_NULL, "null")


for _tag, _kind, _construct, _represent in (
    (_INT, _Whole, _Constructor.whole, _Representer.whole),
    (_FLOAT, _Fraction, _Constructor.fraction, _Representer.fraction),
    (_TIMESTAMP, _Time, _Constructor.time, _Representer.time),
):
    _Constructor.add_constructor(_tag, _construct)
    _Representer.add_representer(_kind, _represent)
_Representer.add_representer(type(None), _Representer.null)


def _yaml() -> YAML:
    yaml = YAML(typ="rt", pure=True)
    yaml.Constructor = _Constructor
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    # As Kubernetes' tools write: a list is not further in than the key that it belongs to.
    yaml.indent(mapping=2, sequence=2, offset=0)
    # Lines are never broken: they may be a URL or a certificate.
    yaml.width = SIZE_LIMIT
    yaml.allow_unicode = True
    return yaml


def load(text: str) -> Any:
    """Read one document into a tree that keeps comments; for text that is known to be good."""
    return _yaml().load(text)


def dump(value: object) -> str:
    """Write a tree."""
    out = StringIO()
    _yaml().dump(value, out)
    return out.getvalue()


def put(tree: MutableMapping[str, Any], key: str, value: object) -> None:
    """Set a field; a new one goes where the alphabet wants it, as hypershift writes fields.

    Not last where that can be helped: the comment before the next block hangs on the last field,
    and would come to stand before the new one.
    """
    if key in tree or not isinstance(tree, CommentedMap):
        tree[key] = value
        return
    place = sum(1 for other in tree if str(other) < key)
    tree.insert(place if len(tree) < 2 else min(place, len(tree) - 1), key, value)


def plain(value: object) -> Any:
    """Copy a tree without comments and the marks of how it was written."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, float) else value
