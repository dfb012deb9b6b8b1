"""What is asked of an archive of static pod resources, apart from who finds it."""

from datetime import UTC, datetime, timedelta

import pytest

from backstay.checks.partner import Endings, certificates, endings, inside
from backstay.kubedata.pemdates import Dates
from backstay.kubedata.podarchive import CertificateFile, PodArchive
from backstay.repo.manifest import OkdEntry
from backstay.report import Verdict

NOW = datetime(2026, 11, 20, tzinfo=UTC)
PODS = {"etcd": 3, "kube-apiserver": 6, "kube-controller-manager": 7, "kube-scheduler": 6}


def entry(**fields):
    return OkdEntry(snapshot_name="s", static_pods=PODS, **fields)


def archive(*files, pods=None, configurations=(b"text",)):
    found = {pod: (revision,) for pod, revision in (pods or PODS).items()}
    return PodArchive(
        static_pods=found, members=9, size=1, configurations=configurations, certificates=files
    )


def file(*ends, own=True, path="static-pod-resources/etcd-pod-3/secrets/x/tls.crt"):
    dates = tuple(Dates("CN=x", NOW - timedelta(90), NOW + timedelta(end)) for end in ends)
    return CertificateFile(path=path, own=own, dates=dates)


@pytest.mark.parametrize(
    ("found", "configuration", "word"),
    [
        (archive(), "text", ""),
        (archive(configurations=()), "", ""),
        (archive(), "", "not that of the keyring"),
        (archive(), "texT", "not that of the keyring"),
        (archive(configurations=()), "text", "not that of the keyring"),
        (archive(configurations=(b"text", b"more")), "text", "several"),
        (archive(pods={**PODS, "etcd": 4}), "text", "no etcd-pod-3"),
        (archive(pods={"etcd": 3}), "text", "no resources of kube-apiserver"),
    ],
)
def test_the_archive_is_the_one_that_manifest_and_keyring_mean(found, configuration, word):
    answer = inside(entry(), found, configuration)
    assert answer.verdict is (Verdict.FAIL if word else Verdict.PASS)
    assert word in answer.detail


@pytest.mark.parametrize(
    ("files", "ended", "soon"),
    [
        ([file(30)], 0, 0),
        ([file(-1)], 1, 0),
        ([file(30, -1)], 1, 0),
        ([file(30, -1, own=False)], 0, 0),
        ([file(-2, -1, own=False)], 1, 0),
        ([file(1)], 0, 1),
        ([file(1), file(-1), file(30)], 1, 1),
    ],
)
def test_what_counts_is_what_nodes_see(files, ended, soon):
    found = endings(archive(*files), NOW)
    assert (len(found.ended), len(found.soon)) == (ended, soon)
    assert certificates(found).verdict is (Verdict.FAIL if ended else Verdict.PASS)


def test_promise_4_an_archive_without_certificates_proves_nothing():
    assert certificates(endings(archive(), NOW)).verdict is Verdict.COULD_NOT_VERIFY


def test_which_and_when_is_said_and_not_without_end():
    found = endings(archive(*[file(-1)] * 9), NOW)
    text = certificates(found).detail
    assert "tls.crt (CN=x) at 2026-11-19 00:00:00Z" in text
    assert text.count("tls.crt") == 5
    assert "and 4 more" in text
    assert certificates(Endings(3)).verdict is Verdict.PASS


def test_a_path_from_a_tar_is_fit_for_a_terminal():
    found = endings(archive(file(-1, path="static-pod-resources/\x1b[2J")), NOW)
    assert "\x1b" not in found.ended[0]
