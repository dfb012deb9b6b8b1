"""What the API tells of an OKD cluster: whatever it answers, on two kinds of server."""

import os
from contextlib import contextmanager
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import KubeConflictError
from backstay.kinds.okd import guards
from backstay.kinds.okd.cluster import (
    OPERATORS,
    parse_operator,
    parse_proxy,
    parse_release,
    read_cluster,
    unread,
)
from backstay.kubeapi.connect import connect
from backstay.kubeapi.resource import (
    CLUSTER_OPERATORS,
    CLUSTER_VERSIONS,
    INFRASTRUCTURES,
    PROXIES,
)
from kit import okd_api
from kit.apiserver import VARIABLE, ApiServer
from kit.kubeserver import KubeServer

PARTS = ("infrastructure", "version", *OPERATORS, "proxy")
RESOURCES = {it.kind: it for it in (CLUSTER_OPERATORS, CLUSTER_VERSIONS, INFRASTRUCTURES, PROXIES)}


def write(api, document):
    """Put an object and its status, as a server takes them."""
    resource, name = RESOURCES[document["kind"]], document["metadata"]["name"]
    status = document["status"]
    try:
        api.create(resource, {k: v for k, v in document.items() if k != "status"})
    except KubeConflictError:
        api.patch(resource, name, {"spec": document["spec"]})
    api.patch(resource, name, {"status": status}, subresource="status")


@contextmanager
def server(kind, folder):
    if kind == "real":
        with ApiServer.start(folder) as running:
            yield running.kubeconfig
    else:
        with KubeServer.start(folder) as kube:
            yield kube.kubeconfig


@pytest.fixture(
    scope="module", params=["emulated", *(["real"] if os.environ.get(VARIABLE) else [])]
)
def api(request, tmp_path_factory):
    """An API with the custom resources of OKD."""
    with (
        server(request.param, tmp_path_factory.mktemp("kube")) as kubeconfig,
        connect(kubeconfig, None) as api,
    ):
        yield api


def test_all_that_is_told(api):
    told = {"httpProxy": "http://p:1", "httpsProxy": "http://p:2", "noProxy": ".svc,10.0.0.0/8"}
    for document in okd_api.okd_objects(progressing=("etcd",), proxied={**told, "trusted": "ca"}):
        write(api, document)
    cluster = read_cluster(api)
    assert cluster.infrastructure == okd_api.INFRASTRUCTURE
    assert cluster.gaps == {}
    release = cluster.release
    assert (release.running, release.desired) == (okd_api.VERSION, okd_api.VERSION)
    assert (release.image, release.digest) == (okd_api.IMAGE, okd_api.IMAGE.partition("@")[2])
    assert release.installed == okd_api.LONG_AGO + timedelta(minutes=40)
    assert release.progressing.status == "False"
    assert list(cluster.operators) == list(OPERATORS)
    assert {it.name for it in cluster.operators.values() if it.progressing.status == "True"} == {
        "etcd"
    }
    assert {it.available.status for it in cluster.operators.values()} == {"True"}
    proxy = cluster.proxy
    assert (proxy.http, proxy.https) == ("http://p:1", "http://p:2")
    assert (proxy.no_proxy, proxy.trusted_ca) == (".svc,10.0.0.0/8", "ca")


def test_an_upgrade_that_is_under_way(api):
    write(api, okd_api.cluster_version(partial="4.15.4"))
    release = read_cluster(api).release
    assert (release.running, release.desired) == (okd_api.VERSION, "4.15.4")
    assert [it.state for it in release.history] == ["Partial", "Completed"]
    assert release.installed == okd_api.LONG_AGO + timedelta(minutes=40)
    assert guards.upgrade(read_cluster(api)).verdict == "FAIL"
    write(api, okd_api.cluster_version())


@pytest.fixture
def kube(tmp_path):
    with KubeServer.start(tmp_path / "kube") as running:
        okd_api.okd_api(running)
        yield running


def read(kube):
    with connect(kube.kubeconfig, None) as api:
        return read_cluster(api)


def test_nothing_is_listed_and_nothing_is_asked_twice(kube):
    read(kube)
    asked = [(it.verb, it.resource, it.name) for it in kube.requests]
    assert len(asked) == len(set(asked)) == len(PARTS)
    assert {verb for verb, _, _ in asked} == {"get"}


def test_a_gap_leaves_the_others(kube):
    kube.deny("get", CLUSTER_VERSIONS)
    kube.remove(CLUSTER_OPERATORS, "etcd")
    cluster = read(kube)
    assert set(cluster.gaps) == {"version", "etcd"}
    assert "403" in cluster.gap("version")
    assert "404" in cluster.gap("etcd")
    assert cluster.release is None
    assert "etcd" not in cluster.operators
    assert cluster.proxy is not None
    assert cluster.infrastructure == okd_api.INFRASTRUCTURE


def test_a_server_that_is_down_is_asked_once(kube):
    kube.fail(500, times=100)
    cluster = read(kube)
    assert set(cluster.gaps) == set(PARTS)
    assert len({it.name for it in kube.requests}) == 1
    assert guards.operators(cluster).verdict == guards.upgrade(cluster).verdict
    assert guards.upgrade(cluster).verdict == "COULD NOT VERIFY"


def test_one_that_does_not_know_us_is_asked_once(kube):
    kube.token = "another"
    assert set(read(kube).gaps) == set(PARTS)
    assert kube.strangers == 1 or not kube.requests


def test_an_object_that_is_none_is_a_gap(kube):
    kube.fail(200, resource=INFRASTRUCTURES, body=b"[]")
    assert read(kube).infrastructure == ""
    kube.put(okd_api.of(INFRASTRUCTURES, "cluster", status={"infrastructureName": 7}))
    assert "has no name" in read(kube).gap("infrastructure")


def test_a_proxy_that_is_not_in_force_yet_is_that_of_its_spec():
    document = okd_api.of(PROXIES, "cluster", spec={"httpsProxy": "http://p:1", "noProxy": ".x"})
    assert parse_proxy(document).https == "http://p:1"
    # In force is something else than what was asked for: that counts.
    assert parse_proxy(document | {"status": {"httpsProxy": "http://q:1"}}).https == "http://q:1"
    assert not parse_proxy(document | {"status": {"noProxy": ".x"}})


def test_words_that_a_terminal_would_obey_are_not_kept():
    version = okd_api.cluster_version(version="4.15\x1b[31m\n.3" + "9" * 9999)
    release = parse_release(version)
    assert release.running.isprintable()
    assert len(release.running) <= 200
    assert parse_proxy(okd_api.proxy(httpsProxy="http://p\x1b:1")).https == ""


def test_nothing_is_known_but_why():
    cluster = unread("no\nAPI")
    assert {cluster.gap(part) for part in PARTS} == {"no API"}
    assert not cluster.infrastructure


FIELDS = (
    *("status", "spec", "history", "conditions", "type", "desired", "version", "state", "image"),
    *("startedTime", "completionTime", "trustedCA", "httpsProxy", "noProxy"),
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["True", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_whatever_an_object_holds_it_is_read(document):
    release = parse_release(document)
    _ = (release.running, release.installed, release.digest)
    parse_operator("etcd", document)
    parse_proxy(document)


@given(
    st.text(max_size=40)
    | st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
)
def test_whatever_a_time_is_it_is_read(text):
    history = [{"state": "Completed", "version": "4", "startedTime": text}]
    installed = parse_release({"status": {"history": history}}).installed
    assert installed is None or installed.tzinfo is not None
