"""gRPC's errors, turned into ours: which kind it is, who said it, and in whose words."""

import grpc

from backstay.client.endpoint import Endpoint
from backstay.client.text import one_line
from backstay.errors import (
    AuthenticationError,
    CompactedError,
    ConnectionFailedError,
    EtcdError,
    EtcdUnavailableError,
)

Code = grpc.StatusCode


class TokenRefusedError(AuthenticationError):
    """etcd wants a token, or a new one."""


class DeniedError(AuthenticationError):
    """The user may not do this; also what a watch says where its token has run out."""


class AuthOffError(AuthenticationError):
    """etcd knows no users: its auth is not enabled."""


#: How etcd's own words begin; where that is missing, gRPC speaks, not etcd.
_ETCD = "etcdserver: "

#: What etcd says, the error that it is, and what to do. etcd gives unlike things like codes.
_BY_WORDS: tuple[tuple[tuple[str, ...], type[EtcdError], str], ...] = (
    (
        ("invalid auth token", "user name is empty", "revision of auth store is old"),
        TokenRefusedError,
        "give --user and --password-file of an etcd user",
    ),
    (("authentication is not enabled",), AuthOffError, "leave out --user"),
    # The second where our certificate names nobody that etcd knows, and no user is given.
    (
        ("authentication failed", "auth: user not found"),
        AuthenticationError,
        "look at --user and at the password",
    ),
    # HashKV says it with the code UNKNOWN.
    (("permission denied",), DeniedError, "use a user with the role root"),
    (("required revision has been compacted",), CompactedError, ""),
)

_BY_CODE: dict[Code, tuple[type[EtcdError], str]] = {
    Code.UNAUTHENTICATED: (AuthenticationError, "look at --user and at the password"),
    Code.PERMISSION_DENIED: (DeniedError, "use a user with the role root"),
    Code.UNIMPLEMENTED: (EtcdError, "is it an etcd, 3.4 or later"),
}


def translate(code: Code, details: str, endpoint: Endpoint, call: str) -> EtcdError:
    """Make an error of this program from a call's status.

    Args:
        code: gRPC's status code.
        details: the words that came with it, secrets already taken out.
        endpoint: who was asked.
        call: what for.
    """
    words = one_line(details) or code.name
    said = f"{endpoint} refuses {call}: {words}"
    for parts, kind, hint in _BY_WORDS:
        if any(part in words for part in parts):
            return kind(said, hint)
    if code in _BY_CODE:
        kind, hint = _BY_CODE[code]
        return kind(said, hint)
    if code in {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}:
        return _not_now(code, words, endpoint, call)
    return EtcdError(said)


def _not_now(code: Code, words: str, endpoint: Endpoint, call: str) -> EtcdError:
    if words.startswith(_ETCD):
        return EtcdUnavailableError(f"{endpoint} can't answer {call} now: {words}")
    if code is Code.DEADLINE_EXCEEDED:
        return EtcdUnavailableError(
            f"{endpoint} did not answer {call} in time", "look at its load, or be more patient"
        )
    return ConnectionFailedError(f"{endpoint}: the connection failed at {call}: {words}")
