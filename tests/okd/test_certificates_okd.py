"""Which certificates of a host are looked at, and their dates."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import BackstayError
from backstay.kinds.okd.certificates import dated, host_certificates
from backstay.kinds.okd.hosttree import HostTree
from backstay.kinds.okd.static_pods import running
from kit.certificates import Authority
from kit.okd_host import NODE, PODS, REVISIONS

AUTHORITY = Authority.make()
BEGIN = datetime(2026, 11, 20, 12, tzinfo=UTC)
LEAF = AUTHORITY.issue("leaf", start=BEGIN, end=BEGIN + timedelta(days=30)).certificate
RESOURCES = "etc/kubernetes/static-pod-resources"


def test_the_dates_of_the_one_that_is_shown():
    [found] = dated([("a", b"words in front\n" + LEAF + AUTHORITY.pem)])
    assert (found.name, found.not_before) == ("a", BEGIN)
    assert found.not_after == BEGIN + timedelta(days=30)


def test_authorities_and_what_is_none_are_left_out():
    assert dated([("a", AUTHORITY.pem), ("b", b""), ("c", LEAF[:-80]), ("d", b"\xff" * 99)]) == ()


@given(st.binary(max_size=200), st.integers(0, len(LEAF)))
def test_whatever_a_file_holds_it_is_read(garbage, cut):
    dated([("a", garbage), ("b", LEAF[:cut] + garbage), ("c", garbage + LEAF)])


def names(host):
    with HostTree(host.root) as tree:
        found = host_certificates(tree, running(tree))
    return {it.name.removeprefix(f"{host.root}/{RESOURCES}/") for it in found}


def test_those_of_the_revisions_that_run_and_those_that_change_without_a_rollout(host):
    known = names(host)
    assert known == {
        f"etcd-certs/secrets/etcd-all-certs/etcd-peer-{NODE}.crt",
        *(f"{name}-pod-{REVISIONS[name]}/secrets/client/tls.crt" for name in PODS),
    }
    host.write(f"{RESOURCES}/kube-apiserver-pod-6/secrets/a/tls.crt", LEAF)
    host.write(f"{RESOURCES}/kube-scheduler-certs/secrets/b/tls.crt", LEAF)
    # Of a revision that does not run, of another name, and somewhere else.
    host.write(f"{RESOURCES}/kube-apiserver-pod-5/secrets/a/tls.crt", LEAF)
    host.write(f"{RESOURCES}/kube-apiserver-pod-6/secrets/a/tls.key", LEAF)
    host.write("etc/kubernetes/kubelet.crt", LEAF)
    assert names(host) - known == {
        "kube-apiserver-pod-6/secrets/a/tls.crt",
        "kube-scheduler-certs/secrets/b/tls.crt",
    }


def test_nothing_that_is_no_plain_file_is_followed_or_waited_for(host):
    import os

    known = names(host)
    folder = host.root / RESOURCES / "etcd-certs"
    (folder / "link.crt").symlink_to("/etc/hostname")
    os.mkfifo(folder / "pipe.crt")
    (folder / "dir.crt").mkdir()
    host.write(f"{RESOURCES}/etcd-certs/big.crt", LEAF + b"\n" * (2 << 20))
    assert names(host) == known


def test_one_that_cannot_be_read_is_an_error_and_not_a_gap(host, monkeypatch):
    real = HostTree.pieces

    def refused(self, item, path=""):
        if item.name.endswith(".crt"):
            raise BackstayError(f"{item.path}: Permission denied")
        return real(self, item, path)

    monkeypatch.setattr(HostTree, "pieces", refused)
    with pytest.raises(BackstayError, match="Permission denied"):
        names(host)
