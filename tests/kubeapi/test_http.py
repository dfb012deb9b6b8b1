"""The transport: what it asks again and what not, what it bounds, where it sends the token."""

import gzip
import json
import socket
import ssl
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from aiohttp import web

from backstay.clock import SystemClock
from backstay.errors import (
    KubeConflictError,
    KubeError,
    KubeForbiddenError,
    KubeLoginError,
    KubeNotFoundError,
    KubeStreamError,
    UsageError,
)
from backstay.kubeapi import http
from backstay.kubeapi.api import Api
from backstay.kubeapi.connect import connect
from backstay.kubeapi.credentials import Login
from backstay.kubeapi.http import MAX_LINE, HttpTransport, Patience
from backstay.kubeapi.resource import CONFIG_MAPS, NAMESPACES, PODS, SECRETS
from backstay.kubeapi.transport import Request
from kit.certificates import Authority
from kit.kubeserver import TOKEN, HangUpError, KubeServer, kubeconfig

SPACE = "clusters"
SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "key", "namespace": SPACE},
    "data": {"key": "AAAA"},
}
GET = Request(method="GET", path=SECRETS.path(SPACE, "key"))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def kube(tmp_path):
    with KubeServer.start(tmp_path / "kube") as kube:
        kube.put(SECRET)
        yield kube


class Clock(SystemClock):
    """Sleeps are written down, and take no time."""

    def __init__(self):
        self.slept = []

    def sleep(self, seconds):
        self.slept.append(seconds)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def api(kube, clock):
    with Api(HttpTransport(Login(kube.kubeconfig), clock=clock)) as api:
        yield api


def edited(kube, cluster=None, user=None, name="edited"):
    """A kubeconfig with other entries."""
    document = json.loads(kube.kubeconfig.read_text())
    for entry, changes in (
        (document["clusters"][0]["cluster"], cluster or {}),
        (document["users"][0]["user"], user or {}),
    ):
        entry.update(changes)
        for key in [key for key, value in entry.items() if value is None]:
            del entry[key]
    path = kube.kubeconfig.with_name(name)
    path.write_text(json.dumps(document))
    return path


# What is asked again


@pytest.mark.parametrize("code", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again(kube, api, clock, code):
    kube.fail(code, times=2)
    assert api.get(SECRETS, "key", SPACE)["data"] == {"key": "AAAA"}
    assert len(kube.requests) == 3
    assert len(clock.slept) == 2
    assert all(0 < wait <= 5 for wait in clock.slept)


@pytest.mark.parametrize(
    ("header", "waits"),
    [("1", [1.0, 1.0]), ("0", [0.0, 0.0]), ("3600", [5.0, 5.0])],
)
def test_it_waits_as_long_as_the_server_says_within_bounds(kube, api, clock, header, waits):
    kube.fail(429, times=2, headers={"Retry-After": header})
    api.get(SECRETS, "key", SPACE)
    assert clock.slept == waits


@pytest.mark.parametrize("header", ["-1", "soon", "1e9", "\u0661", "9" * 400, "nan"])
def test_a_wait_that_is_none(kube, api, clock, header):
    kube.fail(429, headers={"Retry-After": header})
    api.get(SECRETS, "key", SPACE)
    assert 0 < clock.slept[0] <= 5


def test_a_server_that_stays_busy_is_given_up(kube, api, clock):
    kube.fail(503, times=100)
    with pytest.raises(KubeError, match="503"):
        api.get(SECRETS, "key", SPACE)
    assert len(kube.requests) == 3
    assert len(clock.slept) == 2


@pytest.mark.parametrize("code", [400, 403, 404, 409, 410, 418, 422, 500, 501])
def test_an_answer_is_an_answer(kube, api, clock, code):
    kube.fail(code, times=100)
    with pytest.raises(KubeError, match=str(code)):
        api.get(SECRETS, "key", SPACE)
    assert (len(kube.requests), clock.slept) == (1, [])


@pytest.mark.parametrize("code", [429, 503])
def test_what_changes_something_is_asked_once(kube, api, clock, code):
    calls = (
        lambda: api.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, SPACE),
        lambda: api.patch(SECRETS, "key", {"data": None}, SPACE),
        lambda: api.delete(SECRETS, "key", SPACE),
        lambda: api.may("get", SECRETS, SPACE),
    )
    kube.fail(code, times=100)
    for number, call in enumerate(calls, 1):
        with pytest.raises(KubeError, match=str(code)):
            call()
        assert (len(kube.requests), clock.slept) == (number, [])


def test_a_get_whose_connection_breaks_is_asked_again(kube, api, clock):
    def hang_up(number, _):
        if number < 3:
            raise HangUpError

    kube.on_request = hang_up
    assert api.get(SECRETS, "key", SPACE)
    assert len(kube.requests) == 3


@pytest.mark.parametrize("done", [True, False])
def test_of_what_broke_it_is_said_that_it_may_be_done(kube, api, done):
    def hang_up(*_):
        raise HangUpError

    kube.on_request, kube.after_request = (None, hang_up) if done else (hang_up, None)
    with pytest.raises(KubeError, match="can't be reached") as caught:
        api.delete(SECRETS, "key", SPACE)
    assert "whether it was done" in caught.value.do
    assert len(kube.requests) == 1
    assert (kube.get(SECRETS, "key", SPACE) is None) == done


def test_nobody_is_there(kube, tmp_path, clock):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        path = edited(kube, {"server": f"https://127.0.0.1:{nobody.getsockname()[1]}"})
        with (
            Api(HttpTransport(Login(path), clock=clock)) as api,
            pytest.raises(KubeError, match=r"can't be reached: .*refused") as caught,
        ):
            api.patch(SECRETS, "key", {}, SPACE)
    assert "whether it was done" not in caught.value.do  # it never left
    assert "kubeconfig" in caught.value.do


def test_a_server_that_says_nothing(kube, clock):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        path = edited(kube, {"server": f"https://127.0.0.1:{silent.getsockname()[1]}"})
        short = Patience(connect=0.1, read=0.1)
        with (
            Api(HttpTransport(Login(path), clock=clock, patience=short)) as api,
            pytest.raises(KubeError, match="no answer in time"),
        ):
            api.get(SECRETS, "key", SPACE)
    assert len(clock.slept) == 2


# Who we are


def plugin(folder, source):
    """A credential plugin that prints a token out of a file."""
    program = (
        "import json, sys; text = open(sys.argv[1]).read(); open(sys.argv[1] + '.log', 'a')"
        ".write('x'); print(json.dumps({'status': {'token': text}}))"
    )
    return {
        "token": None,
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": ["-c", program, str(source)],
        },
    }


@pytest.fixture
def renewing(kube, tmp_path, clock):
    """An Api whose token has expired already, and whose plugin gives the new one."""
    source = tmp_path / "source"
    source.write_text(TOKEN)
    with Api(HttpTransport(Login(edited(kube, user=plugin(tmp_path, source))), clock=clock)) as api:
        kube.token = "the-next-token"
        source.write_text("the-next-token")
        api.runs = lambda: len((tmp_path / "source.log").read_text())
        yield api


def test_an_expired_login_is_renewed_once(kube, renewing):
    assert renewing.get(SECRETS, "key", SPACE)
    assert renewing.get(SECRETS, "key", SPACE)
    assert (kube.strangers, renewing.runs()) == (1, 2)
    kube.token = "nobody-has-this"
    for number in (3, 4):
        with pytest.raises(KubeLoginError, match="401") as caught:
            renewing.get(SECRETS, "key", SPACE)
        assert "log in again" in caught.value.do
        assert renewing.runs() == number
    assert kube.strangers == 5


def test_what_changes_something_is_renewed_too_it_was_not_done(kube, renewing):
    renewing.patch(SECRETS, "key", {"data": {"key": "BBBB"}}, SPACE)
    assert kube.get(SECRETS, "key", SPACE)["data"] == {"key": "BBBB"}


def test_what_we_may_not_renews_nothing(kube, renewing):
    renewing.get(SECRETS, "key", SPACE)
    kube.deny("get", SECRETS)
    with pytest.raises(KubeForbiddenError) as caught:
        renewing.get(SECRETS, "key", SPACE)
    assert not isinstance(caught.value, KubeLoginError)
    kube.deny("get", PODS, "exec")
    with pytest.raises(KubeForbiddenError), exec_socket(renewing):
        pass
    assert renewing.runs() == 2


def test_many_threads_renew_once(kube, renewing):
    found = []

    def ask():
        found.append(renewing.get(SECRETS, "key", SPACE))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 8
    assert renewing.runs() == 2


def test_a_log_and_a_stream_are_renewed_too(kube, renewing):
    put_pod(kube)
    kube.logs[SPACE, "etcd-0", "etcd"] = "a\n"
    kube.streams = Echo()
    with renewing.log("etcd-0", SPACE, "etcd") as lines:
        assert list(lines) == [b"a"]
    assert renewing.runs() == 2
    kube.token, known = TOKEN, kube.token
    with pytest.raises(KubeLoginError), exec_socket(renewing):
        pass
    assert renewing.runs() == 3
    kube.token = known
    with exec_socket(renewing) as stream:
        assert stream.protocol == "v5.channel.k8s.io"


def test_promise_5_the_token_goes_nowhere_else(kube, api):
    """A redirect is an answer: it is not followed, neither here nor to another host."""
    seen = []

    def serve(listener):
        with listener, listener.accept()[0] as connection:
            seen.append(connection.recv(65536))

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    port = listener.getsockname()[1]
    for where in (f"http://127.0.0.1:{port}/", f"{kube.url}{CONFIG_MAPS.path(SPACE)}"):
        before = len(kube.requests)
        kube.fail(302, headers={"Location": where})
        with pytest.raises(KubeError, match="302"):
            api.get(SECRETS, "key", SPACE)
        assert len(kube.requests) == before + 1
    socket.create_connection(("127.0.0.1", port)).close()
    assert TOKEN.encode() not in b"".join(seen)


def test_promise_5_no_error_holds_the_token(kube, api, caplog):
    caplog.set_level(0)
    kube.fail(500, body=f'{{"message": "a\\u001b[31m\\nb {"x" * 5000}"}}'.encode())
    with pytest.raises(KubeError) as caught:
        api.get(SECRETS, "key", SPACE)
    assert len(str(caught.value)) < 700
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
    kube.token = "another"
    with pytest.raises(KubeLoginError) as refused:
        api.get(SECRETS, "key", SPACE)
    for text in (repr(caught.value), repr(refused.value), repr(api.transport), caplog.text):
        assert TOKEN not in text
    assert TOKEN not in repr(api.transport.__dict__)


# Whom we trust


def test_a_server_that_nobody_vouches_for(kube, clock):
    import base64

    other = base64.b64encode(Authority.make("another").pem).decode()
    for changes in ({"certificate-authority-data": other}, {"certificate-authority-data": None}):
        with (
            Api(HttpTransport(Login(edited(kube, changes)), clock=clock)) as api,
            pytest.raises(KubeError, match=r"can't be reached: .*certificate") as caught,
        ):
            api.get(SECRETS, "key", SPACE)
        assert "certificate authority" in caught.value.do
    assert (kube.requests, clock.slept) == ([], [])


def test_insecure_is_obeyed(kube):
    changes = {"certificate-authority-data": None, "insecure-skip-tls-verify": True}
    with connect(edited(kube, changes), None) as api:
        assert api.get(SECRETS, "key", SPACE)
        assert "WARNING" in api.transport.credentials.describe()


@pytest.mark.parametrize("through_proxy", [False, True])
def test_the_name_that_the_kubeconfig_gives(kube, clock, through_proxy):
    with proxy() as (url, asked):
        changes = {"proxy-url": url} if through_proxy else {}
        with connect(edited(kube, {"tls-server-name": "localhost"} | changes), None) as api:
            assert api.get(SECRETS, "key", SPACE)
        path = edited(kube, {"tls-server-name": "elsewhere"} | changes)
        with (
            Api(HttpTransport(Login(path), clock=clock)) as api,
            pytest.raises(KubeError, match="can't be reached"),
        ):
            api.get(SECRETS, "key", SPACE)
        assert bool(asked) == through_proxy


@contextmanager
def proxy(answer=b"HTTP/1.1 200 OK\r\n\r\n"):
    """A proxy that does what CONNECT asks; gives its URL, and what it was asked."""
    listener, asked = socket.create_server(("127.0.0.1", 0)), []

    def copy(one, other):
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)

    def quietly(work, *parts):
        try:
            work(*parts)
        except OSError:
            return

    def serve(client):
        with client:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                byte = client.recv(1)
                if not byte:
                    return
                head += byte
            asked.append(head.decode())
            host, port = head.split()[1].decode().rsplit(":", 1)
            client.sendall(answer)
            if b" 200 " not in answer:
                return
            with socket.create_connection((host, int(port))) as server:
                back = threading.Thread(target=quietly, args=(copy, server, client), daemon=True)
                back.start()
                quietly(copy, client, server)
                back.join(5)

    def listen():
        while True:
            client, _ = listener.accept()
            threading.Thread(target=quietly, args=(serve, client), daemon=True).start()

    thread = threading.Thread(target=quietly, args=(listen,), daemon=True)
    thread.start()
    with listener:
        yield f"http://user:pass%40word@127.0.0.1:{listener.getsockname()[1]}", asked
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_promise_5_a_proxy_sees_no_token(kube):
    import base64

    put_pod(kube)
    kube.streams = Echo()
    with proxy() as (url, asked):
        with connect(edited(kube, {"proxy-url": url}), None) as api:
            assert api.get(SECRETS, "key", SPACE)
            with exec_socket(api) as stream:
                stream.send(b"\0hello")
                assert stream.receive(10) == b"\0hello"
        assert len(asked) == 2
        for head in asked:
            assert head.startswith(f"CONNECT {kube.url.removeprefix('https://')} ")
            assert base64.b64encode(b"user:pass@word").decode() in head
            assert TOKEN not in head


def test_a_proxy_that_refuses(kube, clock):
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    with proxy(refusal) as (url, _):
        with (
            Api(HttpTransport(Login(edited(kube, {"proxy-url": url})), clock=clock)) as api,
            pytest.raises(KubeError, match="407") as caught,
        ):
            api.create(SECRETS, {"metadata": {"name": "a"}}, SPACE)
        assert "word" not in f"{caught.value!r}"
        assert "whether it was done" not in caught.value.do


@pytest.mark.parametrize(
    "url", ["socks5://a:pw@b:1", "nonsense://pw@b", "http://[pw", "://pw", "http://"]
)
def test_a_proxy_that_is_none(kube, url):
    with pytest.raises(UsageError, match="proxy") as caught:
        connect(edited(kube, {"proxy-url": url}), None)
    assert "pw" not in f"{caught.value!r}"
    assert caught.value.__cause__ is None


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(kube, monkeypatch):
    with proxy() as (url, asked):
        monkeypatch.setenv("HTTPS_PROXY", url)
        with connect(kube.kubeconfig, None) as api:
            assert api.get(SECRETS, "key", SPACE)
        assert asked == []


# What it takes


def test_an_answer_has_a_bound(kube, api, monkeypatch):
    monkeypatch.setattr(http, "MAX_BODY", 100_000)
    kube.fail(200, body=b"x" * 100_001)
    with pytest.raises(KubeError, match="more than 100000 bytes"):
        api.get(SECRETS, "key", SPACE)
    whole = b'{"metadata": {"name": "key"}}'
    kube.fail(200, body=whole.ljust(100_000))
    assert api.get(SECRETS, "key", SPACE) == {"metadata": {"name": "key"}}


@pytest.mark.parametrize(
    "body", [b"{}", b'{"metadata": {"name": "other"}}', b'{"metadata": 1}', b'{"kind": "Secret"}']
)
def test_an_answer_is_the_object_that_was_asked_for(kube, api, body):
    """By it is decided what is put back."""
    for ask in (
        lambda: api.get(SECRETS, "key", SPACE),
        lambda: api.patch(SECRETS, "key", {"data": {}}, SPACE),
        lambda: api.create(SECRETS, {"metadata": {"name": "key"}}, SPACE),
    ):
        kube.fail(200, body=body)
        with pytest.raises(KubeError, match="answered secrets key with another object"):
            ask()


def test_a_packed_answer_is_not_unpacked(kube, api):
    kube.fail(200, body=gzip.compress(b"x" * (100 << 20)), headers={"Content-Encoding": "gzip"})
    with pytest.raises(KubeError, match="packed"):
        api.get(SECRETS, "key", SPACE)


def test_an_answer_that_does_not_end(kube, api, monkeypatch):
    times = iter([0.0, 1.0, 1000.0])
    monkeypatch.setattr(api.transport._clock, "monotonic", lambda: next(times), raising=False)
    kube.fail(200, body=b"x" * (1 << 20))
    with pytest.raises(KubeError, match="does not come to the end"):
        api.get(SECRETS, "key", SPACE)


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b"\xff", b"[" * 100_000, b"null", b"7"])
def test_an_answer_that_is_no_object(kube, api, body):
    kube.fail(200, body=body)
    with pytest.raises(KubeError, match="no object"):
        api.get(SECRETS, "key", SPACE)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"items": null}',
        b'{"items": [1]}',
        b'{"items": {"a": 1}}',
    ],
)
def test_a_list_that_is_none(kube, api, body):
    kube.fail(200, body=body)
    with pytest.raises(KubeError, match="something else"):
        api.list(SECRETS, SPACE)


def test_a_list_that_never_ends(kube, api):
    kube.fail(200, times=1000, body=b'{"items": [], "metadata": {"continue": "more"}}')
    with pytest.raises(KubeError, match="does not end"):
        api.list(SECRETS, SPACE)
    assert len(kube.requests) <= 400


def test_a_list_whose_pages_have_gone_begins_anew(kube, api, monkeypatch):
    monkeypatch.setattr("backstay.kubeapi.api.PAGE", 2)
    for number in range(5):
        kube.put(SECRET | {"metadata": {"name": f"s{number}", "namespace": SPACE}})
    kube.fail(410, times=0)

    def expire(number, _):
        kube.pages_expired = number == 2

    kube.on_request = expire
    names = [it["metadata"]["name"] for it in api.list(SECRETS, SPACE)]
    assert names == ["key", "s0", "s1", "s2", "s3", "s4"]
    kube.on_request, kube.pages_expired = None, True
    with pytest.raises(KubeConflictError, match="410"):
        api.list(SECRETS, SPACE)


@pytest.mark.parametrize("body", [b"{}", b'{"status": {}}', b'{"status": {"allowed": "yes"}}'])
def test_a_review_that_says_nothing_is_no_yes(kube, api, body):
    kube.fail(201, body=body)
    with pytest.raises(KubeError, match="does not say"):
        api.may("get", SECRETS, SPACE)


# Logs


def put_pod(kube, name="etcd-0"):
    kube.put(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": SPACE},
            "spec": {"containers": [{"name": "etcd"}]},
        }
    )


def test_a_log_comes_in_lines(kube, api):
    put_pod(kube)
    kube.logs[SPACE, "etcd-0", "etcd"] = "one\n\ntwo\r\n\u00fc\nlast"
    with api.log("etcd-0", SPACE, "etcd") as lines:
        assert list(lines) == [b"one", b"", b"two\r", "\u00fc".encode(), b"last"]
    assert kube.requests[-1].verb == "get"
    assert (kube.requests[-1].resource, kube.requests[-1].subresource) == ("pods", "log")


@pytest.mark.parametrize("end", ["\n", ""])
@pytest.mark.parametrize("size", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 10 * MAX_LINE + 7])
def test_a_line_has_a_bound(kube, api, size, end):
    put_pod(kube)
    kube.logs[SPACE, "etcd-0", "etcd"] = "x" * size + end
    with api.log("etcd-0", SPACE, "etcd") as lines:
        found = list(lines)
    assert max(map(len, found)) <= MAX_LINE
    assert b"".join(found) == b"x" * size


def test_a_log_is_followed_as_it_grows(kube, api):
    put_pod(kube)
    key = (SPACE, "etcd-0", "etcd")
    kube.logs[key] = "one\n"
    with api.log("etcd-0", SPACE, "etcd", follow=True) as lines:
        assert next(lines) == b"one"
        kube.logs[key] += "two\n"
        assert next(lines) == b"two"
        kube.remove(PODS, "etcd-0", SPACE)
        assert list(lines) == []
    assert api.get(SECRETS, "key", SPACE)


def test_a_log_that_is_left_early(kube, api):
    put_pod(kube)
    kube.logs[SPACE, "etcd-0", "etcd"] = "line\n" * 100_000
    for _ in range(3):
        with api.log("etcd-0", SPACE, "etcd", follow=True) as lines:
            assert next(lines) == b"line"
    assert api.get(SECRETS, "key", SPACE)


def test_logs_that_are_not_there(kube, api):
    with pytest.raises(KubeNotFoundError), api.log("etcd-0", SPACE, "etcd"):
        pass
    put_pod(kube)
    with pytest.raises(KubeError, match="waiting to start"), api.log("etcd-0", SPACE, "etcd"):
        pass
    kube.deny("get", PODS, "log")
    with pytest.raises(KubeForbiddenError), api.log("etcd-0", SPACE, "etcd"):
        pass
    kube.on_request = lambda *_: (_ for _ in ()).throw(HangUpError())
    with pytest.raises(KubeError, match="can't be reached"), api.log("etcd-0", SPACE, "etcd"):
        pass


def test_a_log_that_is_cut(kube, api, monkeypatch):
    async def cut(request, _):
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"one\ntw")
        request.transport.abort()
        return answer

    monkeypatch.setattr(kube, "log", cut)
    found = []
    with (
        pytest.raises(KubeStreamError, match="the log was cut"),
        api.log("etcd-0", SPACE, "etcd", follow=True) as lines,
    ):
        found.extend(lines)


# WebSockets


class Echo:
    """Says everything back."""

    async def exec(self, request):
        stream = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
        await stream.prepare(request)
        async for message in stream:
            await stream.send_bytes(message.data)
        return stream


@contextmanager
def exec_socket(api, pod="etcd-0"):
    params = (("command", "a b"), ("command", "c&d"), ("stdout", "true"))
    request = Request(method="GET", path=PODS.path(SPACE, pod, "exec"), params=params)
    with api.transport.websocket(request, ("v5.channel.k8s.io",)) as stream:
        yield stream


def test_a_websocket(kube, api):
    put_pod(kube)
    kube.streams = Echo()
    with exec_socket(api) as stream:
        stream.send(b"\0hello")
        assert stream.receive(10) == b"\0hello"
    seen = kube.requests[-1]
    # Authorized as `get`; POST and newer clusters ask for `create`: roles have both.
    assert (seen.verb, seen.resource, seen.subresource) == ("get", "pods", "exec")
    assert seen.params == (("command", "a b"), ("command", "c&d"), ("stdout", "true"))


def test_websockets_that_are_refused(kube, api):
    with pytest.raises(KubeError, match="501"), exec_socket(api):
        pass
    kube.deny("get", PODS, "exec")
    with pytest.raises(KubeForbiddenError, match="cannot get"), exec_socket(api):
        pass
    kube.allow()
    kube.fail(404)
    with pytest.raises(KubeNotFoundError), exec_socket(api):
        pass
    kube.token = "another"
    with pytest.raises(KubeLoginError) as caught, exec_socket(api):
        pass
    assert TOKEN not in f"{caught.value!r}"


def test_an_error_within_a_stream_is_that_error(kube, api):
    kube.streams = Echo()
    with pytest.raises(KubeForbiddenError, match="of mine"), exec_socket(api):
        raise KubeForbiddenError("of mine")
    with pytest.raises(KubeLoginError, match="of mine"), exec_socket(api):
        raise KubeLoginError("of mine")
    assert [seen.subresource for seen in kube.requests] == ["exec", "exec"]


# Ends


def test_it_is_closed_more_than_once(kube):
    api = connect(kube.kubeconfig, None)
    api.get(NAMESPACES, SPACE)
    api.close()
    api.close()


def test_nothing_is_asked_before_there_is_a_question(kube):
    with connect(kube.kubeconfig, None):
        pass
    assert kube.requests == []


def test_what_a_request_says(kube):
    """In the clear, to see it; and so without the token."""
    heads = []

    def serve(listener):
        with listener.accept()[0] as connection:
            head = b""
            while not head.endswith(b"}"):
                head += connection.recv(65536)
            heads.append(head.decode())
            answer = b'{"metadata": {"name": "key"}}'
            length = b"Content-Length: %d" % len(answer)
            connection.sendall(b"\r\n".join((b"HTTP/1.1 200 OK", length, b"", answer)))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        path = edited(kube, {"server": f"http://127.0.0.1:{listener.getsockname()[1]}"})
        with connect(path, None) as api:
            api.patch(SECRETS, "key", {"data": {"a": None}}, SPACE)
        thread.join(10)
    line, *headers = heads[0].partition("\r\n\r\n")[0].split("\r\n")
    assert line == f"PATCH {SECRETS.path(SPACE, 'key')} HTTP/1.1"
    said = {name.lower(): value for name, value in (each.split(": ", 1) for each in headers)}
    assert said["content-type"] == "application/merge-patch+json"
    assert (said["accept"], said["accept-encoding"]) == ("application/json", "identity")
    assert said["user-agent"] == "backstay"
    assert "authorization" not in said
    assert heads[0].endswith('{"data": {"a": null}}')


def test_a_path_before_the_api(kube):
    """Some platforms put a path before: https://rancher/k8s/clusters/c-1."""
    path = edited(kube, {"server": f"{kube.url}/k8s/clusters/c-1/"})
    with connect(path, None) as api, pytest.raises(KubeNotFoundError):
        api.get(SECRETS, "key", SPACE)
    assert kube.requests[0].path == f"/k8s/clusters/c-1{SECRETS.path(SPACE, 'key')}"


def test_a_server_is_quick_to_start(tmp_path):
    began = time.monotonic()
    with KubeServer.start(tmp_path) as kube:
        assert kube.kubeconfig.stat().st_mode & 0o777 == 0o600
        with pytest.raises(ssl.SSLError), kubeless(kube):
            pass
    assert time.monotonic() - began < 10


@contextmanager
def kubeless(kube):
    """A client that trusts whom the system trusts."""
    address = ("127.0.0.1", int(kube.url.rsplit(":", 1)[1]))
    with (
        socket.create_connection(address) as sock,
        ssl.create_default_context().wrap_socket(sock, server_hostname="127.0.0.1") as wrapped,
    ):
        yield wrapped


def test_a_stranger_is_not_told_anything(kube, tmp_path):
    document = json.loads(kube.kubeconfig.read_text())
    path = kubeconfig(tmp_path / "stranger", kube.url, b"", "wrong")
    other = json.loads(path.read_text())
    other["clusters"] = document["clusters"]
    path.write_text(json.dumps(other))
    with connect(path, None) as api, pytest.raises(KubeLoginError):
        api.get(SECRETS, "key", SPACE)
    assert kube.requests == []
