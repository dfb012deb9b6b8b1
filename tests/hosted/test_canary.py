"""Canaries: picked from snapshots that are made here, read through the API of a hosted cluster."""

import base64
from contextlib import contextmanager
from dataclasses import replace

import pytest

from backstay.clock import SystemClock
from backstay.errors import ConnectionFailedError, KubeError, KubeNotFoundError
from backstay.kinds.hosted.recovery.canary import Canary, ask_canaries, digest, pick
from backstay.kinds.hosted.recovery.restored import Expected, prove_api
from backstay.kubeapi.api import Api
from backstay.kubedata.encryption import hypershift_configuration
from backstay.kubedata.keyname import key_name
from backstay.report import Report, Verdict
from kit import kube as kubedata

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.COULD_NOT_VERIFY
KEY, OTHER = b"0123456789abcdef" * 2, b"fedcba9876543210" * 2
DATA = {"password": b"not-to-be-seen", "empty": b""}


def stored(namespace, name, *, key=None, data=None):
    """What etcd has of a Secret, encrypted where there is a key."""
    where = f"/kubernetes.io/secrets/{namespace}/{name}".encode()
    value = kubedata.secret(name, namespace, DATA if data is None else data)
    return where, kubedata.sealed("aescbc", key_name(key), key, value, where) if key else value


def picked(history, keys=(), **more):
    with kubedata.made_snapshot(history) as snapshot:
        return pick(snapshot, hypershift_configuration(keys) if keys else None, **more)


def names(found):
    return [f"{canary.namespace}/{canary.name}" for canary in found]


def test_secrets_of_users_come_first_and_the_longest_unchanged():
    found = picked(
        [
            stored("kube-system", "a"),
            stored("shop", "b"),
            stored("openshift-config", "c"),
            stored("bank", "d"),
            (b"/kubernetes.io/configmaps/shop/x", kubedata.built_in("ConfigMap", "x", "shop")),
            stored("shop", "b", data={"password": b"changed"}),
        ]
    )
    assert names(found) == ["bank/d", "shop/b", "kube-system/a", "openshift-config/c"]
    assert found[0] == Canary("bank", "d", 5, digest(DATA))
    assert found[1].revision == 7


def test_encrypted_ones_are_told_by_their_own_key():
    history = [stored("shop", "old", key=OTHER), stored("shop", "new", key=KEY)]
    assert names(picked(history, [KEY, OTHER])) == ["shop/old", "shop/new"]
    assert names(picked(history, [KEY])) == ["shop/new"]
    assert picked(history) == ()


def test_no_more_are_picked_than_wanted_and_empty_ones_never():
    history = [stored("shop", f"s{n}") for n in range(9)]
    assert len(picked(history)) == 5
    assert len(picked(history, number=2)) == 2
    nothing = kubedata.built_in("Secret", "e", "shop")
    assert picked([(b"/kubernetes.io/secrets/shop/e", nothing)]) == ()
    gone = [*history[:1], (history[0][0], None)]
    assert picked(gone) == ()


@pytest.fixture
def guest(kube):
    """The API of a hosted cluster."""
    return kube


def serve(guest, name, data=None):
    """Have the API serve a Secret; gives the canary that it is."""
    values = DATA if data is None else data
    there = guest.put(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": "shop"},
            "data": {key: base64.b64encode(value).decode() for key, value in values.items()},
        }
    )
    revision = int(there["metadata"]["resourceVersion"])
    return Canary("shop", name, revision, digest(DATA))


def test_one_that_is_as_it_was_passes(guest, api):
    found = ask_canaries(api, [serve(guest, "a")])
    assert found.verdict is PASS
    assert "Secret shop/a" in found.detail


def test_one_with_other_data_at_its_own_revision_fails(guest, api):
    found = ask_canaries(api, [serve(guest, "a", {"password": b"noise"})])
    assert found.verdict is FAIL
    assert "not-to-be-seen" not in found.detail


def test_one_that_was_changed_since_says_nothing_and_the_next_decides(guest, api):
    changed = replace(serve(guest, "a", {"password": b"new"}), revision=10**9)
    gone = Canary("shop", "gone", 1, digest(DATA))
    assert ask_canaries(api, [changed]).verdict is UNKNOWN
    assert ask_canaries(api, [changed, gone]).verdict is UNKNOWN
    assert ask_canaries(api, [gone, changed, serve(guest, "b")]).verdict is PASS


def test_where_all_are_gone_it_is_another_cluster(guest, api):
    canaries = [Canary("shop", name, 1, digest(DATA)) for name in "abc"]
    assert ask_canaries(api, canaries).verdict is FAIL
    assert ask_canaries(api, []).verdict is UNKNOWN


class Refusing:
    """A transport whose server answers with an error."""

    server = "https://guest"

    def __init__(self, words):
        self._words = words

    def call(self, request):
        raise KubeError(f"https://guest: GET secrets a: 500, {self._words}")

    def close(self):
        """There is nothing to close."""


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        ('Internal error occurred: unable to transform key "/kubernetes.io/secrets"', FAIL),
        ("etcdserver: leader changed", UNKNOWN),
    ],
)
def test_a_server_without_the_key_fails_and_one_in_trouble_does_not(words, verdict):
    expected = Expected(revision=1, keys=1, canaries=(Canary("shop", "a", 1, ""),))
    events = []
    check = prove_api(
        lambda: Api(Refusing(words)),
        expected,
        clock=SystemClock(),
        report=Report(events.append),
    )
    assert check.verdict is verdict
    assert check.name == "canary"
    assert len(events) == 1


@pytest.mark.parametrize("error", [KubeNotFoundError("no Secret"), ConnectionFailedError("no way")])
def test_promise_4_an_api_that_can_not_be_reached_is_could_not_verify(error):
    @contextmanager
    def unreachable():
        raise error
        yield

    expected = Expected(revision=1, keys=1, canaries=(Canary("shop", "a", 1, ""),))
    check = prove_api(unreachable, expected, clock=SystemClock(), report=Report())
    assert check.verdict is UNKNOWN
