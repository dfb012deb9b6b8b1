"""Which values matter: at the head of the history, however the history got there."""

import random
import struct
from itertools import product

import pytest

from backstay.errors import DamagedError
from backstay.kubedata.inventory import IN_THE_CLEAR, MALFORMED, read_value, take_inventory
from backstay.kubedata.resource import Resource, path_segment
from kit import kube

KEY = bytes(32)
SECRETS = Resource("secrets")
A, B = b"/registry/secrets/ns/a", b"/registry/secrets/ns/b"
ROUTE = b"/openshift.io/routes/ns/r"


def encrypts_secrets(prefix, resource):
    return resource == SECRETS


WORDS = frozenset({path_segment(SECRETS)})


def take(snapshot, *, words=WORDS):
    """Values by group, each as (etcd key, value)."""
    found = take_inventory(snapshot, encrypts_secrets, words=words).groups
    return {
        (group.prefix, str(group.resource), group.provider, group.key_name): [
            (key, read_value(snapshot, place)) for key, place in stored
        ]
        for group, stored in found.items()
    }


def under(name):
    return f"k8s:enc:aescbc:v1:{name}:payload".encode()


CLEAR = ("/registry", "secrets", IN_THE_CLEAR, "")
BROKEN = ("/registry", "secrets", MALFORMED, "")
FIRST_ROUTES = ("/openshift.io", "routes.route.openshift.io", "aescbc", "1")
OLD, NEW = (("/registry", "secrets", "aescbc", name) for name in ("old", "new"))


@pytest.mark.parametrize("words", [None, WORDS])
@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], {}),
        ([(A, under("old"))], {OLD: [(A, under("old"))]}),
        ([(A, b"x"), (A, under("old"))], {OLD: [(A, under("old"))]}),
        ([(A, under("old")), (A, under("new"))], {NEW: [(A, under("new"))]}),
        ([(A, under("old")), (A, b"x")], {CLEAR: [(A, b"x")]}),
        ([(A, under("old")), (A, None)], {}),
        ([(A, under("old")), (A, None), (A, b"x")], {CLEAR: [(A, b"x")]}),
        ([(A, None), (B, under("new"))], {NEW: [(B, under("new"))]}),
        (
            [(A, under("old")), (B, under("old")), (A, under("old"))],
            {OLD: [(B, under("old")), (A, under("old"))]},
        ),
        ([(A, b""), (B, under(""))], {CLEAR: [(A, b"")], BROKEN: [(B, under(""))]}),
        ([(ROUTE, under("1"))], {FIRST_ROUTES: [(ROUTE, under("1"))]}),
        ([(ROUTE, under("1")), (ROUTE, b"x")], {}),
        ([(b"odd", under("1"))], {("", "", "aescbc", "1"): [(b"odd", under("1"))]}),
        ([(b"odd", under("1")), (b"odd", None)], {}),
        ([(b"/registry/configmaps/ns/a", b"says k8s:enc:aescbc:v1:x:")], {}),
        ([(b"/registry/ranges/secrets", b"x"), (b"", b"")], {}),
        ([(b"/registry/example.com/secrets/ns/a", b"x")], {}),
    ],
)  # fmt: skip
def test_the_newest_version_of_each_key_counts(history, expected, words):
    with kube.made_snapshot(history) as snapshot:
        assert take(snapshot, words=words) == expected


def test_a_version_on_a_page_without_any_known_word_still_counts():
    # Enough between them that they lie on different pages, and the later page has no header.
    filler = [(b"/registry/pods/ns/p%d" % i, bytes(400)) for i in range(60)]
    for key, last in product((ROUTE, b"odd"), (b"in the clear", None)):
        history = [(key, under("1")), *filler, (key, last), *filler]
        with kube.made_snapshot(history) as snapshot:
            assert take(snapshot) == {}


def test_looking_at_some_pages_finds_what_looking_at_all_finds():
    source = random.Random(3)
    keys = [
        f"{prefix}/{resource}/ns/{name}".encode()
        for prefix, resource in (
            *(("/registry", "secrets"), ("/registry", "pods"), ("/registry", "services/specs")),
            *(("/openshift.io", "routes"), ("/openshift.io", "oauth/accesstokens"), ("", "x")),
        )
        for name in range(8)
    ]
    values = [under("old"), under("new"), b"x", bytes(900), None]
    for _ in range(20):
        history = [(source.choice(keys), source.choice(values)) for _ in range(250)]
        with kube.made_snapshot(history) as snapshot:
            assert take(snapshot) == take(snapshot, words=None) != {}


@pytest.mark.parametrize("lease", [0, 1, 1 << 62])
@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 1000, 3000, 20_000])
@pytest.mark.parametrize("long", [0, 100, 130, 2000])
def test_every_shape_of_element_is_read(lease, size, long):
    key = A + b"n" * long
    value = under("old") + bytes(size)
    element = struct.pack(">qcq", 2, b"_", 0), kube.keyvalue(key, value, 2, lease)
    with kube.raw_snapshot([element]) as snapshot:
        assert take(snapshot) == {OLD: [(key, value)]}


def test_long_etcd_keys_and_long_key_names_together_are_read():
    key, name = A + b"n" * 1400, "k" * 900
    with kube.made_snapshot([(key, under(name))]) as snapshot:
        assert list(take(snapshot)) == [("/registry", "secrets", "aescbc", name)]


def test_fields_in_another_order_are_read_too():
    stored = kube.text(5, under("old")) + b"\x20\x01\x18\x02\x10\x02" + kube.text(1, A)
    with kube.raw_snapshot([(struct.pack(">qcq", 2, b"_", 0), stored)]) as snapshot:
        assert take(snapshot) == {OLD: [(A, under("old"))]}


def test_a_field_that_comes_twice_has_its_last_value_as_etcd_has_it():
    stored = kube.keyvalue(A, under("old"), 2) + kube.text(5, under("new"))
    with kube.raw_snapshot([(struct.pack(">qcq", 2, b"_", 0), stored)]) as snapshot:
        assert take(snapshot) == {NEW: [(A, under("new"))]}


@pytest.mark.parametrize(
    "element",
    [
        (b"no revision", kube.keyvalue(A, under("old"), 2)),
        (struct.pack(">qcq", 2, b"_", 0), b"\x0a\x7f/secrets/"),
        (struct.pack(">qcq", 2, b"_", 0), kube.keyvalue(A, under("old"), 2)[:-1]),
        (struct.pack(">qcq", 2, b"_", 0), kube.keyvalue(A, under("old"), 2) + b"\x30"),
        (struct.pack(">qcq", 2, b"_", 0), b"\xff" * 12 + b"/secrets/"),
    ],
)
def test_damage_is_a_typed_error(element):
    with kube.raw_snapshot([element]) as snapshot, pytest.raises(DamagedError):
        take(snapshot)


@pytest.mark.parametrize("name", kube.ALL)
def test_values_of_real_snapshots_are_those_at_the_head(name):
    with kube.real_snapshot(name) as snapshot:
        found = take(snapshot)
        head = kube.live(snapshot)
    listed = {key: value for stored in found.values() for key, value in stored}
    assert listed == {key: head[key] for key in head if key.startswith(b"/kubernetes.io/secrets/")}
    counts = {
        "identity" if provider == IN_THE_CLEAR else f"{provider}:{key_name}": len(stored)
        for (_, _, provider, key_name), stored in found.items()
    }
    assert counts == kube.facts(name)["secrets_stored_with"]
