"""Which keys are tried on a snapshot, and what it means where there are none."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from backstay.errors import FormatError
from backstay.flows.keymatch import choose, encrypted_in, names_of
from backstay.flows.keyring import Known, configuration, prove
from backstay.kubedata.keyname import key_name
from backstay.kubedata.resource import Resource
from backstay.repo.keyring import Keyring, Kms, SavedKey
from backstay.report import Verdict
from kit import kube

OLD, NEW, SPARE = (bytes([n]) * 32 for n in (1, 2, 3))
KMS = Kms(
    provider="AWS",
    active={"arn": "arn:aws:kms:eu-west-1:1:key/a"},
    backup={"arn": "arn:aws:kms:eu-west-1:1:key/b"},
)
ETCD_KEY = b"/kubernetes.io/secrets/ns/one"


def saved(role, value):
    return SavedKey.of(role, "clusters", f"key-{role}", value)


def sealed(value, provider="aescbc"):
    """A snapshot with one Secret under a key."""
    stored = kube.sealed(provider, key_name(value), value, kube.secret("one"), ETCD_KEY)
    return kube.made_snapshot([(ETCD_KEY, stored)])


def under_kms():
    return kube.made_snapshot([(ETCD_KEY, b"k8s:enc:kms:v2:awskmskey-1:\x0a\x03abc")])


def in_the_clear():
    return kube.made_snapshot([(ETCD_KEY, kube.secret("one"))])


def verdict(snapshot, *keys, kms=None):
    with snapshot as opened:
        return prove(opened, Known.of(keys, kms))[1]


def test_the_api_servers_order_and_no_key_twice():
    """During a rotation one Secret can be both the target and the spec's active key."""
    keys = [saved("backup", OLD), saved("target", NEW), saved("active", OLD)]
    [aescbc, identity] = configuration(keys).providers("/kubernetes.io", Resource("secrets"))
    assert [key.secret for key in aescbc.keys] == [OLD, NEW]
    assert identity.kind == "identity"


def test_no_key_is_in_a_repr():
    found = repr(Known.of([saved("active", OLD)])) + repr(configuration([saved("active", OLD)]))
    assert repr(OLD)[2:-1] not in found


def test_keys_of_another_kind_are_not_guessed_at():
    key = SavedKey.of("active", "ns", "s", OLD, provider="aesgcm")
    with pytest.raises(FormatError, match="aesgcm"):
        configuration([key])
    made = Keyring(cluster="c", kind="later", made_at=datetime.now(UTC), keys=())
    with pytest.raises(FormatError, match="later"):
        Known.of_keyring(made)


@pytest.mark.parametrize("role", ["active", "target", "backup"])
def test_a_key_opens_in_any_role(role):
    assert verdict(sealed(OLD), saved(role, OLD)).verdict is Verdict.PASS
    assert verdict(sealed(OLD), saved(role, OLD), kms=KMS).verdict is Verdict.PASS
    assert verdict(sealed(OLD), saved(role, NEW)).verdict is Verdict.FAIL


def test_without_a_key_what_is_encrypted_misses_one():
    answer = verdict(sealed(OLD))
    assert answer.verdict is Verdict.FAIL
    assert f"the key {key_name(OLD)} is missing" in answer.detail


def test_without_a_key_nothing_that_is_in_the_clear_does():
    assert verdict(in_the_clear()).verdict is Verdict.PASS


def test_promise_4_what_a_kms_encrypted_could_not_be_verified():
    answer = verdict(under_kms(), kms=KMS)
    assert answer.verdict is Verdict.COULD_NOT_VERIFY
    assert "active arn arn:aws:kms:eu-west-1:1:key/a" in answer.detail
    assert "backup arn arn:aws:kms:eu-west-1:1:key/b" in answer.detail
    assert verdict(under_kms(), saved("active", OLD)).verdict is Verdict.COULD_NOT_VERIFY
    assert verdict(under_kms()).verdict is Verdict.COULD_NOT_VERIFY


def test_the_names_that_stand_in_a_snapshot():
    for snapshot, names in (
        (sealed(OLD), {key_name(OLD)}),
        (sealed(OLD, "aesgcm"), {key_name(OLD)}),
        (under_kms(), set()),
        (in_the_clear(), set()),
        (kube.made_snapshot([(ETCD_KEY, b"k8s:enc:nonsense")]), set()),
        (kube.made_snapshot([(ETCD_KEY, b"x"), (ETCD_KEY, None)]), set()),
    ):
        with snapshot as opened:
            assert names_of(encrypted_in(opened)) == names


def listed(name, *keys):
    header = SimpleNamespace(id=name, keys=tuple(key.label for key in keys))
    return SimpleNamespace(header=header)


def test_only_what_bears_a_name_is_chosen_newest_first():
    old, new, spare = (saved("active", value) for value in (OLD, NEW, SPARE))
    found = choose(
        frozenset({old.key_name, new.key_name}),
        [listed("c", spare), listed("b", new, spare), listed("a", old, new)],
    )
    places = {name: [one.header.id for one in found] for (name, _), found in found.items()}
    assert places == {new.key_name: ["b", "a"], old.key_name: ["a"]}


def test_namesakes_are_tried_all_but_not_without_end():
    """Names have 32 bits: whoever can write there can make any number of the same."""
    label = saved("active", OLD).label
    crowd = [
        SimpleNamespace(
            header=SimpleNamespace(
                id=str(n), keys=(SimpleNamespace(key_name=label.key_name, data_hash=f"{n:064x}"),)
            )
        )
        for n in range(100)
    ]
    found = choose(frozenset({label.key_name}), crowd)
    assert 2 <= len(found) <= 16
