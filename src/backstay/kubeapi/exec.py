"""A command in a container, with what it writes as it writes it, and how it ended.

Source: kubernetes, staging/src/k8s.io/apimachinery/pkg/util/remotecommand/constants.go and
pkg/kubelet/cri/streaming/remotecommand/websocket.go: each message is one byte that names its
channel, and data. The last message of a command is its status, on the channel of errors. Without
one nobody knows how the command ended: that is a cut, never a success.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from backstay.client.text import one_line
from backstay.errors import KubeError, KubeStreamError
from backstay.kubeapi.api import Api
from backstay.kubeapi.resource import PODS
from backstay.kubeapi.transport import Request, WebSocket

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDOUT, STDERR, STATUS = 1, 2, 3
#: Bytes of a status that are taken.
_MAX_STATUS = 64 << 10
#: Bytes of standard error that are kept, where the caller does not say: the last ones.
STDERR_LIMIT = 16 << 10
#: Seconds of silence after which a command is given up.
STALL = 60.0
#: Seconds that a connection may stay open after the status.
_LINGER = 2.0


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that came to its end.

    Attributes:
        exit_code: 0 for success.
        stderr: the last that it wrote to standard error; may hold anything.
    """

    exit_code: int
    stderr: bytes = field(default=b"", repr=False)


def execute(
    api: Api,
    pod: str,
    namespace: str,
    container: str,
    command: Sequence[str],
    *,
    stdout: Callable[[bytes], object],
    stderr_limit: int = STDERR_LIMIT,
    stall: float = STALL,
    lifeline: bool = False,
) -> Completed:
    """Run a command in a container, and wait for its end.

    A container runtime does not end a command whose caller has gone. With a lifeline the command
    can see that for itself: nothing is ever written to its standard input, which ends with us.

    Args:
        api: of the cluster.
        pod: its name.
        namespace: its namespace.
        container: its name.
        command: the program and its arguments; they are seen in logs of the API.
        stdout: called with what comes on standard output, in order; what it raises ends the call.
        stderr_limit: bytes of standard error that are kept.
        stall: seconds without any message.
        lifeline: whether the command gets a standard input.

    Raises:
        KubeForbiddenError: we may not.
        KubeNotFoundError: there is no such pod.
        KubeStreamError: the stream was cut or stalled, or makes no sense.
        KubeError: the command could not be started, or the API can't be reached.
    """
    params = [("container", container), ("stdout", "true"), ("stderr", "true")]
    params += [("stdin", "true")] if lifeline else []
    params += [("command", word) for word in command]
    request = Request(method="GET", path=PODS.path(namespace, pod, "exec"), params=tuple(params))
    where = f"{namespace}/{pod}, container {container}"
    with api.transport.websocket(request, PROTOCOLS) as stream:
        if stream.protocol not in PROTOCOLS:
            raise KubeStreamError(f"exec in {where}: the server speaks no protocol that we know")
        return _follow(stream, where, stdout, stderr_limit, stall)


def _follow(
    stream: WebSocket,
    where: str,
    stdout: Callable[[bytes], object],
    stderr_limit: int,
    stall: float,
) -> Completed:
    heard = _Heard(stdout, stderr_limit)
    try:
        while (message := stream.receive(stall)) is not None:
            heard.take(message)
            if heard.is_over:
                _drain(stream, heard)
                break
    except KubeStreamError as error:
        raise KubeStreamError(f"exec in {where}: {error.what}{heard.said}", error.do) from error
    return Completed(_exit_code(heard, where), bytes(heard.errors))


def _drain(stream: WebSocket, heard: "_Heard") -> None:
    """Take what was overtaken by the status; a server may keep the connection for a while."""
    try:
        while (message := stream.receive(_LINGER)) is not None:
            heard.take(message)
    except KubeStreamError:
        return


class _Heard:
    """What has come so far, within bounds."""

    def __init__(self, stdout: Callable[[bytes], object], stderr_limit: int) -> None:
        self._stdout = stdout
        self._limit = stderr_limit
        self.errors = bytearray()
        self.status = bytearray()
        self.is_over = False

    def take(self, message: bytes) -> None:
        """Take one message.

        Raises:
            KubeStreamError: it makes no sense.
        """
        if not message:
            raise KubeStreamError("a message came that names no channel")
        channel, data = message[0], message[1:]
        if channel == STDOUT:
            if data:
                self._stdout(data)
        elif channel == STDERR:
            self.errors += data
            del self.errors[: max(len(self.errors) - self._limit, 0)]
        elif channel == STATUS:
            self.status += data
            if len(self.status) > _MAX_STATUS:
                raise KubeStreamError("its status has no end")
            self.is_over = _document(bytes(self.status)) is not None
        else:
            raise KubeStreamError(f"a message came on channel {channel}, which there is not")

    @property
    def said(self) -> str:
        """The last words of the command, for a message."""
        return f"; it said: {tail(bytes(self.errors))}" if self.errors else ""


def _document(status: bytes) -> dict[str, object] | None:
    try:
        document = json.loads(status)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _exit_code(heard: _Heard, where: str) -> int:
    """Read how the command ended.

    Raises:
        KubeStreamError: nobody says.
        KubeError: it was not started, or was not let end.
    """
    said, status = heard.said, bytes(heard.status)
    if not status:
        raise KubeStreamError(
            f"exec in {where}: the stream was cut: it has ended without a status{said}",
            "try it again",
        )
    document = _document(status)
    if document is None:
        raise KubeStreamError(f"exec in {where}: its status makes no sense{said}", "try it again")
    if document.get("status") == "Success":
        return 0
    if document.get("status") == "Failure" and document.get("reason") == "NonZeroExitCode":
        code = _cause(document.get("details"))
        if code:
            return code
        raise KubeStreamError(f"exec in {where}: it failed, and its exit code makes no sense{said}")
    message = document.get("message")
    words = one_line(message) if isinstance(message, str) else "no reason is given"
    raise KubeError(f"exec in {where}: it was not run to its end: {words}{said}")


def _cause(details: object) -> int:
    """The exit code in a status; 0 where there is none that makes sense."""
    causes = details.get("causes") if isinstance(details, dict) else None
    for cause in causes if isinstance(causes, list) else ():
        if isinstance(cause, dict) and cause.get("reason") == "ExitCode":
            text = cause.get("message")
            if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 10:
                return int(text)
    return 0


def tail(errors: bytes) -> str:
    """The last that a command said, in one line that fits into a message."""
    text = errors.decode(errors="replace")
    return one_line(text[-300:])
