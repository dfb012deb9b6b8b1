"""What a host runs is what its manifests say: never the newest by date, or by number."""

import json

import pytest

from backstay.errors import BackstayError, FormatError, NotFoundError
from backstay.kinds.okd.hosttree import HostTree
from backstay.kinds.okd.static_pods import (
    PODS,
    StaticPod,
    check_unmoved,
    etcd_revision,
    running,
)
from kit.okd_host import REVISIONS, manifest

MANIFEST = "etc/kubernetes/manifests/kube-apiserver-pod.yaml"
YAML = """\
apiVersion: v1
kind: Pod
metadata: {name: kube-apiserver}
spec:
  containers: []
  volumes:
  - name: resource-dir
    hostPath:
      path: /etc/kubernetes/static-pod-resources/kube-apiserver-pod-12/
  - name: none
  - emptyDir: {}
    name: other
"""


@pytest.fixture
def tree(host):
    with HostTree(host.root) as tree:
        yield tree


def test_the_manifest_says_which_revision_runs(host, tree):
    assert {pod.name: pod.revision for pod in running(tree)} == REVISIONS
    assert running(tree)[0].found == (
        "found latest kube-apiserver: /etc/kubernetes/static-pod-resources/kube-apiserver-pod-6"
    )
    host.roll_out("etcd", 2)
    assert running(tree)[-1] == StaticPod("etcd", 2)


def test_a_manifest_may_be_yaml(host, tree):
    host.write(MANIFEST, YAML)
    assert running(tree)[0].revision == 12


@pytest.mark.parametrize("name", PODS)
def test_a_manifest_that_is_not_there_is_named(host, tree, name):
    host.remove(f"etc/kubernetes/manifests/{name}-pod.yaml")
    with pytest.raises(NotFoundError, match=f"the {name} pod does not run") as caught:
        running(tree)
    assert str(host.root / f"etc/kubernetes/manifests/{name}-pod.yaml") in caught.value.what


def volumes(*paths):
    listed = [{"hostPath": {"path": path}} for path in paths]
    return json.dumps({"kind": "Pod", "spec": {"volumes": listed}})


def resources(revision, name="kube-apiserver"):
    return f"/etc/kubernetes/static-pod-resources/{name}-pod-{revision}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (volumes(resources(6), resources(7)), "names 2 revisions"),
        (volumes(resources(6, "etcd")), "names no revision"),
        (volumes(resources("6x"), resources("-1"), resources(""), resources("06")), "no revision"),
        (volumes(f"/host{resources(6)}", f"{resources(6)}/../x"), "names no revision"),
        (volumes(resources("9" * 30)), "names no revision"),
        ('{"kind": "Pod", "spec": {"volumes": {"a": 1}}}', "no manifest of a pod"),
        ('{"kind": "Pod", "spec": {"volumes": [1, null, {"hostPath": "x"}]}}', "no revision"),
        ('{"kind": "ConfigMap"}', "no manifest of a pod"),
        ('{"kind": "Pod", "spec": ', "no JSON"),
        ("{" * 100_000, "no JSON"),
        ("[" * 3000, "neither YAML nor JSON"),
        ("", "no manifest of a pod"),
        ("\x00\x01", "neither YAML nor JSON"),
        (b'{"kind": "\xff"}', "no JSON"),
    ],
)
def test_a_manifest_that_does_not_say_it_is_named(host, tree, text, reason):
    host.write(MANIFEST, text)
    with pytest.raises(FormatError, match=reason) as caught:
        running(tree)
    assert str(host.root / MANIFEST) in caught.value.what


def test_one_revision_may_stand_there_several_times(host, tree):
    host.write(MANIFEST, volumes(resources(6), f"{resources(6)}/", "/var/log"))
    assert running(tree)[0].revision == 6


def test_a_rollout_is_seen(host, tree):
    before = running(tree)
    check_unmoved(tree, before)
    host.write("etc/kubernetes/manifests/etcd-pod.yaml", manifest("etcd", 4))
    host.write(MANIFEST, manifest("kube-apiserver", 5))
    with pytest.raises(BackstayError, match="kube-apiserver from revision 6 to 5, etcd from"):
        check_unmoved(tree, before)


REVISION = "var/lib/etcd/revision.json"


def test_what_the_operator_keeps_of_raft_is_read(host, tree):
    found = etcd_revision(tree)
    assert found.max_raft_index == 21345
    assert list(found.raft_index.values()) == [21345]
    assert found.cluster_id == "cdf818194e3a8c32"
    host.write(REVISION, '{"clusterId":"0","maxRaftIndex":0,"created":"","more":[1]}')
    assert etcd_revision(tree).max_raft_index == 0


def test_older_releases_keep_nothing_of_raft(host, tree):
    host.remove(REVISION)
    assert etcd_revision(tree) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"maxRaftIndex": -1}',
        '{"maxRaftIndex": 1e400}',
        '{"maxRaftIndex": 9223372036854775808}',
        '{"maxRaftIndex": 99999999999999999999999}',
        '{"maxRaftIndex": "7"}',
        '{"maxRaftIndex": 1, "raftIndex": {"a": -1}}',
        '{"maxRaftIndex": 1, "created": "' + "x" * 300 + '"}',
        '{"maxRaftIndex": 1, "clusterId": ' + "[" * 20000 + "}",
        '{"maxRaftIndex": 1, "clusterId": "\\ud800"}',
        b"\xff\xfe",
        "x" * 100_000,
    ],
)
def test_what_is_none_of_the_operators_is_an_error_that_names_it(host, tree, text):
    host.write(REVISION, text)
    with pytest.raises(BackstayError) as caught:
        etcd_revision(tree)
    assert str(host.root / REVISION) in caught.value.what
