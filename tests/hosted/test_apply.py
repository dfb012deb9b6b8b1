"""Creating through a Kubernetes API: nothing is overwritten, a crash at any request is mended."""

import copy
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from aiohttp import web

from backstay.errors import (
    AlreadyExistsError,
    BackstayError,
    KubeForbiddenError,
    RefusedError,
)
from backstay.kinds.hosted.recovery.apply import apply, needed
from backstay.kinds.hosted.recovery.creation import MARK, plan
from backstay.kubeapi.resource import (
    CONFIG_MAPS,
    HOSTED_CLUSTERS,
    NAMESPACES,
    NODE_POOLS,
    PODS,
    SECRETS,
    STATEFUL_SETS,
    VOLUME_CLAIMS,
)
from backstay.kubeapi.review import Wanted
from backstay.report import Report, Said
from kit.cases import hold_each
from kit.disturbed_api import cases, disturbed
from kit.etcd_init import init_container
from kit.restore_documents import VALUE, documents, one

ALL = (
    (NAMESPACES, "clusters", ""),
    (CONFIG_MAPS, "trust", "clusters"),
    (SECRETS, "blue-etcd-encryption-key", "clusters"),
    (SECRETS, "pull-secret", "clusters"),
    (HOSTED_CLUSTERS, "blue", "clusters"),
    (NODE_POOLS, "blue-workers", "clusters"),
)


def state(kube):
    """All that a restore creates, as it is there."""
    return [kube.get(*where) for where in ALL]


def run(api, given=None, restore="r1", **more):
    said = []
    found = apply(api, plan(given or documents(), restore), report=Report(said.append), **more)
    return found, " | ".join(event.text for event in said if isinstance(event, Said))


def writes(kube):
    return [seen for seen in kube.requests if seen.verb not in {"get", "list"} and reviewed(seen)]


def reviewed(seen):
    return seen.resource != "selfsubjectaccessreviews"


def test_everything_is_created_in_order_and_marked(kube, api):
    found, _ = run(api)
    assert [seen.resource for seen in writes(kube)] == [
        *("namespaces", "configmaps", "secrets", "secrets", "hostedclusters", "nodepools")
    ]
    assert len(found.created) == 6
    assert found.kept == ()
    assert all(one["metadata"]["annotations"][MARK] == "r1" for one in state(kube))
    assert state(kube)[4]["spec"]["etcd"] == one(documents(), "HostedCluster")["spec"]["etcd"]


def test_run_again_it_finds_all_done(kube, api):
    run(api)
    before = state(kube)
    found, _ = run(api, documents(url="https://bucket.example/presigned-anew"))
    assert found.created == ()
    assert len(found.kept) == 6
    assert state(kube) == before


def stranger(kube, kind, **more):
    """Something of that kind and name is there already, and is another."""
    document = copy.deepcopy(one(documents(), kind))
    document.update(more)
    kube.put(one(documents(), "Namespace"))
    return kube.put(document)


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        ("Secret", {"data": {"key": "b3RoZXI="}}, "is another: data.key"),
        ("ConfigMap", {"data": {}}, "is another: data.ca-bundle.crt"),
        ("HostedCluster", {}, "exists: a snapshot is restored only when"),
    ],
)
def test_promise_6_what_is_there_and_another_stays_and_nothing_is_created(
    kube, api, kind, more, words
):
    stranger(kube, kind, **more)
    before = state(kube)
    with pytest.raises(AlreadyExistsError, match=words) as caught:
        run(api)
    assert "nothing was created" in str(caught.value)
    assert VALUE not in str(caught.value)
    assert state(kube) == before
    assert writes(kube) == []


def test_what_is_there_and_equal_is_kept_without_a_mark(kube, api):
    stranger(kube, "Secret")
    found, _ = run(api)
    assert found.kept == ("Namespace clusters", "Secret clusters/blue-etcd-encryption-key")
    assert MARK not in str(kube.get(*ALL[2]))


def test_promise_6_volumes_that_exist_are_refused(kube, api):
    kube.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "clusters-blue"}})
    kube.put(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data-etcd-0", "namespace": "clusters-blue"},
            "spec": {},
        }
    )
    with pytest.raises(AlreadyExistsError, match="data-etcd-0") as caught:
        run(api)
    assert caught.value.exit_code == 5
    assert writes(kube) == []
    assert kube.get(VOLUME_CLAIMS, "data-etcd-0", "clusters-blue")


def test_what_comes_up_while_we_create_is_not_taken_for_ours(kube, api):
    def meddle(number, seen):
        if seen.verb == "create" and seen.resource == "hostedclusters" and not made:
            made.append(seen)
            kube.put(one(documents(), "HostedCluster"))

    made = []
    kube.on_request = meddle
    with pytest.raises(AlreadyExistsError, match="HostedCluster clusters/blue has come up"):
        run(api)
    assert MARK not in str(kube.get(*ALL[4]))


def test_missing_rights_are_all_named_before_anything_is_created(kube, api):
    kube.deny("create", NODE_POOLS)
    kube.deny("list", VOLUME_CLAIMS)
    with pytest.raises(KubeForbiddenError) as caught:
        run(api)
    assert "create nodepools.hypershift.openshift.io in clusters" in caught.value.what
    assert "list persistentvolumeclaims in clusters-blue" in caught.value.what
    assert writes(kube) == []


def test_no_more_is_asked_for_than_the_rights_that_are_checked(kube, api):
    creation = plan(documents(), "r1")
    run(api)
    known = {(r.verb, r.resource.plural, r.namespace) for r in needed(creation)}
    asked = {(s.verb, s.resource, s.namespace or "") for s in kube.requests if reviewed(s)}
    assert asked <= known | {("get", "namespaces", ""), ("create", "namespaces", "")}
    assert Wanted("get", PODS, "clusters-blue", "log", ("etcd-0",)) in needed(creation)


def test_who_may_not_look_at_namespaces_needs_one_that_is_there(kube, api):
    kube.put(one(documents(), "Namespace"))
    kube.deny("get", NAMESPACES)
    kube.deny("create", NAMESPACES)
    found, _ = run(api)
    assert found.kept == ("Namespace clusters",)
    assert len(found.created) == 5


def test_a_namespace_that_is_missing_and_may_not_be_made_is_told_before_anything_is(kube, api):
    kube.deny("create", NAMESPACES)
    with pytest.raises(KubeForbiddenError, match="create namespaces"):
        run(api)
    assert writes(kube) == []


def neighbour(kube, *, image="quay.io/x:4.20.3", fixed=False):
    """Another hosted cluster, that is being restored at the moment."""
    other = copy.deepcopy(one(documents(members=3), "HostedCluster"))
    other["metadata"]["name"] = "green"
    other["spec"]["release"]["image"] = image
    kube.put(one(documents(), "Namespace"))
    kube.put(other)
    init = init_container(fixed=fixed, url="https://x/y", namespace="clusters-green", members=3)
    template = {"spec": {"initContainers": [init], "containers": [{"name": "etcd"}]}}
    kube.put(
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "etcd", "namespace": "clusters-green"},
            "spec": {"replicas": 3, "template": template},
        }
    )


def test_a_release_that_is_known_to_split_members_is_refused_before_anything_is_created(kube, api):
    neighbour(kube)
    with pytest.raises(RefusedError, match="clusters-green/etcd") as caught:
        run(api, documents(members=3))
    assert "nothing was created" in caught.value.what
    assert "SingleReplica" in caught.value.do
    assert kube.get(*ALL[4]) is None
    # By force, or for one member, it goes on.
    assert run(api, documents(members=1))[0].created
    assert kube.get(*ALL[4])


def test_force_lifts_that_refusal_and_says_so(kube, api):
    neighbour(kube)
    _, said = run(api, documents(members=3), force=True)
    assert "going on all the same" in said


@pytest.mark.parametrize("more", [{"fixed": True}, {"image": "quay.io/x:4.21.0"}])
def test_other_releases_and_fixed_ones_speak_against_nothing(kube, api, more):
    neighbour(kube, **more)
    _, said = run(api, documents(members=3))
    assert "is found out when its StatefulSet is there" in said


def test_who_may_not_look_at_others_goes_on(kube, api):
    neighbour(kube)
    kube.deny("list", HOSTED_CLUSTERS)
    assert run(api, documents(members=3))[0].created
    assert kube.get(STATEFUL_SETS, "etcd", "clusters-green")


PROGRAM = """
    import sys
    from pathlib import Path
    from backstay.kinds.hosted.recovery.apply import apply
    from backstay.kinds.hosted.recovery.creation import plan
    from backstay.kubeapi.connect import connect
    from backstay.report import Report
    from kit.restore_documents import documents

    with connect(Path(sys.argv[1]), None) as api:
        apply(api, plan(documents(), "r1"), report=Report())
"""


def start(kube):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(kube.kubeconfig)],
        cwd=Path(__file__).parents[1],
        stderr=subprocess.PIPE,
    )


def killed_at(kube, wanted, *, after):
    """Run it, and kill it before its request of that number is served, or when it has been."""
    begun = threading.Event()
    running = []
    first = len(kube.requests)

    def kill(number, _):
        assert begun.wait(30)
        if number - first == wanted:
            running[0].send_signal(signal.SIGKILL)
            running[0].wait()
            if not after:
                # What it asked for never came to the server.
                raise web.HTTPServiceUnavailable

    kube.on_request, kube.after_request = (None, kill) if after else (kill, None)
    running.append(start(kube))
    begun.set()
    code = running[0].wait(60)
    running[0].stderr.close()
    kube.settle()
    kube.on_request = kube.after_request = None
    return code


def clear(kube):
    for where in ALL:
        kube.remove(*where)


def whole(kube):
    """What is there, without what differs from run to run."""
    found = state(kube)
    assert all(found)
    return [{name: part for name, part in one.items() if name != "metadata"} for one in found]


def clean_run(kube, api):
    """What a run without a crash leaves, and the numbers of its requests that create."""
    before = len(kube.requests)
    run(api)
    made = [
        number
        for number, seen in enumerate(kube.requests[before:], start=1)
        if seen.verb == "create" and reviewed(seen)
    ]
    return whole(kube), made, len(kube.requests) - before


def crash_and_go_on(kube, api, number, *, after, clean):
    """Crash there, and run the same restore again; gives how many objects the crash left."""
    clear(kube)
    assert killed_at(kube, number, after=after) == -signal.SIGKILL
    left = [there for there in state(kube) if there]
    run(api)
    assert whole(kube) == clean
    # What the first run had made was not touched again.
    assert all(there in state(kube) for there in left)
    return len(left)


def test_promise_3_killed_at_any_creation_the_same_restore_goes_on(kube, api):
    clean, made, _ = clean_run(kube, api)
    assert len(made) == len(ALL)
    for count, number in enumerate(made):
        assert crash_and_go_on(kube, api, number, after=False, clean=clean) == count
        assert crash_and_go_on(kube, api, number, after=True, clean=clean) == count + 1


@pytest.mark.soak
def test_promise_3_killed_at_any_request_the_same_restore_goes_on(kube, api):
    clean, made, total = clean_run(kube, api)
    for number in range(1, total + 1):
        for after in (False, True):
            left = crash_and_go_on(kube, api, number, after=after, clean=clean)
            assert left == sum(one <= number for one in made) - (number in made and not after)


def every_fault(kube, api):
    """All that can go wrong with the requests of a run."""
    with disturbed(kube) as watch:
        run(api)
    expected = whole(kube)
    clear(kube)
    return cases(watch.moments), expected


@pytest.mark.parametrize(
    "step", [pytest.param(17, id="some"), pytest.param(1, id="all", marks=pytest.mark.soak)]
)
def test_promise_6_whatever_goes_wrong_the_same_restore_goes_on(
    kube, api, step, monkeypatch, record_property
):
    monkeypatch.setattr("backstay.kubeapi.http._WAITS", (0.01, 0.01))
    found, expected = every_fault(kube, api)

    def hold(case):
        ended = "done"
        with disturbed(kube, case) as watch:
            try:
                run(api)
            except BackstayError:
                ended = "failed"
        assert watch.hit
        run(api)
        assert whole(kube) == expected
        clear(kube)
        return ended

    assert set(hold_each(found[::step], hold, record_property)) == {"done", "failed"}
