"""What etcd-init says and is: told from its real script's words, and from hostile ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.kinds.hosted.recovery.etcd_init import (
    MAX_LINE,
    SHOWN,
    Outcome,
    Result,
    etcd_init_gone,
    harmless,
    is_fixed,
    judge,
    read_log,
    read_pod,
)
from backstay.mvcc.export import export
from kit import kube
from kit.etcd_init import FIXED, OLD, Fleet, https_files, init_container

SIGNED = (
    "https://bucket.example/p/snapshot.db?X-Amz-Algorithm=AWS4&X-Amz-Credential=AKIDEXAMPLE"
    "&X-Amz-Signature=0123456789abcdef"
)
SECRETS = ("AKIDEXAMPLE", "0123456789abcdef")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A directory behind https with a snapshot, and what is none."""
    folder = tmp_path_factory.mktemp("bucket")
    with kube.real_snapshot("kube-plain") as snapshot, (folder / "good.db").open("wb") as file:
        export(snapshot, file)
    data = (folder / "good.db").read_bytes()
    (folder / "flipped.db").write_bytes(data[:-40] + bytes([data[-40] ^ 1]) + data[-39:])
    (folder / "page.html").write_text("<html>log in first</html>")
    with https_files(folder) as (url, ca):
        yield url, ca


def outcome(bucket, folder, name, *, ca=True, occupied=False):
    """What the real script said about an object of the bucket, and its exit code."""
    fleet = Fleet(folder, members=1, ca=bucket[1] if ca else None)
    if occupied:
        fleet.occupy("etcd-0")
    ran = fleet.run("etcd-0", f"{bucket[0]}/{name}?X-Amz-Signature=0123456789abcdef")
    return ran.exit_code, read_log(ran.log.encode().split(b"\n"))


def test_a_restore_says_so(bucket, tmp_path):
    assert outcome(bucket, tmp_path, "good.db") == (0, Outcome(Result.RESTORED))


def test_a_skip_is_no_restore_though_it_exits_with_0(bucket, tmp_path):
    assert outcome(bucket, tmp_path, "good.db", occupied=True) == (0, Outcome(Result.SKIPPED))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone.db", "error page (AccessDenied: Request has expired)"),
        ("page.html", "Error: "),
        ("flipped.db", "Error: "),
    ],
)
def test_promise_5_a_failure_says_why_without_the_urls_signature(bucket, tmp_path, name, words):
    code, found = outcome(bucket, tmp_path, name)
    assert code
    assert found.result is Result.FAILED
    assert words in found.line
    assert "0123456789abcdef" not in found.line


def test_a_certificate_that_is_not_trusted_is_curls_failure(bucket, tmp_path):
    code, found = outcome(bucket, tmp_path, "good.db", ca=False)
    assert code
    assert found.result is Result.FAILED
    assert found.line.startswith("curl: (60)")


def test_the_last_words_count():
    restoring = ["x\tinfo\trestoring snapshot\t{}"]
    restored = [*restoring, "x\tinfo\trestored snapshot\t{}"]
    assert read_log([]) == Outcome(Result.SILENT)
    assert read_log(restoring) == Outcome(Result.RESTORING)
    assert read_log(["Error: no", *restored]) == Outcome(Result.RESTORED)
    full = "mv: cannot move: No space left on device"
    assert read_log([*restored, full]) == Outcome(Result.FAILED, full)
    assert read_log(["  1 100k\r 50 100k\rcurl: (18) cut\n"]) == Outcome(
        Result.FAILED, "curl: (18) cut"
    )


@pytest.mark.parametrize(
    "page",
    [
        ["<?xml version='1.0'?>", "<Error><Code>NoSuchKey</Code>", "<Message>no</Message></Error>"],
        ["<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>no</Message></Error>"],
        ["<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>no</Message>"],
        ["<?xml version='1.0'?><Code>NoSuchKey</Code><Message>no</Message>", *["x"] * 99],
    ],
)
def test_an_error_page_is_told_by_its_code(page):
    found = read_log(page)
    assert found == Outcome(Result.FAILED, "the URL gave an error page (NoSuchKey: no)")
    # It is over with the page's end: what comes then is read again.
    if "</Error>" in page[-1]:
        assert read_log([*page, "restored snapshot"]).result is Result.RESTORED


@pytest.mark.parametrize(
    "text",
    [
        f"curl: (22) {SIGNED} refused",
        f"Error: open '{SIGNED}'",
        "Error: X-Amz-Signature=0123456789abcdef&X-Amz-Credential=AKIDEXAMPLE",
        "Error: x-amz-signature%3D0123456789abcdef AWSAccessKeyId=AKIDEXAMPLE",
        "panic: https://AKIDEXAMPLE:0123456789abcdef@bucket/x",
        "Error: https://a.blob/x?sv=1&sig=0123456789abcdef#AKIDEXAMPLE",
    ],
)
def test_promise_5_no_line_has_what_signs_a_url(text):
    found = read_log([text]).line
    assert found
    assert not any(secret in found for secret in SECRETS)


@given(st.lists(st.one_of(st.text(), st.binary(), st.just("<?xml"), st.just("Error: x"))))
def test_no_log_breaks_the_reader(lines):
    found = read_log(lines)
    assert len(found.line) <= SHOWN
    assert found.line.isprintable()


def test_lines_are_cut():
    assert len(read_log(["Error: " + "x" * 10 * MAX_LINE]).line) == SHOWN
    assert len(harmless("https://" + "h?" * 10 * MAX_LINE)) <= SHOWN


# What a StatefulSet's etcd-init is.


def stateful_set(container, replicas=3):
    inits = [{"name": "ensure-dns"}, *([container] if container else [])]
    return {
        "metadata": {"namespace": "clusters-blue", "name": "etcd", "generation": 4},
        "spec": {
            "replicas": replicas,
            "template": {"spec": {"initContainers": inits, "containers": [{"name": "etcd"}]}},
        },
        "status": {"updatedReplicas": replicas, "observedGeneration": 4},
    }


def container(**options):
    arguments = {"fixed": True, "url": SIGNED, "namespace": "clusters-blue", "members": 3}
    return init_container(**arguments | options)


def without(name):
    found = container()
    return found | {"env": [entry for entry in found["env"] if entry["name"] != name]}


@pytest.mark.parametrize(
    ("init", "fixed"),
    [
        (container(), True),
        (container(fixed=False), False),
        # The options are there, and what they name is not given.
        (without("ETCD_INITIAL_CLUSTER"), False),
        (without("ETCD_DISCOVERY_SERVICE"), False),
        # The kubelet gives this one to everybody.
        (without("HOSTNAME"), True),
        # The variables are given, and the old script does not use them.
        (container() | {"command": ["/bin/sh", "-ce", OLD]}, False),
        # The script is in the image.
        (container() | {"command": ["/etcd-init.sh"]}, True),
        (container(fixed=False) | {"command": ["/etcd-init.sh"]}, False),
        (container() | {"command": ["/bin/sh", "-ce"], "args": [FIXED]}, True),
        ({"name": "etcd-init"}, False),
        ({"name": "etcd-init", "env": "x", "command": [7, None]}, False),
        (None, None),
    ],
)
def test_the_fixed_form_is_told_by_script_and_environment(init, fixed):
    assert is_fixed(stateful_set(init)) is fixed
    refused = judge(stateful_set(init), 3)
    assert (refused is not None) is (fixed is False)
    assert judge(stateful_set(init), 1) is None


def test_a_refusal_says_what_to_do_and_no_url():
    refused = judge(stateful_set(container(fixed=False)), 3)
    assert "clusters-blue/etcd" in refused.what
    assert "3 clusters of one" in refused.what
    assert "SingleReplica" in refused.do
    assert "delete the new HostedCluster" in refused.do
    assert not any(secret in str(refused) for secret in SECRETS)


def test_the_restore_object_may_go_when_no_pod_will_ask_for_it_any_more():
    assert not etcd_init_gone(stateful_set(container()))
    gone = stateful_set(None)
    assert etcd_init_gone(gone)
    # A pod of the template before is still there, or the change has not been seen yet.
    assert not etcd_init_gone(gone | {"status": {"updatedReplicas": 2, "observedGeneration": 4}})
    assert not etcd_init_gone(gone | {"status": {"updatedReplicas": 3, "observedGeneration": 3}})
    for nothing in ({}, {"spec": None}, {"spec": {"template": []}}, gone | {"status": {}}):
        assert not etcd_init_gone(nothing)


# What a pod says.


def pod(status):
    return {
        "spec": {"initContainers": [{"name": "etcd-init"}]},
        "status": {
            "initContainerStatuses": [{"name": "ensure-dns"}, {"name": "etcd-init"} | status]
        },
    }


FAILED = {"terminated": {"exitCode": 1}}


@pytest.mark.parametrize(
    ("status", "found"),
    [
        ({}, (None, False, False, 0)),
        ({"state": {"waiting": {}}}, (None, False, False, 0)),
        ({"state": {"running": {}}}, (None, True, False, 1)),
        ({"state": {"terminated": {"exitCode": 0}}}, (0, False, True, 1)),
        ({"state": FAILED}, (1, False, False, 1)),
        ({"state": {"waiting": {}}, "lastState": FAILED, "restartCount": 2}, (1, False, False, 3)),
        ({"state": {"running": {}}, "lastState": FAILED, "restartCount": 1}, (1, True, False, 2)),
        ({"state": {"terminated": {"exitCode": "0"}}}, (-1, False, False, 1)),
        ({"state": 7, "lastState": [], "restartCount": "x"}, (None, False, False, 0)),
    ],
)
def test_a_pod_tells_how_its_etcd_init_fares(status, found):
    run = read_pod(pod(status))
    assert (run.exit_code, run.running, run.ended, run.attempts) == found
    assert run.has_log is (found[3] > 0)


def test_a_pod_without_etcd_init_has_no_run():
    assert read_pod({}) is None
    assert read_pod({"spec": {"initContainers": [{"name": "ensure-dns"}, 7]}}) is None
    assert read_pod({"spec": {"initContainers": [{"name": "etcd-init"}]}}).attempts == 0
