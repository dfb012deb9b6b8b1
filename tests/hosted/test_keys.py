"""The encryption keys of a hosted cluster: which are saved, and what is said about them."""

import base64
import copy
import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.errors import KubeForbiddenError
from backstay.kinds.hosted.belongings import encryption
from backstay.kinds.hosted.belongings.keys import CONFIGURATION, saved_keys
from backstay.kinds.hosted.cluster import Hosted, secret_value
from backstay.kinds.hosted.find import find
from backstay.kubeapi.resource import SECRETS
from kit.hosted import ACTIVE, TARGET, condition, hosted_objects, load, one, secret, without

THIRD = b"a key that is named by the spec."
OWN, COPY = "clusters", "clusters-blue"
FIRST, SECOND = "blue-etcd-encryption-key", "blue-etcd-encryption-key-2"


@pytest.fixture
def keys(kube, api):
    """Load objects, and read the keys of the cluster that they make."""

    def read(objects):
        load(kube, objects)
        return saved_keys(api, find(api, "blue", "clusters"))

    return read


def told(saved):
    return [(key.role, key.namespace, key.secret, key.value) for key in saved.keys]


def both(objects, kind, change):
    """Change the HostedCluster and the HostedControlPlane alike."""
    for name in ("HostedCluster", "HostedControlPlane"):
        change(one(objects, name)[kind])
    return objects


def test_one_key(keys):
    saved = keys(hosted_objects())
    assert told(saved) == [("active", OWN, FIRST, ACTIVE)]
    (key,) = saved.keys
    assert key.key_name == "key-881413397"
    assert key.data_hash == hashlib.sha256(ACTIVE).hexdigest()
    assert (saved.rotating, saved.kms) == (False, None)
    assert saved.problems == saved.replaced == saved.warnings == ()


def test_an_older_release_without_status(keys):
    saved = keys(hosted_objects(status_keys=False))
    assert told(saved) == [("active", OWN, FIRST, ACTIVE)]
    assert not saved.rotating


def test_promise_5_no_key_is_in_what_is_printed(keys):
    text = repr(keys(hosted_objects(keys=(ACTIVE, TARGET), rotating=True)))
    encoded = {base64.b64encode(key).decode() for key in (ACTIVE, TARGET)}
    for word in (ACTIVE.decode(), TARGET.decode(), *encoded):
        assert word not in text


def test_a_key_of_any_name_is_found_by_reference(keys):
    objects = both(
        without(hosted_objects(status_keys=False), "Secret", FIRST),
        "spec",
        lambda spec: spec["secretEncryption"]["aescbc"].update(activeKey={"name": "etcd-2024"}),
    )
    decoy = secret(OWN, "blue-etcd-encryption-key-old", {"key": THIRD})
    saved = keys([*objects, decoy, secret(OWN, "etcd-2024", {"key": ACTIVE})])
    assert told(saved) == [("active", OWN, "etcd-2024", ACTIVE)]


@pytest.mark.parametrize("state", ["ReadOnlyDeploy", "WritePromote", "Migrating"])
def test_a_rotation_saves_both(keys, state):
    saved = keys(hosted_objects(keys=(ACTIVE, TARGET), rotating=state))
    assert told(saved) == [("active", OWN, FIRST, ACTIVE), ("target", OWN, SECOND, TARGET)]
    assert saved.rotating
    assert saved.problems == ()


def test_a_rotation_that_only_the_control_plane_tells_of_yet(keys):
    objects = hosted_objects(keys=(ACTIVE, TARGET), rotating="ReadOnlyDeploy")
    before = one(hosted_objects(), "HostedCluster")
    one(objects, "HostedCluster")["status"] = before["status"]
    one(objects, "HostedCluster")["spec"]["secretEncryption"] = before["spec"]["secretEncryption"]
    saved = keys(objects)
    assert [(role, value) for role, _, _, value in told(saved)] == [
        ("active", ACTIVE),
        ("target", TARGET),
    ]
    assert saved.rotating


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_the_condition_alone_means_two_keys(keys, status):
    objects = hosted_objects()
    condition(one(objects, "HostedCluster"), "EtcdDataEncryptionUpToDate", status)
    assert keys(objects).rotating


def test_the_history_alone_means_two_keys(keys):
    entry = {"state": "Migrating", "from": {}, "to": {}}
    objects = both(
        hosted_objects(), "status", lambda s: s["secretEncryption"].update(history=[entry])
    )
    assert keys(objects).rotating


def test_a_rotation_that_is_over(keys):
    entry = {"state": "Completed", "from": {}, "to": {}}
    objects = both(
        hosted_objects(), "status", lambda s: s["secretEncryption"].update(history=[entry])
    )
    assert not keys(objects).rotating


def test_a_spec_that_is_ahead_of_the_status(keys):
    objects = both(
        hosted_objects(),
        "spec",
        lambda spec: spec["secretEncryption"]["aescbc"].update(activeKey={"name": "next"}),
    )
    saved = keys([*objects, secret(OWN, "next", {"key": TARGET})])
    assert told(saved) == [("active", OWN, FIRST, ACTIVE), ("target", OWN, "next", TARGET)]
    assert saved.rotating


def test_a_backup_key_counts_where_there_is_no_status(keys):
    saved = keys(hosted_objects(keys=(ACTIVE, TARGET), status_keys=False))
    assert [key.role for key in saved.keys] == ["active", "backup"]
    assert saved.rotating


def test_a_backup_key_that_no_longer_counts_is_saved_all_the_same(keys):
    saved = keys(hosted_objects(keys=(ACTIVE, TARGET)))
    assert [(key.role, key.value) for key in saved.keys] == [("active", ACTIVE), ("backup", TARGET)]
    assert not saved.rotating


def test_a_backup_key_that_no_longer_counts_may_be_gone(keys):
    objects = without(hosted_objects(keys=(ACTIVE, TARGET)), "Secret", SECOND)
    objects = without(objects, "Secret", CONFIGURATION)
    saved = keys(objects)
    assert [key.value for key in saved.keys] == [ACTIVE]
    assert saved.problems == ()
    assert saved.warnings == (
        f"Secret {OWN}/{SECOND} is not there: it was the backup key, which no longer counts",
    )


def test_without_a_status_a_backup_key_must_be_there(keys):
    objects = without(hosted_objects(keys=(ACTIVE, TARGET), status_keys=False), "Secret", SECOND)
    saved = keys(without(objects, "Secret", CONFIGURATION))
    assert len(saved.problems) == 1
    assert SECOND in saved.problems[0]


def _replace(objects, *namespaces, value=THIRD):
    for namespace in namespaces:
        data = one(objects, "Secret", FIRST, namespace)["data"]
        data["key"] = base64.b64encode(value).decode()
    return objects


def test_a_secret_that_was_replaced_is_found_out_by_its_hash(keys):
    saved = keys(_replace(hosted_objects(), OWN))
    # The old key was still in the copy; the new one is saved too: a rotation to it comes next.
    assert told(saved) == [("active", COPY, FIRST, ACTIVE), ("target", OWN, FIRST, THIRD)]
    assert saved.problems == ()
    (words,) = saved.replaced
    assert f"Secret {OWN}/{FIRST} no longer holds the key" in words
    assert f"was still in Secret {COPY}/{FIRST}" in words


def test_a_key_that_only_the_api_server_still_has(keys):
    saved = keys(_replace(hosted_objects(), OWN, COPY))
    assert told(saved)[0] == ("active", OWN, FIRST, ACTIVE)
    assert CONFIGURATION in saved.replaced[0]
    assert saved.problems == ()


def test_a_key_that_nobody_has_any_more(keys):
    objects = without(_replace(hosted_objects(), OWN, COPY), "Secret", CONFIGURATION)
    saved = keys(objects)
    assert [key.value for key in saved.keys] == [THIRD]
    (problem,) = saved.problems
    assert "it was replaced" in problem
    assert "put the key back" in problem


def test_a_key_that_is_wrong_in_one_bit_is_not_the_key(keys):
    flipped = bytes([ACTIVE[0] ^ 1]) + ACTIVE[1:]
    objects = without(_replace(hosted_objects(), OWN, COPY, value=flipped), "Secret", CONFIGURATION)
    assert ACTIVE not in [key.value for key in keys(objects).keys]


def test_a_secret_that_is_gone(keys):
    objects = without(without(hosted_objects(), "Secret", FIRST), "Secret", CONFIGURATION)
    saved = keys(objects)
    assert saved.keys == ()
    (problem,) = saved.problems
    assert problem.startswith(f"Secret {OWN}/{FIRST} is not there")


def test_a_key_that_nothing_refers_to_and_the_api_server_has(keys):
    # KubeVirt: neither object names it where the operator has made one up.
    objects = hosted_objects(platform="KubeVirt", status_keys=False)
    for name in ("HostedCluster", "HostedControlPlane"):
        del one(objects, name)["spec"]["secretEncryption"]
    saved = keys(objects)
    assert told(saved) == [("active", COPY, CONFIGURATION, ACTIVE)]
    assert "does not name" in saved.warnings[0]


def test_a_key_that_the_operator_made_up_is_found_by_the_control_plane(keys):
    objects = hosted_objects(platform="KubeVirt", status_keys=False)
    del one(objects, "HostedCluster")["spec"]["secretEncryption"]
    saved = keys(objects)
    assert told(saved) == [("active", OWN, FIRST, ACTIVE)]
    assert saved.warnings == ()


def test_no_encryption(keys):
    saved = keys(hosted_objects(encryption=None))
    assert (saved.keys, saved.kms, saved.rotating) == ((), None, False)
    assert saved.problems == saved.warnings == ()


@pytest.mark.parametrize(
    ("value", "problem", "warning"),
    [
        (b"x" * 32, "", ""),
        (b"x" * 24, "", "24 bytes; AES-256 takes 32"),
        (b"x" * 16, "", "16 bytes; AES-256 takes 32"),
        (b"x" * 20, "20 bytes, and kube-apiserver takes 16, 24, 32", ""),
        (b"x" * 32 + b"\n", "33 bytes, and kube-apiserver takes 16, 24, 32; it ends with", ""),
        (b"x" * 2000, "2000 bytes, and kube-apiserver takes 16, 24, 32", ""),
        (b"", "has no key", ""),
    ],
)
def test_lengths(keys, value, problem, warning):
    objects = hosted_objects(keys=(b"y" * 32,), status_keys=False)
    for namespace in (OWN, COPY):
        one(objects, "Secret", FIRST, namespace)["data"]["key"] = base64.b64encode(value).decode()
    saved = keys(without(objects, "Secret", CONFIGURATION))
    assert len(saved.problems) == bool(problem)
    assert len(saved.warnings) == bool(warning)
    assert problem in "".join(saved.problems)
    assert warning in "".join(saved.warnings)
    assert [key.value for key in saved.keys] == ([value] if 0 < len(value) <= 1024 else [])
    assert b"xx" not in repr(saved).encode()


def test_one_key_in_two_secrets_is_one(keys):
    saved = keys(hosted_objects(keys=(b"x" * 20, b"x" * 20), rotating=True))
    assert len(saved.keys) == 1
    assert len(saved.problems) == 1


def test_a_configuration_that_is_none(keys):
    objects = without(hosted_objects(), "Secret", CONFIGURATION)
    broken = secret(COPY, CONFIGURATION, {"config.yaml": b"{" + ACTIVE})
    saved = keys([*objects, broken])
    assert told(saved) == [("active", OWN, FIRST, ACTIVE)]
    assert "is not known" in saved.warnings[0]
    assert ACTIVE.decode() not in saved.warnings[0]


def test_a_secret_that_we_may_not_read(kube, api):
    load(kube, hosted_objects())
    hosted = find(api, "blue", "clusters")
    kube.deny("get", SECRETS)
    with pytest.raises(KubeForbiddenError):
        saved_keys(api, hosted)


def test_a_namespace_that_may_be_anothers_is_not_looked_into(kube, api):
    load(kube, hosted_objects("a-b", keys=(TARGET,)))
    hosted_cluster = one(hosted_objects("a.b", keys=(TARGET,)), "HostedCluster")
    for part in ("spec", "status"):
        text = json.dumps(hosted_cluster[part]["secretEncryption"])
        named = text.replace("a.b-etcd-encryption-key", "a-b-etcd-encryption-key")
        hosted_cluster[part]["secretEncryption"] = json.loads(named)
    kube.put(hosted_cluster)
    kube.remove(SECRETS, "a-b-etcd-encryption-key", OWN)
    saved = saved_keys(api, find(api, "a.b", "clusters"))
    assert saved.keys == ()
    assert saved.problems


def test_a_reference_that_is_a_path_is_not_followed(kube, api):
    objects = hosted_objects(status_keys=False)
    hosted_cluster = one(objects, "HostedCluster")
    wrong = "../../kube-system/secrets/admin"
    hosted_cluster["spec"]["secretEncryption"]["aescbc"]["activeKey"]["name"] = wrong
    load(kube, without(objects, "Secret", CONFIGURATION))
    saved = saved_keys(api, find(api, "blue", "clusters"))
    assert saved.keys == ()
    assert "no name" in saved.problems[0]
    assert not [seen for seen in kube.requests if "kube-system" in seen.path]


@pytest.mark.parametrize(
    ("platform", "provider", "ids"),
    [
        ("AWS", "AWS", {"arn": "arn:aws:kms:eu-west-1:123456789012:key/aaaa"}),
        ("Azure", "Azure", {"keyVaultName": "vault", "keyName": "etcd", "keyVersion": "v1"}),
        ("IBMCloud", "IBMCloud", {"crkID": "crk-1", "instanceID": "kp-1", "keyVersion": "1"}),
    ],
)
@pytest.mark.parametrize("status_keys", [True, False])
def test_kms(keys, platform, provider, ids, status_keys):
    saved = keys(hosted_objects(encryption="kms", platform=platform, status_keys=status_keys))
    assert saved.keys == ()
    assert saved.kms.provider == provider
    assert ids.items() <= saved.kms.active.items()
    assert saved.kms.target == {}
    assert not saved.rotating
    (warning,) = saved.warnings
    assert "useless without" in warning
    assert all(text in warning for text in ids.values())


def test_kms_in_a_rotation(keys):
    arns = [f"arn:aws:kms:eu-west-1:123456789012:key/{n}" for n in ("old", "new")]
    old, new = ({"provider": "AWS", "aws": {"arn": arn, "region": "eu-west-1"}} for arn in arns)
    objects = hosted_objects(encryption="kms")
    for name in ("HostedCluster", "HostedControlPlane"):
        document = one(objects, name)
        document["spec"]["secretEncryption"]["kms"]["aws"]["activeKey"] = {"arn": arns[1]}
        history = [{"state": "Migrating"}]
        document["status"]["secretEncryption"] = {
            "activeKey": old,
            "targetKey": new,
            "history": history,
        }
    saved = keys(objects)
    assert saved.kms.active["arn"] == arns[0]
    assert saved.kms.target["arn"] == arns[1]
    assert saved.kms.state == "Migrating"
    assert saved.rotating
    assert all(arn in saved.warnings[0] for arn in arns)


def test_kms_without_status_has_its_backup_key(keys):
    objects = hosted_objects(encryption="kms", status_keys=False)
    for name in ("HostedCluster", "HostedControlPlane"):
        aws = one(objects, name)["spec"]["secretEncryption"]["kms"]["aws"]
        aws["backupKey"] = {"arn": "arn:of:the:backup"}
    assert keys(objects).kms.backup["arn"] == "arn:of:the:backup"


def test_ibm_writes_with_the_highest_version(keys):
    objects = hosted_objects(encryption="kms", platform="IBMCloud", status_keys=False)
    for name in ("HostedCluster", "HostedControlPlane"):
        listed = one(objects, name)["spec"]["secretEncryption"]["kms"]["ibmcloud"]["keyList"]
        listed.append({**listed[0], "crkID": "crk-9", "keyVersion": 9})
    kms = keys(objects).kms
    assert kms.active["crkID"] == "crk-9"
    assert kms.backup["1.crkID"] == "crk-1"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "type": JSON,
        "kms": st.dictionaries(
            st.sampled_from(["provider", "aws", "azure", "ibmcloud"]),
            JSON | st.dictionaries(st.sampled_from(["activeKey", "keyList", "backupKey"]), JSON),
        ),
        "aescbc": JSON | st.dictionaries(st.sampled_from(["activeKey", "backupKey"]), JSON),
        "activeKey": JSON
        | st.dictionaries(st.sampled_from(["provider", "aescbc", "aws", "ibmCloud"]), JSON),
        "targetKey": JSON,
        "history": JSON,
    },
)


@settings(max_examples=200, deadline=None)
@given(FIELDS | JSON, FIELDS | JSON, JSON)
def test_hostile_objects_raise_nothing(spec, status, conditions):
    document = {
        "spec": {"secretEncryption": spec},
        "status": {"secretEncryption": status, "conditions": conditions},
    }
    hosted = Hosted(
        name="a",
        namespace="b",
        control_plane_namespace="b-a",
        hosted_cluster=document,
        control_plane=copy.deepcopy(document),
    )
    assert len(encryption.references(hosted)) <= 16
    assert encryption.is_rotating(hosted) in (True, False)
    kms = encryption.kms_of(hosted)
    if kms is not None:
        for ids in (kms.active, kms.backup, kms.target):
            assert len(ids) <= 64
            assert all(isinstance(text, str) for text in ids.values())


@given(JSON | st.dictionaries(st.just("data"), JSON), st.text(max_size=5))
def test_a_hostile_secret_has_bytes_or_none(document, key):
    value = secret_value(document, key)
    assert value is None or isinstance(value, bytes)


def test_only_these_are_read(kube, api):
    load(kube, hosted_objects())
    hosted = find(api, "blue", "clusters")
    kube.requests.clear()
    saved_keys(api, hosted)
    read = {(seen.verb, seen.resource, seen.namespace, seen.name) for seen in kube.requests}
    assert read == {
        ("get", SECRETS.plural, OWN, FIRST),
        ("get", SECRETS.plural, COPY, CONFIGURATION),
    }
