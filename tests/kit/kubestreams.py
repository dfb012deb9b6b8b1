"""The streams of a kubelet: exec runs real commands, port-forward reaches real servers.

    streams = Streams()
    streams.pod("clusters-blue", "etcd-0", ports={2379: ("localhost", etcd.port)},
                rewrite={"https://localhost:2379": etcd.endpoint, "/var/lib": str(folder)})
    kube.streams = streams      # a server calls streams.exec(request), .portforward(request)

    with serve(streams, objects) as server, server.api() as api: ...     # a small one, over TLS

A pod has no namespaces of its own here: what a command's words mean in the pod (paths, addresses)
is put in by `rewrite`. As with a real runtime, a command is not ended when its caller has gone: its
standard input ends, what it writes goes nowhere. `streams.close()` ends what is left.

    streams.fault = Fault(cut_after=100_000)                    for all that follow
    streams.fault = lambda kind, pod, number: Fault(...) if number == 1 else None

Sources: kubernetes, pkg/kubelet/cri/streaming (remotecommand, portforward).
"""

import asyncio
import json
import os
import re
import signal
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
from aiohttp import WSMsgType, web

from backstay.errors import KubeError
from backstay.kubeapi import websocket
from backstay.kubeapi.api import Api
from backstay.kubeapi.transport import Answer
from kit.certificates import Authority

#: What a kubelet sends at once.
CHUNK = 32 << 10
_PATH = re.compile(r"/api/v1/namespaces/([^/]+)/pods/([^/]+)/(exec|portforward)$")


@dataclass(frozen=True)
class Pod:
    """What a pod is made of here.

    Attributes:
        ports: where its ports really are.
        rewrite: words of commands that mean something else here, the longest first.
        env: more of the environment of commands.
        containers: those that it has.
    """

    ports: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    rewrite: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    containers: tuple[str, ...] = ("etcd",)


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a stream.

    Attributes:
        refuse: status of HTTP that answers instead of an upgrade.
        drop: the connection is hung up before there is an answer.
        silent: there never is an answer.
        cut_after: bytes that still come from the pod; then the connection breaks.
        stall_after: bytes that still come; then nothing does.
        end_after: bytes that still come; then it is closed in good order, without a status.
        flip_at: the byte that comes changed.
        status: sent instead of the true one.
        messages: raw messages that are sent first.
        text: a text message is sent first.
        error: what is said on the channel of errors of a port-forward.
        port: the port that a port-forward says it is for.
        protocol: whether a subprotocol is chosen.
        close_code: of the end.
    """

    refuse: int | None = None
    drop: bool = False
    silent: bool = False
    cut_after: int | None = None
    stall_after: int | None = None
    end_after: int | None = None
    flip_at: int | None = None
    status: bytes | None = None
    messages: tuple[bytes, ...] = ()
    text: bool = False
    error: str = ""
    port: int | None = None
    protocol: bool = True
    close_code: int = 1000


class _EndError(Exception):
    """The stream ends here."""


class Streams:
    """The kubelets of all pods."""

    def __init__(self) -> None:
        self.pods: dict[tuple[str, str], Pod] = {}
        self.fault: Fault | Callable[[str, str, int], Fault | None] | None = None
        #: (kind, namespace, pod, commands or ports) of each stream, in order.
        self.opened: list[tuple[str, str, str, tuple[str, ...]]] = []
        #: Bytes that a port-forward took from here and could hand on, for back-pressure.
        self.taken = 0
        #: Bytes that came from a pod by each stream that was not refused, in their order.
        self.sent: list[int] = []
        self._numbers: Counter[str] = Counter()
        self._processes: list[asyncio.subprocess.Process] = []

    def pod(self, namespace: str, name: str, **more) -> None:
        """Put a pod there; see `Pod`."""
        self.pods[namespace, name] = Pod(**more)

    def begin(self) -> None:
        """Forget what was opened; the next stream is the first."""
        self.opened.clear()
        self.sent.clear()
        self._numbers.clear()

    def move(self, namespace: str, name: str, ports: Mapping[int, tuple[str, int]]) -> None:
        """Let the ports of a pod be elsewhere."""
        self.pods[namespace, name] = replace(self.pods[namespace, name], ports=ports)

    def close(self) -> None:
        """End what is left of commands."""
        # What a shell began may outlive it, in its group. Its number is nobody's until then; once
        # all have ended it may be somebody else's.
        for process in self._processes:
            if process.returncode is None or not Path(f"/proc/{process.pid}").exists():
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    @property
    def commands_running(self) -> int:
        """How many commands have not ended."""
        return sum(1 for process in self._processes if process.returncode is None)

    async def exec(self, request: web.Request) -> web.StreamResponse:
        """Answer GET .../pods/POD/exec."""
        namespace, name, pod = self._find(request)
        command = tuple(request.query.getall("command", []))
        fault = self._begin(request, "exec", namespace, name, command)
        if pod is None:
            return _status(404, f'pods "{name}" not found')
        stream = await _upgrade(request, fault, ("v5.channel.k8s.io", "v4.channel.k8s.io"))
        if isinstance(stream, web.Response):
            return stream
        channels = _Channels(request, stream, fault, self.sent)
        with suppress(_EndError, ConnectionError, RuntimeError):
            await channels.begin((b"\x01", b"\x02", b"\x03"))
            if request.query.get("container") not in pod.containers:
                message = f"container {request.query.get('container')} not found in pod {name}"
                status = {"status": "Failure", "reason": "InternalError", "message": message}
            else:
                status = await self._run(pod, command, request, stream, channels)
            said = fault.status if fault.status is not None else json.dumps(status).encode()
            await channels.send(3, said)
            await stream.close(code=fault.close_code)
        return stream

    async def _run(self, pod, command, request, stream, channels) -> dict:
        words = [_rewritten(word, pod.rewrite) for word in command]
        attached = request.query.get("stdin") == "true"
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.PIPE if attached else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={"PATH": os.environ["PATH"], **pod.env},
                start_new_session=True,
                limit=CHUNK,
            )
        except OSError as error:
            return _exit_status(126 if isinstance(error, PermissionError) else 127)
        self._processes.append(process)

        async def stdin() -> None:
            async for message in stream:
                if message.type is WSMsgType.BINARY and message.data[:1] == b"\0" and attached:
                    process.stdin.write(message.data[1:])
                    await process.stdin.drain()
            if attached:
                process.stdin.close()

        async def output(channel: int, pipe) -> None:
            gone = False
            while data := await pipe.read(CHUNK):
                with suppress(_EndError, ConnectionError, RuntimeError):
                    # The runtime goes on reading when nobody listens any more.
                    if not gone:
                        gone = True
                        await channels.send(channel, data)
                        gone = False

        reading = asyncio.create_task(stdin())
        try:
            await asyncio.gather(output(1, process.stdout), output(2, process.stderr))
            code = await process.wait()
        finally:
            reading.cancel()
        channels.check()
        return _exit_status(code if code >= 0 else 128 - code)

    async def portforward(self, request: web.Request) -> web.StreamResponse:
        """Answer GET .../pods/POD/portforward."""
        namespace, name, pod = self._find(request)
        ports = tuple(request.query.getall("ports", []))
        fault = self._begin(request, "portforward", namespace, name, ports)
        if pod is None:
            return _status(404, f'pods "{name}" not found')
        stream = await _upgrade(request, fault, ("v4.channel.k8s.io",))
        if isinstance(stream, web.Response):
            return stream
        (port,) = map(int, ports)
        channels = _Channels(request, stream, fault, self.sent)
        with suppress(_EndError, ConnectionError, RuntimeError):
            greeting = struct.pack("<H", fault.port if fault.port is not None else port)
            await channels.begin((b"\x00" + greeting, b"\x01" + greeting))
            if fault.error:
                await channels.send(1, fault.error.encode())
                await stream.close()
                return stream
            try:
                reader, writer = await asyncio.open_connection(*pod.ports[port], limit=CHUNK)
            except (OSError, KeyError):
                words = f"error forwarding port {port} to pod {name}: connection refused"
                await channels.send(1, words.encode())
                await stream.close()
                return stream
            await self._carry(stream, channels, reader, writer)
        return stream

    async def _carry(self, stream, channels, reader, writer) -> None:
        async def outwards() -> None:
            async for message in stream:
                if message.type is WSMsgType.BINARY and message.data[:1] == b"\0":
                    writer.write(message.data[1:])
                    await writer.drain()
                    self.taken += len(message.data) - 1
            writer.close()

        async def inwards() -> None:
            while data := await reader.read(CHUNK):
                await channels.send(0, data)
            await stream.close()

        tasks = [asyncio.create_task(outwards()), asyncio.create_task(inwards())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                del outcome
            writer.close()

    def _find(self, request: web.Request) -> tuple[str, str, Pod | None]:
        namespace, name, _ = _PATH.search(request.path).groups()
        return namespace, name, self.pods.get((namespace, name))

    def _begin(self, request, kind, namespace, name, words) -> Fault:
        self.opened.append((kind, namespace, name, words))
        self._numbers[kind] += 1
        fault = self.fault
        if callable(fault):
            fault = fault(kind, name, self._numbers[kind])
        return fault or Fault()


class _Channels:
    """Messages to the caller, and what goes wrong with them."""

    def __init__(self, request, stream, fault: Fault, sent: list[int]) -> None:
        self._request = request
        self._stream = stream
        self._fault = fault
        self._all = sent
        self._number = len(sent)
        self._all.append(0)
        self._ended = False
        self._lock = asyncio.Lock()

    async def begin(self, greeting: tuple[bytes, ...]) -> None:
        for message in (*greeting, *self._fault.messages):
            await self._stream.send_bytes(message)
        if self._fault.text:
            await self._stream.send_str("\x01text")

    @property
    def _sent(self) -> int:
        return self._all[self._number]

    def check(self) -> None:
        if self._ended:
            raise _EndError

    async def send(self, channel: int, data: bytes) -> None:
        async with self._lock:
            self.check()
            fault, prefix = self._fault, bytes((channel,))
            limits = (fault.cut_after, fault.stall_after, fault.end_after)
            limit = min((n for n in limits if n is not None), default=None)
            if channel != 3 and fault.flip_at is not None:
                place = fault.flip_at - self._sent
                if 0 <= place < len(data):
                    changed = bytearray(data)
                    changed[place] ^= 1
                    data = bytes(changed)
            if limit is None or (self._sent + len(data) < limit and channel != 3):
                await self._stream.send_bytes(prefix + data)
                self._all[self._number] += len(data)
                return
            await self._stream.send_bytes(prefix + data[: max(limit - self._sent, 0)])
            await self._break()

    async def _break(self) -> None:
        self._ended = True
        if self._fault.stall_after is not None:
            while not self._stream.closed and self._request.transport is not None:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.02)
            raise _EndError
        if self._fault.end_after is not None:
            await self._stream.close(code=self._fault.close_code)
        elif self._request.transport is not None:
            # What was written still goes out; no close frame does.
            self._request.transport.close()
        raise _EndError


async def _upgrade(request, fault: Fault, protocols) -> web.WebSocketResponse | web.Response:
    if fault.refuse is not None:
        return _status(fault.refuse, f"refused by the test: {fault.refuse}")
    if fault.drop:
        request.transport.abort()
        return web.Response()
    if fault.silent:
        await asyncio.sleep(3600)
    stream = web.WebSocketResponse(
        protocols=protocols if fault.protocol else (), compress=False, timeout=0.5
    )
    await stream.prepare(request)
    return stream


def _status(code: int, message: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message}
    return web.json_response({**body, "code": code}, status=code)


def _exit_status(code: int) -> dict:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _rewritten(word: str, rewrite: Mapping[str, str]) -> str:
    if not rewrite:
        return word
    names = sorted(rewrite, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, names)), lambda m: rewrite[m.group()], word)


# --- a server that has streams, and objects to read


@dataclass
class StreamServer:
    """A Kubernetes API with streams and readable objects; nothing else."""

    streams: Streams
    objects: dict[str, dict]
    url: str = ""
    context: ssl.SSLContext | None = None
    token: str = "a-token-of-the-tests"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized")
        if request.path.endswith("/exec"):
            return await self.streams.exec(request)
        if request.path.endswith("/portforward"):
            return await self.streams.portforward(request)
        found = self.objects.get(request.path)
        return web.json_response(found) if found else _status(404, f"{request.path} not found")

    def api(self, **more) -> Api:
        """A client of it."""
        return Api(StreamTransport(self, **more))


class StreamTransport:
    """Calls by httpx, streams by our WebSocket."""

    def __init__(self, server: StreamServer, *, timeout: float = 10.0) -> None:
        self.server = server.url
        self._context = server.context
        self._headers = {"Authorization": f"Bearer {server.token}"}
        self._timeout = timeout
        self._client = httpx.Client(
            base_url=server.url, verify=server.context, headers=self._headers, trust_env=False
        )

    def call(self, request):
        try:
            answer = self._client.request(
                request.method, request.path, params=list(request.params), content=request.body
            )
        except httpx.HTTPError as error:
            raise KubeError(f"{self.server} can't be reached: {error}") from error
        return Answer(answer.status_code, answer.content)

    def lines(self, request):
        raise NotImplementedError

    def websocket(self, request, protocols):
        query = httpx.QueryParams(list(request.params))
        return websocket.connect(
            f"{self.server}{request.path}?{query}",
            ssl=self._context,
            headers=self._headers,
            protocols=protocols,
            timeout=self._timeout,
        )

    def close(self):
        self._client.close()


@contextmanager
def serve(
    streams: Streams, objects: Mapping[str, dict] | None = None, *, tls: bool = True
) -> Iterator[StreamServer]:
    """Serve in a thread, over TLS unless told otherwise."""
    server = StreamServer(streams, dict(objects or {}))
    loop = asyncio.new_event_loop()
    listening = threading.Event()
    stopping = asyncio.Event()

    async def main() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", server.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        context = None
        if tls:
            context, server.context = _contexts()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port = runner.addresses[0][1]
        server.url = f"{'https' if tls else 'http'}://localhost:{port}"
        listening.set()
        await stopping.wait()
        streams.close()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    try:
        assert listening.wait(20)
        yield server
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(20)
        if not thread.is_alive():
            loop.close()


def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = Authority.make("of the API")
    identity = authority.issue("kube-apiserver")
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        certificate, key = identity.write(Path(folder))
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cadata=authority.pem.decode())
