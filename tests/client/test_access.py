"""What it takes to enter an etcd, and that none of it is shown."""

import copy
import pickle
import subprocess
import sys

import pytest

from backstay.client.access import Access, Timeouts, Tls, read_tls
from backstay.client.endpoint import parse_endpoints
from backstay.client.secret import Secret
from backstay.errors import BackstayError, UsageError
from kit.certificates import Authority

HERE = parse_endpoints("https://h:1")


def test_promise_5_no_secret_is_shown_by_printing_what_holds_it():
    secret = Secret("hunter2")
    tls = Tls(ca=b"ca", certificate=b"certificate", key=b"private")
    access = Access(endpoints=HERE, tls=tls, user="root", password=secret)
    for shown in (repr(access), str(access), f"{secret}{secret!r}", repr([secret])):
        assert "hunter2" not in shown
        assert "private" not in shown
    assert secret.reveal() == "hunter2"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_secrets_compare_by_what_they_are():
    assert Secret("a") == Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a"), Secret("ä")}) == 2
    assert Secret("a") != "a"


@pytest.mark.parametrize(
    "parts",
    [
        {"endpoints": ()},
        {"user": "root"},
        {"password": Secret("x")},
        {"endpoints": parse_endpoints("https://a:1,http://b:1"), "tls": Tls(ca=b"x")},
    ],
)
def test_parts_that_contradict_each_other_are_refused(parts):
    with pytest.raises(UsageError):
        Access(**{"endpoints": HERE, **parts})


@pytest.mark.parametrize("parts", [{"certificate": b"x"}, {"key": b"x"}])
def test_a_certificate_needs_its_key(parts):
    with pytest.raises(UsageError, match=r"client (key|certificate) is missing"):
        Tls(**parts)


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_timeout_is_above_zero(value):
    with pytest.raises(UsageError):
        Timeouts(dial=value)


def test_a_keepalive_that_etcd_would_hang_up_on_is_refused():
    with pytest.raises(UsageError, match="too often for etcd"):
        Timeouts(keepalive=4)


def test_what_talks_to_no_etcd_does_not_import_grpc():
    names = ["access", "answer", "certificates", "endpoint", "keeper", "secret", "text", "tools"]
    program = "import sys\n" + "".join(f"import backstay.client.{name}\n" for name in names)
    program += "print('grpc' in sys.modules)\nimport backstay.client.etcd\n"
    program += "print('grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [b"False", b"True"]


def test_certificates_are_read_from_files(tmp_path):
    authority = Authority.make()
    mine = authority.issue("client")
    certificate, key = mine.write(tmp_path)
    ca = authority.write(tmp_path)
    tls = read_tls(ca=ca, certificate=certificate, key=key, server_name="etcd")
    assert tls == Tls(
        ca=authority.pem, certificate=mine.certificate, key=mine.key, server_name="etcd"
    )
    assert copy.deepcopy(tls) == tls
    assert read_tls() is None
    with pytest.raises(BackstayError, match="nowhere"):
        read_tls(ca=tmp_path / "nowhere")
