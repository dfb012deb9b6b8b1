"""Members as bucket `members` has them: JSON under the id in hexadecimal.

Source: etcd, server/etcdserver/api/membership (member.go, storage/schema/membership.go). A restore
by etcdctl 3.4 leaves the bucket empty.
"""

from dataclasses import dataclass
from typing import Any

from backstay.mvcc.wire import MalformedError


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the cluster, as the snapshot's own member knew it."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool


def parse_member(key: bytes, value: bytes) -> Member:
    """Read an entry of bucket `members`.

    Raises:
        MalformedError: it is no member, or its id is not that of its key.
    """
    # It takes 10 ms to import, and most commands that open a snapshot never get here.
    import json  # noqa: PLC0415 - see above

    try:
        document: Any = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"a member under key {key[:32]!r} is no JSON") from error
    if not isinstance(document, dict):
        raise MalformedError(f"a member under key {key[:32]!r} is no JSON object")
    number = document.get("id")
    if type(number) is not int or key != b"%x" % number:
        raise MalformedError(f"a member under key {key[:32]!r} has another id")
    return Member(
        number,
        _text(document.get("name")),
        _texts(document.get("peerURLs")),
        _texts(document.get("clientURLs")),
        document.get("isLearner") is True,
    )


def _text(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise MalformedError("a member has a name that is no text")
    return value or ""


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise MalformedError("a member has URLs that are no list")
    return tuple(_text(one) for one in value)
