"""What only S3 has: variables that obstore reads, proxies, hosts, and limits of memory."""

import subprocess
import sys

import pytest

from backstay.client.proxy import Proxies
from backstay.errors import BackstayError, NotFoundError, StoreError
from backstay.repo.lock import Lock, Mode
from backstay.repo.stores.s3 import Limits
from backstay.repo.url import Access, open_store
from kit import s3, wire

#: For what nobody answers.
IMPATIENT = Limits(connect=1, answer=2, part=2, silence=2, patience=0.2, perseverance=0.2)


def test_certificates_are_checked_whatever_a_variable_says(s3_store, tls_server, monkeypatch):
    """obstore obeys this one by itself."""
    monkeypatch.setenv("AWS_ALLOW_INVALID_CERTIFICATES", "true")
    store = s3_store(tls_server, trusting=False)
    with pytest.raises(StoreError, match="not signed by an authority"):
        store.put_new("a", b"1")


def test_a_variable_does_not_win_over_an_endpoint(s3_store, plain_server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")
    monkeypatch.setenv("AWS_REGION", "nowhere")
    store = s3_store(plain_server)
    store.put_new("a", b"1")
    assert store.read("a", 1) == b"1"


def test_the_environment_alone_is_enough(tls_server, monkeypatch):
    """As aws-cli would be called: endpoint, credentials and authority from variables."""
    for name, value in tls_server.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://{s3.BUCKET}/from/variables")
    store.put_new("a", b"1")
    assert store.read("a", 1) == b"1"


def test_an_authority_is_added_to_the_systems(tls_server, monkeypatch, tmp_path):
    for name, value in tls_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere")
    store = open_store(f"s3://{s3.BUCKET}/by/option", Access(ca_bundle=tls_server.authority))
    store.put_new("a", b"1")


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_proxies_by_the_usual_variables(request, s3_store, monkeypatch, kind):
    server = request.getfixturevalue(f"{kind}_server")
    for name in ("NO_PROXY", "no_proxy", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with wire.proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        store = s3_store(server)
        store.put_new("a", b"1")
        assert store.read("a", 1) == b"1"
        assert proxy.requests
        words = {line.split()[0] for line in proxy.requests}
        assert words == ({"CONNECT"} if kind == "tls" else {"PUT", "GET"})
        proxy.requests.clear()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        store = s3_store(server)
        store.put_new("a", b"1")
        assert not proxy.requests


def test_promise_5_the_password_of_a_proxy_is_not_shown(s3_store, tls_server, monkeypatch):
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter2@127.0.0.1:1")
    with pytest.raises(StoreError) as caught:
        s3_store(tls_server).put_new("a", b"1")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("virtual_hosted", "line"),
    [
        (False, "GET http://s3.example.test/backups/pre/a HTTP/1.1"),
        (True, "GET http://backups.s3.example.test/pre/a HTTP/1.1"),
    ],
)
def test_where_the_bucket_is_named(s3_store, plain_server, monkeypatch, virtual_hosted, line):
    """A proxy sees what is asked for, and nobody needs the name's address."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with wire.proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        store = s3_store(
            plain_server,
            endpoint="http://s3.example.test",
            prefix="pre",
            virtual_hosted=virtual_hosted,
        )
        with pytest.raises(Exception, match="a is not there"):
            store.read("a", 1)
        assert proxy.requests == [line]


@pytest.mark.parametrize(
    ("no_proxy", "virtual_hosted", "through"),
    [
        ("", False, True),
        (".svc,10.0.0.0/8,.other.test", False, True),
        (".example.test", False, False),
        ("s3.example.test:80", False, False),
        (".s3.example.test", False, True),
        # The name that is asked for has the bucket's in front.
        (".s3.example.test", True, False),
    ],
)
def test_proxies_that_are_given(
    s3_store, plain_server, monkeypatch, no_proxy, virtual_hosted, through
):
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with wire.proxy() as proxy:
        store = s3_store(
            plain_server,
            limits=IMPATIENT,
            endpoint="http://s3.example.test",
            virtual_hosted=virtual_hosted,
            proxies=Proxies(http=proxy.url, no_proxy=no_proxy),
        )
        with pytest.raises(BackstayError) as caught:
            store.read("a", 1)
        # Nobody else knows where that name leads.
        assert (caught.type is NotFoundError) == bool(proxy.requests) == through


def test_promise_5_the_password_of_a_given_proxy_is_not_shown(s3_store, plain_server, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    store = s3_store(
        plain_server,
        limits=IMPATIENT,
        endpoint="http://s3.example.test",
        proxies=Proxies(http="http://me:hunter2@127.0.0.1:1"),
    )
    with pytest.raises(StoreError) as caught:
        store.put_new("a", b"1")
    assert "hunter2" not in f"{caught.value}{store!r}{store.bucket!r}{store.describe()}"


def test_objects_are_deleted_one_by_one(s3_store, plain_server):
    """Not every server knows the request that deletes many."""
    with wire.to(plain_server.endpoint) as between:
        store = s3_store(plain_server, endpoint=between.url)
        store.put_new("a", b"1")
        store.delete("a")
        assert [line.split()[0] for line in between.requests] == ["PUT", "DELETE"]


MEASURE = """
import os, re, sys
from backstay.repo.lock import Lock, Mode
from backstay.repo.url import Access, open_store

def peak():
    # Not getrusage: its peak is that of the process that forked us, too.
    status = open("/proc/self/status").read()
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) >> 10

store = open_store(sys.argv[1], Access(allow_http=True))
store.put_new("warm", b"1")
print(peak())
with store.writer("big") as sink:
    for _ in range(int(sys.argv[2])):
        sink.write(os.urandom(1 << 20))  # a new one each time: buffers are kept, not copied
print(peak())
came = sum(len(piece) for piece in store.stream("big"))
assert came == int(sys.argv[2]) << 20
print(peak())
"""


def test_memory_does_not_grow_with_the_object(tmp_path):
    with s3.plain(tmp_path / "s3") as server:
        grown = {}
        for size in (32, 192):
            done = subprocess.run(
                [sys.executable, "-c", MEASURE, f"s3://{s3.BUCKET}/{size}", str(size)],
                env=server.environment,
                capture_output=True,
                check=True,
                timeout=120,
            )
            grown[size] = [int(word) for word in done.stdout.split()]
    # Of 192 MiB no more than of 32 is held at a time.
    assert grown[192][-1] < 160, grown
    assert grown[192][-1] < grown[32][-1] + 40, grown


def test_what_locks_trusts_whom_the_store_trusts(s3_store, tls_server):
    """Two libraries speak to the server, and both check its certificate."""
    lock = Lock(mode=Mode.GOVERNANCE, days=1)
    assert s3_store(tls_server).locking(lock).locked_until("nothing") is None
    with pytest.raises(StoreError, match="SSLError"):
        s3_store(tls_server, trusting=False).locking(lock).locked_until("nothing")
