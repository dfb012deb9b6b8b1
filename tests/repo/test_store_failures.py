"""What can go wrong between here and an S3 server: each cause staged, told in plain words."""

import http.server
import secrets
import socket
import threading
import time
import traceback
from contextlib import closing, contextmanager

import pytest

from backstay.errors import AlreadyExistsError, BackstayError, NotFoundError, SpaceError, StoreError
from backstay.repo.stores.reasons import reason_of
from backstay.repo.stores.s3 import Limits
from kit import s3, wire
from kit.certificates import days
from kit.wire import Break

HASTY = Limits(connect=2, answer=1, part=1, silence=1, patience=0.1, perseverance=0.1)


def write(store):
    with store.writer("a/big") as sink:
        sink.write(b"x" * 100)


ACTS = {
    "put_new": lambda store: store.put_new("a/b", b"1"),
    "writer": write,
    "read": lambda store: store.read("a/b", 10),
    "stream": lambda store: next(store.stream("a/b")),
    "list": lambda store: list(store.list()),
    "delete": lambda store: store.delete("a/b"),
    "now": lambda store: store.now(),
    "stat": lambda store: store.stat("a/b"),
}


def told(store, act):
    with pytest.raises(BackstayError) as caught:
        ACTS[act](store)
    return caught.value


def check_all(store, what, do, *, quiet=("stat",)):
    """Every operation tells the cause; some get no more than a status from the server."""
    for act in ACTS:
        error = told(store, act)
        assert isinstance(error, StoreError)
        if act not in quiet:
            assert what in error.what, act
            assert do in error.do, act
        assert store.url in error.what


def test_a_wrong_secret_key(plain_server, s3_store, monkeypatch):
    store = s3_store(plain_server)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = type(store)(store._bucket, HASTY)
    check_all(store, "secret key does not fit", "AWS_SECRET_ACCESS_KEY")
    assert "access is denied" in told(store, "stat").what


def test_a_wrong_access_key(plain_server, s3_store, monkeypatch):
    store = s3_store(plain_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "WRONG")
    store = type(store)(store._bucket, HASTY)
    check_all(store, "does not know the access key", "AWS_ACCESS_KEY_ID")


def test_no_credentials_at_all(plain_server, s3_store, monkeypatch):
    bucket = s3_store(plain_server)._bucket
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    # Where an instance in a cloud would ask for its role, nobody is here.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    from backstay.repo.stores.s3 import S3Store

    check_all(S3Store(bucket, HASTY), "no credentials", "AWS_ACCESS_KEY_ID", quiet=())


def test_no_such_bucket(plain_server, s3_store):
    store = s3_store(plain_server, name="nothing-here")
    for act in set(ACTS) - {"stat"}:
        error = told(store, act)
        assert type(error) is StoreError
        assert "no such bucket" in error.what
        assert "make the bucket" in error.do
    # To a HEAD a server's answer has no more than "not found".
    with pytest.raises(NotFoundError):
        store.stat("a/b")


def test_nobody_listens(s3_store, plain_server):
    store = s3_store(plain_server, endpoint=f"http://127.0.0.1:{free_port()}", limits=HASTY)
    check_all(store, "nobody listens there", "endpoint", quiet=())


def test_a_name_without_address(s3_store, plain_server):
    store = s3_store(plain_server, endpoint="http://nothing.invalid", limits=HASTY)
    check_all(store, "host name has no address", "endpoint", quiet=())


def test_an_authority_that_is_not_trusted(s3_store, tls_server):
    store = s3_store(tls_server, trusting=False, limits=HASTY)
    check_all(store, "not signed by an authority that is trusted", "--ca-bundle", quiet=())


def test_a_certificate_for_another_name(s3_store, tmp_path):
    certificate = s3.throw_away_certificate(tmp_path / "tls", hosts=["s3.example.com"])
    with s3.over_tls(tmp_path / "s3", certificate) as server:
        error = told(s3_store(server, limits=HASTY), "put_new")
    assert "for another name" in error.what
    assert "endpoint" in error.do


def test_a_certificate_that_has_run_out(s3_store, tmp_path):
    certificate = s3.throw_away_certificate(tmp_path / "tls", end=days(-1))
    with s3.over_tls(tmp_path / "s3", certificate) as server:
        error = told(s3_store(server, limits=HASTY), "put_new")
    assert "certificate has run out" in error.what


def test_tls_where_plain_http_is_spoken_and_the_other_way_round(s3_store, plain_server, tls_server):
    endpoint = plain_server.endpoint.replace("http:", "https:")
    error = told(s3_store(plain_server, endpoint=endpoint, limits=HASTY), "put_new")
    assert "does not speak TLS" in error.what
    endpoint = tls_server.endpoint.replace("https:", "http:")
    store = s3_store(tls_server, endpoint=endpoint, allow_http=True, limits=HASTY)
    error = told(store, "put_new")
    assert "speaks TLS only" in error.what


def test_a_server_that_never_answers(s3_store, plain_server):
    with wire.to(plain_server.endpoint, lambda line: Break.STALL) as silent:
        store = s3_store(plain_server, endpoint=silent.url, limits=HASTY)
        for act in ("put_new", "writer", "stream"):
            began = time.monotonic()
            error = told(store, act)
            assert "no answer within the time" in error.what, act
            assert time.monotonic() - began < 12


def test_a_download_that_breaks_off(s3_store, plain_server):
    direct = s3_store(plain_server)
    with direct.writer("a/b") as sink:
        sink.write(b"x" * 3_000_000)
    with wire.to(
        plain_server.endpoint, lambda line: Break.HALF if line.startswith("GET") else Break.NOTHING
    ) as broken:
        prefix = direct._bucket.prefix
        store = s3_store(plain_server, endpoint=broken.url, prefix=prefix, limits=HASTY)
        for act in (lambda: list(store.stream("a/b")), lambda: store.read("a/b", 10**7)):
            with pytest.raises(StoreError):
                act()


def test_an_answer_that_was_lost_is_asked_for_again(s3_store, plain_server):
    lost = []

    def once(line):
        if not lost and line.startswith("GET"):
            lost.append(line)
            return Break.REFUSE
        return Break.NOTHING

    direct = s3_store(plain_server)
    direct.put_new("a/b", b"1")
    with wire.to(plain_server.endpoint, once) as broken:
        store = s3_store(plain_server, endpoint=broken.url, prefix=direct._bucket.prefix)
        assert store.read("a/b", 10) == b"1"
        assert len(broken.requests) == 2


def test_an_upload_whose_last_answer_was_lost_is_found_to_be_there(s3_store, plain_server):
    lost = []

    def last(line):
        if not lost and line.startswith("POST") and "uploadId=" in line:
            lost.append(line)
            return Break.LOSE_ANSWER
        return Break.NOTHING

    with wire.to(plain_server.endpoint, last) as broken:
        store = s3_store(plain_server, endpoint=broken.url)
        with store.writer("a/big") as sink:
            for _ in range(10):
                sink.write(b"x" * (1 << 20))
        assert lost
        assert store.stat("a/big").size == 10 << 20


def test_a_put_whose_answer_was_lost_is_not_taken_for_another_s(s3_store, conditional_server):
    lost = []

    def once(line):
        if not lost and line.startswith("PUT"):
            lost.append(line)
            return Break.LOSE_ANSWER
        return Break.NOTHING

    with wire.to(conditional_server.endpoint, once) as broken:
        store = s3_store(conditional_server, endpoint=broken.url)
        store.put_new("a/b", b"mine")
        assert len([line for line in broken.requests if line.startswith("PUT")]) == 2
        assert store.read("a/b", 10) == b"mine"


def test_promise_1_an_upload_that_the_server_refuses_in_the_end_is_not_there(
    s3_store, plain_server
):
    def never(line):
        last = line.startswith("POST") and "uploadId=" in line
        return Break.REFUSE if last else Break.NOTHING

    with wire.to(plain_server.endpoint, never) as broken:
        store = s3_store(plain_server, endpoint=broken.url, limits=HASTY)
        with pytest.raises(StoreError), store.writer("a/big") as sink:
            for _ in range(10):
                sink.write(b"x" * (1 << 20))
        assert list(store.list()) == []


def test_an_upload_that_is_given_up_leaves_no_part(s3_store, tmp_path):
    def files(server):
        return [path for path in server.root.rglob("*") if path.is_file()]

    with s3.plain(tmp_path / "s3") as server:
        store = s3_store(server)
        with pytest.raises(KeyError), store.writer("a/big") as sink:
            deadline = time.monotonic() + 20
            while not files(server) and time.monotonic() < deadline:
                sink.write(secrets.token_bytes(1 << 20))
            assert files(server)  # parts are there, hidden
            raise KeyError
        assert not files(server)


def test_an_error_in_the_block_is_not_hidden_by_a_dead_server(s3_store, tmp_path):
    with s3.plain(tmp_path / "s3") as server:
        store = s3_store(server, limits=HASTY)
        writer = store.writer("a/big")
        sink = writer.__enter__()
        for _ in range(20):
            sink.write(b"x" * (1 << 20))
    error = KeyError("the cause")
    assert not writer.__exit__(KeyError, error, None)


# Answers of servers that are not here.

SECRET = "FwoGZXIvYXdzEXAMPLETOKEN"
LEAKING = (
    "<Error><Code>SignatureDoesNotMatch</Code><Message>No.</Message>"
    f"<StringToSign>x-amz-security-token:{SECRET}</StringToSign></Error>"
)


@contextmanager
def answering(status, body):
    """A server that always says the same."""
    data = body.encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *args):
            pass

    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.answer)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def error_of(code, message="because"):
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"


@pytest.mark.parametrize(
    ("status", "body", "what_and_do"),
    [
        (403, error_of("AccessDenied", "User x may not y"), ("(User x may not y)", "s3:PutObject")),
        (403, "", ("access is denied", "AWS_ACCESS_KEY_ID")),
        (400, error_of("ExpiredToken"), ("session token has run out", "new temporary")),
        (400, error_of("AuthorizationHeaderMalformed"), ("in another region", "--s3-region")),
        (301, error_of("PermanentRedirect"), ("in another region", "--s3-region")),
        (403, error_of("RequestTimeTooSkewed"), ("clock differs", "NTP")),
        (503, error_of("SlowDown"), ("overloaded", "later")),
        (
            400,
            error_of("InvalidRequest", "Content-MD5 OR x-amz-checksum- HTTP header is required"),
            ("wants a checksum", "AWS_CHECKSUM_ALGORITHM"),
        ),
        (
            418,
            error_of("Teapot", "short &amp; stout\n\x1b[31m"),
            ("418 Teapot (short & stout", "log"),
        ),
        (418, "<html>hello</html>", ("answered 418", "log")),
        (500, "\0\xff" * 100, ("answered 500", "log")),
    ],
)
def test_what_a_server_says_is_told(s3_store, plain_server, status, body, what_and_do):
    with answering(status, body) as endpoint:
        store = s3_store(plain_server, endpoint=endpoint, limits=HASTY)
        error = told(store, "put_new")
    assert what_and_do[0] in error.what
    assert what_and_do[1] in error.do
    assert str(error).isprintable()


@pytest.mark.parametrize(
    ("status", "code"), [(507, "InsufficientStorage"), (403, "QuotaExceeded"), (507, "")]
)
def test_a_full_server_is_told_as_full(s3_store, plain_server, status, code):
    with answering(status, error_of(code) if code else "") as endpoint:
        store = s3_store(plain_server, endpoint=endpoint, limits=HASTY)
        with pytest.raises(SpaceError):
            store.put_new("a/b", b"1")


@pytest.mark.parametrize("act", [act for act in ACTS if act != "stat"])
def test_promise_5_no_error_hands_on_what_a_server_repeats(s3_store, plain_server, act):
    with answering(403, LEAKING) as endpoint:
        store = s3_store(plain_server, endpoint=endpoint, limits=HASTY)
        error = told(store, act)
    shown = "".join(traceback.format_exception(error))
    assert "secret key does not fit" in shown
    assert SECRET not in shown
    assert plain_server.secret_key not in shown


def test_a_server_that_does_not_know_create_only_puts(s3_store, plain_server):
    def unknown(head):
        return Break.UNKNOWN if "if-none-match" in head.lower() else Break.NOTHING

    with wire.to(plain_server.endpoint, unknown) as between:
        store = s3_store(plain_server, endpoint=between.url, limits=HASTY)
        store.put_new("a/b", b"1")
        assert store.read("a/b", 10) == b"1"
        with pytest.raises(AlreadyExistsError):
            store.put_new("a/b", b"2")
        assert store.read("a/b", 10) == b"1"


def test_an_error_that_nobody_knows_is_told_without_its_text():
    reason = reason_of(ValueError(f"something with {SECRET} in it"))
    assert reason.what == "the request failed"
    assert SECRET not in str(reason)


@pytest.mark.soak
def test_a_dead_endpoint_costs_less_than_half_a_minute(s3_store, plain_server):
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(address)
        store = s3_store(plain_server, endpoint=f"http://127.0.0.1:{address[1]}", limits=Limits())
        for act in ACTS:
            began = time.monotonic()
            assert "no answer" in told(store, act).what
            assert time.monotonic() - began < (90 if act in {"writer", "stream"} else 30)
        for client in waiting:
            client.close()


def free_port():
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return listener.getsockname()[1]
