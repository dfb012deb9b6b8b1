"""Snapshots exported into a staging place, and the URL tried as etcd-init's curl will use it."""

import hashlib
import secrets
import ssl
import subprocess
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest

from backstay.client.secret import Secret
from backstay.clock import SystemClock
from backstay.errors import DamagedError
from backstay.flows.staging import MAX_URL, check_url, expiry_of, faults_of, stage_export
from backstay.mvcc.export import Edits
from backstay.mvcc.snapshot import Snapshot
from backstay.repo.name import BackupId
from backstay.repo.staged import EDGE, Link, Staged, StagedName
from backstay.repo.staging import Staging
from backstay.repo.stores.s3 import Bucket, S3Store
from backstay.report import Report, Said, Verdict
from kit import fixtures, needs, s3
from kit.certificates import Authority

CLOCK = SystemClock()
BACKUP = BackupId.parse("clusters.prod/20261120T231000Z-r2001-k3f9")
DAY = timedelta(days=1)
BUMP = Edits(bump=1_000_000_000, mark_compacted=True, drop_alarms=True)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A real S3 server over TLS, under an authority that nobody trusts by default."""
    with s3.over_tls(tmp_path_factory.mktemp("staging") / "s3") as server:
        yield server


@pytest.fixture
def staging(server, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    return Staging(
        S3Store(
            Bucket(
                name=s3.BUCKET,
                prefix=f"{secrets.token_hex(4)}.staging",
                endpoint=server.endpoint,
                authorities=server.authority.read_bytes(),
            )
        ),
        CLOCK,
    )


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory):
    return fixtures.write("kube-aescbc", tmp_path_factory.mktemp("snapshot"))


@pytest.fixture
def staged(staging, snapshot):
    return put(staging, snapshot)


def put(staging, path, edits=BUMP, listener=lambda _: None):
    with Snapshot.open(path) as snapshot:
        return stage_export(
            snapshot, edits, staging, BACKUP, expires=CLOCK.now() + DAY, report=Report(listener)
        )


def judge(link, staged, *, until=None, **more):
    until = until or CLOCK.now() + timedelta(minutes=1)
    return check_url(link, staged, until=until, clock=CLOCK, **more)


# Staging


def test_promise_2_the_staged_snapshot_restores_with_plain_etcdutl(
    staging, staged, server, tmp_path
):
    """What etcd-init does: curl, then etcdutl, with the check of the SHA-256."""
    url = staging.link(staged.path, 600).url.reveal()
    subprocess.run(
        [needs.binary("curl"), "--cacert", server.authority, "-o", tmp_path / "snapshot", url],
        check=True,
        capture_output=True,
    )
    with Snapshot.open(tmp_path / "snapshot") as fetched:
        assert fetched.trailer == fetched.sha256() == staged.tail[-32:]
        assert fetched.revision > BUMP.bump
        assert fetched.compact_revision == fetched.revision
    subprocess.run(
        [
            needs.binary("etcdutl"),
            *("snapshot", "restore", tmp_path / "snapshot"),
            *("--data-dir", tmp_path / "restore"),
        ],
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "restore/member/snap/db").is_file()


def test_a_damaged_source_puts_nothing_there(staging, tmp_path):
    data = bytearray(fixtures.data("etcd36-plain"))
    data[-1] ^= 1
    (tmp_path / "damaged.db").write_bytes(data)
    with pytest.raises(DamagedError, match="SHA-256"):
        put(staging, tmp_path / "damaged.db")
    assert staging.staged() == ()


def test_a_source_without_a_sum_is_warned_of(staging, tmp_path):
    (tmp_path / "copy.db").write_bytes(fixtures.data("etcd36-plain")[:-32])
    said = []
    put(staging, tmp_path / "copy.db", listener=said.append)
    [warning] = [event.text for event in said if isinstance(event, Said) and event.warning]
    assert "no SHA-256" in warning


def test_what_is_to_know_of_the_place_is_told(snapshot, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    said = []
    with s3.conditional() as running:
        client = boto3.client("s3", endpoint_url=running.endpoint, region_name="us-east-1")
        versions = {"Status": "Enabled"}
        client.put_bucket_versioning(Bucket=s3.BUCKET, VersioningConfiguration=versions)
        client.close()
        bucket = Bucket(name=s3.BUCKET, endpoint=running.endpoint, allow_http=True)
        staging = Staging(S3Store(bucket), CLOCK)
        put(staging, snapshot, listener=said.append)
    [warning] = [event.text for event in said if isinstance(event, Said) and event.warning]
    assert "NoncurrentVersionExpiration" in warning


# Trying the URL


@pytest.mark.parametrize("whole", [False, True])
def test_a_url_that_works_passes(staging, staged, server, monkeypatch, whole):
    monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
    check = judge(staging.link(staged.path, 600), staged, whole=whole)
    assert check.verdict is Verdict.PASS, check
    assert str(staged.size) in check.detail
    assert ("SHA-256" in check.detail) is whole


def test_promise_4_an_authority_of_ones_own_is_not_proven_to_work(staging, staged, server):
    link = staging.link(staged.path, 600)
    check = judge(link, staged, authorities=server.authority.read_bytes())
    assert check.verdict is Verdict.COULD_NOT_VERIFY
    assert "etcd-init's curl" in check.detail
    # Nobody trusts it: then curl in the pod does not either.
    for others in (b"", Authority.make().pem):
        check = judge(link, staged, authorities=others)
        assert check.verdict is Verdict.FAIL
        assert "not trusted" in check.detail


def test_promise_4_credentials_that_may_end_sooner_are_not_proven_to_work(
    staging, staged, server, monkeypatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
    link = replace(staging.link(staged.path, 600), certain=False, warnings=("may end sooner",))
    check = judge(link, staged)
    assert check.verdict is Verdict.COULD_NOT_VERIFY
    assert "may end sooner" in check.detail


@pytest.mark.parametrize("edge", ["head", "tail"])
@pytest.mark.parametrize("bit", [0, EDGE - 1])
def test_another_file_of_the_same_size_is_found(staging, staged, server, monkeypatch, edge, bit):
    monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
    bad = bytearray(getattr(staged, edge))
    bad[bit] ^= 1
    check = judge(staging.link(staged.path, 600), replace(staged, **{edge: bytes(bad)}))
    assert check.verdict is Verdict.FAIL
    assert "not the snapshot" in check.detail


def test_damage_in_the_middle_is_found_by_reading_all(staging, staged, server, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
    [found] = server.root.rglob(f"{staged.path.split('/')[0]}/**/*.db")
    with found.open("r+b") as file:
        file.seek(staged.size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    link = staging.link(staged.path, 600)
    assert judge(link, staged).verdict is Verdict.PASS
    assert judge(link, staged, whole=True).verdict is Verdict.FAIL


def test_an_object_that_is_gone_and_a_wrong_signature_fail(staging, staged, server, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
    link = staging.link(staged.path, 600)
    forged = replace(link, url=Secret(link.url.reveal()[:-1] + "x"))
    check = judge(forged, staged)
    assert (check.verdict, "403" in check.detail) == (Verdict.FAIL, True)
    assert "(SignatureDoesNotMatch)" in check.detail
    staging.remove(staged.path)
    check = judge(link, staged)
    assert (check.verdict, "404" in check.detail) == (Verdict.FAIL, True)


def test_nobody_there_can_not_be_verified(staging, staged):
    link = staging.link(staged.path, 600)
    host = link.url.reveal().split("/")[2]
    nowhere = replace(link, url=Secret(link.url.reveal().replace(host, "127.0.0.1:1")))
    check = judge(nowhere, staged)
    assert check.verdict is Verdict.COULD_NOT_VERIFY
    assert "127.0.0.1:1" in check.detail


# What can be seen in the URL itself


def signed(
    *, scheme="https", host="s3.example.com", path="/b/x.db", token="", seconds=86400, date=None
):
    at = date or f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    query = f"X-Amz-Date={at}&X-Amz-Expires={seconds}&X-Amz-SignedHeaders=host"
    query += f"&X-Amz-Security-Token={token}" if token else ""
    return Secret(f"{scheme}://{host}{path}?{query}&X-Amz-Signature={'0' * 64}")


def soon():
    return datetime.now(UTC) + timedelta(hours=23)


def test_a_good_url_has_no_faults():
    assert faults_of(signed(), soon()) == ()


@pytest.mark.parametrize("scheme", ["http", "s3", "HTTP", "ftp", "file"])
def test_only_https_works(scheme):
    [fault] = faults_of(signed(scheme=scheme), soon())
    assert "https" in fault


def test_the_longest_url_that_the_api_takes():
    room = MAX_URL - len(signed().reveal()) + len("/b/x.db")
    assert faults_of(signed(path="/" + "x" * (room - 1)), soon()) == ()
    [fault] = faults_of(signed(path="/" + "x" * room), soon())
    assert f"{MAX_URL + 1} characters" in fault
    assert "shorter" in fault
    assert "token" not in fault


def test_the_part_of_the_token_in_a_url_that_is_too_long_is_told():
    [fault] = faults_of(signed(token="t" * 900), soon())
    assert f"{900 + len('X-Amz-Security-Token=')} of them the session token" in fault
    assert "static keys" in fault
    assert "tttt" not in fault


def test_a_url_that_ends_too_soon():
    [fault] = faults_of(signed(seconds=3600), soon())
    assert "only" in fault
    assert faults_of(signed(seconds=24 * 3600), soon()) == ()


@pytest.mark.parametrize("path", ["/b/[1-9].db", "/b/{a,b}.db", "/b/a b.db", "/b/é.db", "/b/\n"])
def test_what_curl_would_not_fetch_as_it_is(path):
    assert "curl" in " ".join(faults_of(signed(path=path), soon()))


@pytest.mark.parametrize("date", ["yesterday", "9", "-"])
def test_a_url_that_does_not_say_when_it_ends(date):
    assert expiry_of(Secret(signed().reveal().replace("X-Amz-Date=", "X-Amz-Date=" + date))) is None
    assert expiry_of(signed(seconds="many")) is None
    assert expiry_of(signed(seconds=10**30)) is None


@pytest.mark.parametrize("url", ["", "https://", "snapshot.db", "https://[::1/x", "https://h:0/x"])
def test_promise_4_what_is_no_url(url):
    check = judge(Link(url=Secret(url), expires=CLOCK.now()), WANTED)
    assert check.verdict is not Verdict.PASS
    assert not url or url not in check.detail


# Servers that answer otherwise

BODY = secrets.token_bytes(300_000)
#: One bit of it is another.
OTHER = BODY[: len(BODY) // 2] + bytes([BODY[len(BODY) // 2] ^ 1]) + BODY[len(BODY) // 2 + 1 :]
XML = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><StringToSign>me</StringToSign>'
WANTED = Staged(
    name=StagedName.new(BACKUP, CLOCK.now()),
    size=len(BODY),
    sha256=hashlib.sha256(BODY).hexdigest(),
    head=BODY[:EDGE],
    tail=BODY[-EDGE:],
)


class Answering(BaseHTTPRequestHandler):
    """Answers as `server.answer` says: (status, headers, body)."""

    def do_GET(self):
        status, headers, body = self.server.answer(self.headers.get("Range"))
        self.send_response(status)
        for name, value in ({"Content-Length": len(body)} | headers).items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A client that hangs up early is what is tried here."""


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A server over TLS that answers what a test wants."""
    files = s3.throw_away_certificate(tmp_path_factory.mktemp("odd"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    server = Quiet(("127.0.0.1", 0), Answering)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.authority = files.authority
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(odd, monkeypatch, answer, **more):
    monkeypatch.setenv("SSL_CERT_FILE", str(odd.authority))
    odd.answer = answer
    url = signed(host=f"127.0.0.1:{odd.server_port}", **more)
    return judge(Link(url=url, expires=soon()), WANTED)


def ranges(span):
    """What S3 answers."""
    if span is None:
        return 200, {}, BODY
    first, last = map(int, span.removeprefix("bytes=").split("-"))
    said = {"Content-Range": f"bytes {first}-{last}/{len(BODY)}"}
    return 206, said, BODY[first : last + 1]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (ranges, "first and last bytes"),
        (lambda span: (200, {}, BODY), "SHA-256"),
        (lambda span: (416, {}, b"") if span else ranges(span), "SHA-256"),
        (lambda span: (200, ranges(span)[1], ranges(span)[2]), "first and last bytes"),
        # Another range than was asked for.
        (lambda span: ranges(span and f"bytes=0-{EDGE - 1}"), "SHA-256"),
    ],
)
def test_servers_that_know_ranges_and_servers_that_do_not(odd, monkeypatch, answer, said):
    check = ask(odd, monkeypatch, answer)
    assert check.verdict is Verdict.PASS, check
    assert said in check.detail


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((301, {"Location": "https://elsewhere/?X-Amz-Signature=me"}, b""), "redirects (301)"),
        ((307, {"Location": "/other"}, b""), "redirects (307)"),
        ((403, {}, XML), "403 (AccessDenied)"),
        ((404, {}, b'{"error": "me"}'), "404"),
        ((503, {}, b"<html>me</html>"), "503"),
        ((204, {}, b""), "204"),
        # Errors with the status of success: what curl without -f would restore from.
        ((200, {}, XML), "(AccessDenied)"),
        ((200, {}, b"\xef\xbb\xbf" + XML), "(AccessDenied)"),
        ((200, {}, b'{"error": "me"}'), "15 bytes"),
        ((200, {}, XML.ljust(len(BODY))), "not the snapshot"),
        ((200, {}, BODY[:-1]), f"{len(BODY) - 1} bytes"),
        ((200, {}, BODY + b"x"), f"{len(BODY) + 1} bytes"),
        ((200, {"Content-Encoding": "gzip"}, BODY), "compresses"),
        ((200, {"Content-Length": None}, BODY), "no size"),
        ((200, {"Content-Length": 10**18}, BODY[:9]), f"{10**18} bytes"),
        ((403, {"Content-Length": 500}, XML), "403"),
        ((200, {}, OTHER), "gives other"),
    ],
)
def test_answers_that_are_no_snapshot_fail(odd, monkeypatch, answer, said):
    check = ask(odd, monkeypatch, lambda span: answer)
    assert check.verdict is Verdict.FAIL, check
    assert said in check.detail
    assert "me" not in check.detail.replace("stored", "").split()
    assert "X-Amz" not in check.detail


def test_promise_4_an_answer_that_breaks_off_is_no_pass(odd, monkeypatch):
    check = ask(odd, monkeypatch, lambda span: (200, {"Content-Length": len(BODY)}, BODY[:10]))
    assert check.verdict is not Verdict.PASS
    check = ask(
        odd,
        monkeypatch,
        lambda span: (200, {"Content-Length": len(BODY)}, BODY[:-10] if span is None else BODY[:9]),
    )
    assert check.verdict is not Verdict.PASS


def test_promise_4_what_is_no_http_is_no_pass(odd, monkeypatch):
    for headers in ({"Content-Length": "9" * 500}, {"Content-Length": "-1"}, {"X": "y" * 300_000}):
        check = ask(odd, monkeypatch, lambda span, headers=headers: (200, headers, BODY))
        assert check.verdict is not Verdict.PASS, headers


def test_a_proxy_is_used_as_curl_does(odd, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert ask(odd, monkeypatch, ranges).verdict is Verdict.COULD_NOT_VERIFY
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    assert "SOCKS" in ask(odd, monkeypatch, ranges).detail
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert ask(odd, monkeypatch, ranges).verdict is Verdict.PASS


def test_promise_4_a_url_that_does_not_say_when_it_ends_is_no_pass(odd, monkeypatch):
    check = ask(odd, monkeypatch, ranges, seconds="many")
    assert check.verdict is Verdict.COULD_NOT_VERIFY
    assert "when it ends" in check.detail
