"""A port of a pod as a socket file here, for as long as a block lasts.

A socket file in a directory that only we may enter: on a TCP port of this machine any local user
could connect to somebody else's etcd. Each connection to it is one WebSocket of its own.

Source: kubernetes, pkg/kubelet/cri/streaming/portforward/websocket.go: channel 0 carries data,
channel 1 what went wrong; the first message on each is the port, two bytes, the lowest first. The
protocol has no half close: when the program here has said all, the pod can't be told until it has
heard all.
"""

import select
import socket
import threading
from contextlib import suppress
from pathlib import Path

from backstay.client.endpoint import MAX_SOCKET_PATH, Endpoint, Scheme
from backstay.client.text import one_line
from backstay.closing import Closing
from backstay.errors import BackstayError, KubeError, KubeStreamError
from backstay.files import explained
from backstay.kubeapi.api import Api
from backstay.kubeapi.resource import PODS
from backstay.kubeapi.socket_directory import SocketDirectory
from backstay.kubeapi.transport import Request, WebSocket

PROTOCOL = "v4.channel.k8s.io"
#: Connections at the same time; gRPC makes one, and one more when that has failed.
MAX_CONNECTIONS = 32
#: Bytes that are read at once here.
_READ = 256 << 10
#: Seconds until the pod's side must have said that it is ready.
_GREETING = 30.0
#: Seconds until a connection that was broken has gone. One that is still shaking hands has a
#: deadline of its own, and holds nothing of ours but its thread.
_PATIENCE = 2.0
_DATA, _ERROR = 0, 1


class PortForward(Closing):
    """A port of a pod, reachable through a socket file; a context manager.

    Attributes:
        endpoint: the socket.
        pod: whose port it is.
        error: the last that went wrong, for whoever was only told that a connection broke.

    Args:
        api: of the cluster.
        pod: its name.
        namespace: its namespace.
        port: of the pod.
        folder: where the directory with the socket is made; default: the system's for such.

    Raises:
        BackstayError: no socket can be made here.
    """

    def __init__(
        self, api: Api, pod: str, namespace: str, port: int, *, folder: Path | None = None
    ) -> None:
        self.pod = pod
        self.error: BackstayError | None = None
        self._api = api
        self._request = Request(
            method="GET",
            path=PODS.path(namespace, pod, "portforward"),
            params=(("ports", str(port)),),
        )
        self._title = f"port {port} of pod {namespace}/{pod}"
        self._port = port
        self._lock = threading.Lock()
        self._closed = False
        self._carriers: set[_Carrier] = set()
        self._directory = SocketDirectory(folder)
        path = self._directory.path / "s"
        try:
            self._listener = _listen(path)
        except BaseException:
            self._directory.close()
            raise
        self.endpoint = Endpoint(Scheme.UNIX, str(path), 0)
        self._accepting = threading.Thread(
            target=self._accept, name=f"backstay-forward-{pod}", daemon=True
        )
        self._accepting.start()

    def check(self) -> None:
        """Connect once, and hang up: does the API let us, and is the port there?

        Raises:
            KubeError: it does not, or it is not.
        """
        with self._api.transport.websocket(self._request, (PROTOCOL,)) as stream:
            _greeted(stream, self._port, self._title)

    def close(self) -> None:
        """Break all connections, and remove the socket."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            carriers = list(self._carriers)
        # The accepting thread waits in accept(): a shutdown wakes it, a close would not.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for carrier in carriers:
            carrier.stop()
        self._accepting.join()
        for carrier in carriers:
            carrier.join(_PATIENCE)
        self._listener.close()
        self._directory.close()

    def _accept(self) -> None:
        while True:
            try:
                local, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closed or len(self._carriers) >= MAX_CONNECTIONS:
                    local.close()
                    continue
                carrier = _Carrier(self, local)
                self._carriers.add(carrier)
            carrier.start()

    def carry(self, carrier: "_Carrier") -> None:
        """Open the stream of one connection and work it; for the connection's own thread."""
        try:
            with self._api.transport.websocket(self._request, (PROTOCOL,)) as stream:
                if carrier.attach(stream):
                    carrier.work(stream, _greeted(stream, self._port, self._title))
        except BackstayError as error:
            with self._lock:
                if not self._closed:
                    self.error = error
        finally:
            with self._lock:
                self._carriers.discard(carrier)

    def broken(self, words: bytes) -> KubeStreamError:
        """Make the error of what came on the channel of errors."""
        return _broken(self._title, words)


def _listen(path: Path) -> socket.socket:
    if len(str(path).encode()) > MAX_SOCKET_PATH:
        raise BackstayError(f"{path} is too long for a socket", "set TMPDIR to a shorter path")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with explained(path):
            listener.bind(str(path))
            listener.listen(MAX_CONNECTIONS)
    except BaseException:
        listener.close()
        raise
    return listener


def _greeted(stream: WebSocket, port: int, title: str) -> list[bytes]:
    """Wait for the greeting on both channels; gives the data that came before its end.

    Raises:
        KubeStreamError: something else came, or nothing.
    """
    if stream.protocol != PROTOCOL:
        raise KubeStreamError(f"{title}: the server speaks no protocol that we know")
    early: list[bytes] = []
    missing = {_DATA, _ERROR}
    while missing:
        message = _next(stream, title, _GREETING)
        if message is None:
            raise KubeStreamError(f"{title}: the stream ended before it began", "try it again")
        channel, data = message
        if channel not in missing:
            # One channel may be at work before the other one is greeted.
            if channel == _ERROR and data:
                raise _broken(title, data)
            early.append(data)
            if sum(map(len, early)) > _READ:
                raise KubeStreamError(f"{title}: the greeting has no end")
        elif int.from_bytes(data, "little") != port or len(data) != 2:
            raise KubeStreamError(f"{title}: the greeting is for another port")
        missing.discard(channel)
    return early


def _next(stream: WebSocket, title: str, timeout: float | None) -> tuple[int, bytes] | None:
    try:
        message = stream.receive(timeout)
    except KubeStreamError as error:
        raise KubeStreamError(f"{title}: {error.what}", error.do) from error
    if message is None:
        return None
    if not message or message[0] not in {_DATA, _ERROR}:
        raise KubeStreamError(f"{title}: a message came on a channel that there is not")
    return message[0], message[1:]


def _broken(title: str, words: bytes) -> KubeStreamError:
    text = one_line(words[:4096].decode(errors="replace"))
    return KubeStreamError(f"{title}: {text or 'broken'}", "look at the pod")


class _Carrier:
    """One connection: what comes here goes there, in two threads that wait for each other's room.

    Nothing is kept but the one message that is on its way in each direction.
    """

    def __init__(self, forward: PortForward, local: socket.socket) -> None:
        self._forward = forward
        self._local = local
        self._thread = threading.Thread(
            target=self._run, name=f"backstay-forward-{forward.pod}", daemon=True
        )
        self._stream: WebSocket | None = None
        self._lock = threading.Lock()
        self._stopped = False

    def start(self) -> None:
        self._thread.start()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def stop(self) -> None:
        """Break it, from any thread."""
        with self._lock:
            self._stopped = True
            if self._stream is not None:
                self._stream.close()
            with suppress(OSError):
                self._local.shutdown(socket.SHUT_RDWR)

    def attach(self, stream: WebSocket) -> bool:
        """Take the stream that it is carried on; False where it is not wanted any more."""
        with self._lock:
            self._stream = stream
            return not self._stopped

    def work(self, stream: WebSocket, early: list[bytes]) -> None:
        """Carry both ways until one side has gone.

        Raises:
            KubeStreamError: the pod's side broke, and said why.
        """
        outgoing = threading.Thread(target=self._outwards, args=(stream,), daemon=True)
        outgoing.start()
        try:
            self._inwards(stream, early)
        finally:
            self.stop()
            outgoing.join()

    def _run(self) -> None:
        try:
            self._forward.carry(self)
        finally:
            self.stop()
            self._local.close()

    def _inwards(self, stream: WebSocket, early: list[bytes]) -> None:
        for data in early:
            if not self._give(data):
                return
        while True:
            try:
                message = stream.receive(None)
            except KubeStreamError:
                if self._stopped:
                    return
                raise
            if message is None:
                return
            channel = message[0] if message else None
            if channel == _ERROR:
                raise self._forward.broken(message[1:])
            if channel != _DATA:
                raise KubeStreamError("a message came on a channel that there is not")
            if not self._give(memoryview(message)[1:]):
                return

    def _give(self, data: bytes | memoryview) -> bool:
        """Hand data to the program here; False where it has gone."""
        try:
            self._local.sendall(data)
        except OSError:
            return False
        return True

    def _outwards(self, stream: WebSocket) -> None:
        prefix = bytes((_DATA,))
        with suppress(OSError, KubeError):
            while data := self._local.recv(_READ):
                stream.send(prefix + data)
            # It has said all that it had to say, and may be listening still: wait until it hangs
            # up. Only then is the pod told, since that ends the other direction too.
            gone = select.poll()
            gone.register(self._local, 0)
            gone.poll()
        self.stop()
