"""Manifests that restore: what is put in, what stays, what is refused."""

import base64
import difflib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from ruamel.yaml import YAML

from backstay.errors import FormatError, RefusedError
from backstay.kinds.hosted.manifests import encryption_block
from backstay.kinds.hosted.manifests.documents import parse_documents
from backstay.kinds.hosted.manifests.encryption_block import Needs, keys_of
from backstay.kinds.hosted.manifests.render import Plan, Prepared, prepare
from backstay.kubedata.encryption import hypershift_configuration
from backstay.kubedata.inventory import MALFORMED
from backstay.kubedata.keyname import data_hash, fnv1_32, key_name
from backstay.kubedata.proof import prove_keys
from backstay.repo.keyring_document import Kms, SavedKey
from backstay.report import Verdict
from kit.fixtures import FOLDER, facts
from kit.hosted import ACTIVE, TARGET, hosted_objects, one
from kit.kube import real_snapshot

HOSTED = FOLDER / "hosted"
URL = "https://s3.example/bucket/blue/etcd.db?X-Amz-Signature=0badc0de"
AWS = "aws-render-sensitive"
THIRD = b"a third key with 32 bytes in it!"
OLD = SavedKey.of("active", "clusters", "blue-etcd-encryption-key", ACTIVE)
NEW = SavedKey.of("target", "clusters", "blue-etcd-encryption-key-2", TARGET)
ARN = "arn:aws:kms:eu-west-1:123456789012:key/aaaa"


def text_of(name: str) -> str:
    return (HOSTED / f"{name}.yaml").read_text()


def needs(*keys: SavedKey) -> Needs:
    return Needs(aescbc=frozenset(key.key_name for key in keys))


def made(text: str, **more) -> Prepared:
    plan = {"url": URL, "snapshot_size": 100 << 20, "keys": (OLD,), "needs": needs(OLD), **more}
    return prepare(parse_documents(text, "it"), Plan(**plan))


def reasons(prepared: Prepared) -> str:
    return "\n".join(refusal.reason for refusal in prepared.refusals)


def objects(text: str) -> list[dict]:
    """The text as another reader understands it."""
    return [it for it in YAML(typ="safe", pure=True).load_all(text) if it is not None]


def hosted_cluster(text: str) -> dict:
    return one(objects(text), "HostedCluster")


def secret_key(text: str, name: str) -> bytes:
    return base64.b64decode(one(objects(text), "Secret", name)["data"]["key"], validate=True)


def difference(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in lines if line[:3] not in ("---", "+++") and line[:2] != "@@"]


# --- what is put in, and nothing else


def test_a_rendered_cluster_gets_the_url_and_the_saved_key_and_no_other_line_changes():
    before = text_of(AWS)
    prepared = made(before)
    prepared.check()
    assert difference(before, prepared.text) == [
        "-  key: RnJlc2ggYW5kIHJhbmRvbSwgb2Ygbm8gdXNlIDEyMzQ= # invented when rendering",
        f"+  key: {base64.b64encode(ACTIVE).decode()} # invented when rendering",
        "+        restoreSnapshotURL:",
        f"+        - {URL}",
    ]
    etcd = hosted_cluster(prepared.text)["spec"]["etcd"]
    assert etcd == {
        "managementType": "Managed",
        "managed": {
            "storage": {
                "type": "PersistentVolume",
                "persistentVolume": {"size": "8Gi", "storageClassName": "gp3-csi"},
                "restoreSnapshotURL": [URL],
            }
        },
    }
    assert keys_of(prepared.text) == [ACTIVE]


def test_the_documents_that_were_given_stay_as_they_are():
    documents = parse_documents(text_of(AWS), "it")
    prepare(documents, Plan(url=URL, snapshot_size=1, keys=(OLD,), needs=needs(OLD)))
    assert documents.render() == text_of(AWS)


def test_preparing_what_was_prepared_changes_nothing():
    once = made(text_of(AWS)).text
    again = made(once)
    again.check()
    assert again.text == once
    assert any("already" in change for change in again.changes)


def test_a_secret_that_rendering_left_out_is_added_before_the_cluster():
    prepared = made(text_of("agent-render"))
    prepared.check()
    added = one(objects(prepared.text), "Secret")
    assert added == {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": "example-etcd-encryption-key",
            "namespace": "clusters",
            "labels": {"hypershift.openshift.io/safe-to-delete-with-cluster": "true"},
        },
        "data": {"key": base64.b64encode(ACTIVE).decode()},
    }
    kinds = [it["kind"] for it in objects(prepared.text)]
    assert kinds == ["Namespace", "Secret", "HostedCluster", "NodePool"]
    taken_away = [
        line for line in difference(text_of("agent-render"), prepared.text) if line[0] == "-"
    ]
    assert taken_away == []


def test_a_cluster_that_asks_for_no_encryption_gets_block_and_secret():
    # Else the operator of KubeVirt would invent a key, and the data could not be read.
    prepared = made(text_of("kubevirt-render"))
    prepared.check()
    spec = hosted_cluster(prepared.text)["spec"]
    assert spec["secretEncryption"] == {
        "type": "aescbc",
        "aescbc": {"activeKey": {"name": "guest-etcd-encryption-key"}},
    }
    assert secret_key(prepared.text, "guest-etcd-encryption-key") == ACTIVE
    assert any("invent" in change for change in prepared.changes)
    taken_away = [
        line for line in difference(text_of("kubevirt-render"), prepared.text) if line[0] == "-"
    ]
    assert taken_away == []


def test_a_cluster_without_encryption_and_a_snapshot_without_it_stay_so():
    prepared = made(text_of("kubevirt-render"), needs=Needs(), keys=())
    prepared.check()
    assert "secretEncryption" not in hosted_cluster(prepared.text)["spec"]
    assert [it["kind"] for it in objects(prepared.text)].count("Secret") == 0


def test_a_backup_from_the_middle_of_a_rotation_gets_both_keys():
    prepared = made(text_of(AWS), keys=(NEW, OLD), needs=needs(OLD, NEW))
    prepared.check()
    block = hosted_cluster(prepared.text)["spec"]["secretEncryption"]["aescbc"]
    assert block["activeKey"]["name"] == "blue-etcd-encryption-key"
    assert secret_key(prepared.text, block["activeKey"]["name"]) == ACTIVE
    assert secret_key(prepared.text, block["backupKey"]["name"]) == TARGET
    assert keys_of(prepared.text) == [ACTIVE, TARGET]


def test_a_rotation_that_had_reached_all_values_needs_the_new_key_alone():
    # The operator forgets the backup key once its status has an active one.
    prepared = made(text_of(AWS), keys=(OLD, NEW), needs=needs(NEW))
    prepared.check()
    assert keys_of(prepared.text) == [TARGET]
    assert "backupKey" not in hosted_cluster(prepared.text)["spec"]["secretEncryption"]["aescbc"]


def test_a_backup_key_that_is_named_is_filled():
    text = text_of(AWS).replace(
        "        name: blue-etcd-encryption-key\n",
        "        name: blue-etcd-encryption-key\n      backupKey:\n        name: the-other\n",
    )
    prepared = made(text, keys=(OLD, NEW), needs=needs(OLD, NEW))
    prepared.check()
    assert secret_key(prepared.text, "the-other") == TARGET
    alone = made(text)
    alone.check()
    assert any("the-other" in warning for warning in alone.warnings)


def test_a_backup_key_of_the_active_ones_name_gets_a_secret_of_its_own():
    text = text_of(AWS).replace(
        "        name: blue-etcd-encryption-key\n",
        "        name: blue-etcd-encryption-key\n      backupKey:\n"
        "        name: blue-etcd-encryption-key\n",
    )
    prepared = made(text, keys=(OLD, NEW), needs=needs(OLD, NEW))
    prepared.check()
    assert keys_of(prepared.text) == [ACTIVE, TARGET]


def test_a_key_that_is_text_is_written_as_data_and_wins():
    prepared = made(text_of("saved-list"))
    prepared.check()
    found = one(objects(prepared.text)[0]["items"], "Secret")
    assert found["data"] == {"key": base64.b64encode(ACTIVE).decode()}
    assert "stringData" not in found
    assert "# found in the keys repository" in prepared.text
    assert "{size: 16Gi, storageClassName: fast}" in prepared.text
    assert keys_of(prepared.text) == [ACTIVE]


@pytest.mark.parametrize("size", [16, 24, 32])
def test_keys_are_encoded_once_even_where_they_look_like_base64(size):
    raw = base64.b64encode(b"k" * 24)[:size]
    key = SavedKey.of("active", "clusters", "x", raw)
    prepared = made(text_of(AWS), keys=(key,), needs=needs(key))
    prepared.check()
    (found,) = keys_of(prepared.text)
    assert found == raw
    assert data_hash(found) == key.data_hash
    assert secret_key(prepared.text, "blue-etcd-encryption-key") == raw
    assert any("AES-256" in warning for warning in prepared.warnings) == (size != 32)


def test_base64_that_was_never_decoded_is_no_key():
    key = SavedKey.of("active", "clusters", "x", base64.b64encode(ACTIVE))
    prepared = made(text_of(AWS), keys=(key,), needs=needs(key), force=True)
    assert "44 bytes" in reasons(prepared)
    assert "never decoded" in reasons(prepared)
    assert prepared.text == ""


@pytest.mark.parametrize("name", ["kube-aescbc", "kube-aescbc-rotation"])
def test_keys_of_the_output_open_a_real_snapshot(name):
    raw = [base64.b64decode(key["key_base64"]) for key in facts(name)["encryption_keys"]]
    roles = ("active", "target")
    keys = tuple(
        SavedKey.of(role, "clusters", role, key) for role, key in zip(roles, raw, strict=False)
    )
    with real_snapshot(name) as snapshot:
        # What it needs is told by any keys, even by none that fit.
        needed = Needs.of(prove_keys(snapshot, [hypershift_configuration([ACTIVE])]).groups)
        assert needed == needs(*keys)
        prepared = made(text_of(AWS), keys=keys, needs=needed)
        prepared.check()
        proof = prove_keys(snapshot, [hypershift_configuration(keys_of(prepared.text))])
        opened = [g for g in proof.groups if g.provider == "aescbc"]
        assert opened
        assert {g.verdict for g in opened} == {Verdict.PASS}
        # One key fewer, and nothing is given out.
        lacking = made(text_of(AWS), keys=keys[1:], needs=needed, force=True)
        assert keys[0].key_name in reasons(lacking)
        assert lacking.text == ""


# --- the URL and etcd


def test_blocks_that_are_missing_are_made_as_defaults_would_make_them():
    text = text_of("kubevirt-render")
    start, end = text.index("  etcd:\n"), text.index("  fips:")
    prepared = made(text[:start] + text[end:])
    prepared.check()
    assert hosted_cluster(prepared.text)["spec"]["etcd"] == {
        "managementType": "Managed",
        "managed": {
            "storage": {
                "type": "PersistentVolume",
                "persistentVolume": {"size": "8Gi"},
                "restoreSnapshotURL": [URL],
            }
        },
    }
    assert "8Gi" in str(objects(prepared.text))


def test_an_unmanaged_etcd_can_not_be_restored_so():
    text = text_of(AWS).replace("managementType: Managed", "managementType: Unmanaged")
    prepared = made(text, force=True)
    assert "Unmanaged" in reasons(prepared)
    assert prepared.text == ""


def test_another_url_that_is_there_already_stays_unless_told():
    before = made(text_of(AWS)).text
    other = URL.replace("blue", "red")
    prepared = made(before, url=other)
    assert "already" in reasons(prepared)
    assert prepared.text == ""
    forced = made(before, url=other, force=True)
    forced.check()
    storage = hosted_cluster(forced.text)["spec"]["etcd"]["managed"]["storage"]
    assert storage["restoreSnapshotURL"] == [other]
    assert any("forced" in warning for warning in forced.warnings)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("s3://bucket/blue.db", "s3://"),
        ("http://minio.example/blue.db", "http://"),
        ("file:///blue.db", "file://"),
        ("bucket/blue.db", "https://"),
        ("HTTPS://s3.example/blue.db", "small letters"),
        (f"https://s3.example/{'x' * 1010}", "1029 characters"),
        ("https://s3.example/a b", "characters that"),
        ("https://s3.example/$`id`", "characters that"),
        ("https://s3.example/\n", "characters that"),
        ("https://s3.example/blue[1-9].db", "pattern"),
        ("https:///blue.db", "no host"),
        ("https://me:secret@s3.example/blue.db", "password"),
    ],
)
def test_a_url_that_can_not_work_is_refused_whatever_is_forced(url, word):
    prepared = made(text_of(AWS), url=url, force=True)
    assert word in reasons(prepared)
    assert prepared.text == ""
    assert url not in reasons(prepared)


def test_a_host_that_is_an_address_is_taken():
    made(text_of(AWS), url="https://[2001:db8::1]:9000/blue.db?sig=%5Bx%5D").check()


def test_a_url_of_just_the_length_is_taken():
    url = f"https://s3.example/{'x' * 1005}"
    assert len(url) == 1024
    made(text_of(AWS), url=url).check()


@pytest.mark.parametrize(
    ("size", "snapshot", "warns"),
    [
        ("4Gi", 2 << 30, False),
        ("4Gi", (2 << 30) + 1, True),
        ("8Gi", 3 << 30, False),
        ("8Gi", 5 << 30, True),
        ("8589934592", 4 << 30, False),
        ("8G", 4 << 30, True),
        ("'0.5Ti'", 4 << 30, False),
        ("4096Mi", 3 << 30, True),
        ("1e10", 4 << 30, False),
    ],
)
def test_a_volume_that_may_be_too_small_for_two_copies_is_a_warning(size, snapshot, warns):
    prepared = made(text_of(AWS).replace("size: 8Gi", f"size: {size}"), snapshot_size=snapshot)
    prepared.check()
    assert any("volume" in warning for warning in prepared.warnings) == warns
    assert f"size: {size}\n" in prepared.text


def test_a_size_that_is_none_is_refused():
    for size in ("eight", "8gi", "8 Gi", "[8]", ".inf", "1e99", "true", "'8Gi\\n'"):
        prepared = made(text_of(AWS).replace("size: 8Gi", f"size: {size}"), force=True)
        assert "quantity" in reasons(prepared), size
        assert prepared.text == ""


def test_a_paused_cluster_is_a_warning():
    text = text_of(AWS).replace(
        "spec:\n  autoscaling", "spec:\n  pausedUntil: 'true'\n  autoscaling"
    )
    prepared = made(text)
    prepared.check()
    assert any("pausedUntil" in warning for warning in prepared.warnings)


# --- keys that are refused, whatever is forced


def refused(text: str, word: str, **more) -> Prepared:
    prepared = made(text, force=True, **more)
    assert word in reasons(prepared), prepared.refusals
    assert prepared.text == ""
    with pytest.raises(RefusedError, match="would not restore") as caught:
        prepared.check()
    assert "--force" not in str(caught.value)
    assert not any(warning.startswith("forced") for warning in prepared.warnings)
    return prepared


def test_promise_5_no_key_and_no_url_is_in_any_message():
    old = base64.b64encode(ACTIVE).decode()
    for prepared in (
        made(text_of(AWS)),
        refused(text_of(AWS), "needs", keys=(NEW,)),
        made(text_of("saved-list")),
    ):
        said = repr(prepared) + str(prepared.changes) + str(prepared.warnings) + reasons(prepared)
        assert old not in said
        assert ACTIVE.decode() not in said
        assert TARGET.decode() not in said
        assert "0badc0de" not in said
        assert "older key" not in said
    plan = Plan(url=URL, snapshot_size=1, keys=(OLD,), needs=needs(OLD))
    assert "0badc0de" not in repr(plan)
    assert ACTIVE.decode() not in repr(plan)


def test_a_missing_key_is_refused():
    refused(text_of(AWS), OLD.key_name, keys=())
    refused(text_of(AWS), NEW.key_name, keys=(OLD,), needs=needs(OLD, NEW))


def test_a_key_that_differs_in_one_bit_is_refused():
    flipped = bytes([ACTIVE[0] ^ 1]) + ACTIVE[1:]
    refused(text_of(AWS), OLD.key_name, keys=(SavedKey.of("active", "clusters", "x", flipped),))


def test_a_key_that_is_not_what_its_name_or_hash_says_is_refused():
    for change in ({"key_name": OLD.key_name}, {"data_hash": OLD.data_hash}):
        lying = replace(NEW, **change)
        needed = Needs(aescbc=frozenset({lying.key_name}))
        refused(text_of(AWS), "name and hash say", keys=(lying,), needs=needed)


def test_three_keys_can_not_be_named():
    third = SavedKey.of("backup", "clusters", "x", THIRD)
    refused(text_of(AWS), "needs 3 keys", keys=(OLD, NEW, third), needs=needs(OLD, NEW, third))


def test_a_snapshot_with_aes_keys_and_a_cluster_with_a_kms_are_refused():
    refused(kms_text(), "AES keys")
    assert made(kms_text(), needs=Needs(), keys=()).text


def test_values_that_no_hosted_cluster_can_open_are_refused():
    refused(text_of(AWS), "secretbox", needs=Needs(others=frozenset({"secretbox"})))
    mixed = Needs(aescbc=frozenset({OLD.key_name}), kms=frozenset({"awskmskey-1"}))
    refused(text_of(AWS), "only one", needs=mixed)


def test_a_secret_of_another_use_is_not_overwritten():
    text = text_of(AWS).replace(
        "activeKey:\n        name: blue-etcd-encryption-key", "activeKey:\n        name: taken"
    )
    other = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: taken\n  namespace: clusters\n"
    for rest in ("type: kubernetes.io/dockerconfigjson\n", "data: [1]\n", "stringData: x\n"):
        refused(f"{other}{rest}---\n{text}", "no Secret for one")
    refused(text.replace("name: taken", "name: ../taken"), "no name")


def test_a_secret_without_a_namespace_could_overwrite_the_key():
    text = text_of(AWS).replace(
        "  name: blue-etcd-encryption-key\n  namespace: clusters\n",
        "  name: blue-etcd-encryption-key\n",
    )
    assert "namespace" not in one(objects(text), "Secret", "blue-etcd-encryption-key")["metadata"]
    refused(text, "names no namespace")


def test_values_that_were_broken_before_are_no_reason_that_lasts():
    broken = Needs(aescbc=frozenset({OLD.key_name}), others=frozenset({MALFORMED}))
    prepared = made(text_of(AWS), needs=broken)
    assert [it.lifted_by_force for it in prepared.refusals] == [True]
    assert keys_of(made(text_of(AWS), needs=broken, force=True).text) == [ACTIVE]


def test_a_broken_key_that_nothing_needs_is_a_warning():
    broken = SavedKey.of("target", "clusters", "x", TARGET + b"\n")
    prepared = made(text_of(AWS), keys=(OLD, broken))
    prepared.check()
    assert keys_of(prepared.text) == [ACTIVE]
    assert any("33 bytes" in warning for warning in prepared.warnings)


def test_a_key_that_nothing_needs_and_nobody_has_is_a_warning():
    prepared = made(text_of("agent-render"), keys=(), needs=Needs())
    prepared.check()
    assert any("'example-etcd-encryption-key'" in warning for warning in prepared.warnings)


def test_an_empty_block_is_no_block():
    text = text_of("kubevirt-render").replace("  services:", "  secretEncryption: {}\n  services:")
    prepared = made(text)
    prepared.check()
    assert keys_of(prepared.text) == [ACTIVE]


def test_etcds_beside_the_main_one_are_not_restored():
    sharded = one(hosted_objects("blue", shards=("events",)), "HostedCluster")
    sharded["spec"] = {**saved()["spec"], "etcd": sharded["spec"]["etcd"]}
    prepared = made(text_of(AWS), saved=sharded, take_saved=True)
    assert "(events)" in reasons(prepared)
    assert [it.lifted_by_force for it in prepared.refusals] == [True]


def test_a_signing_key_that_was_taken_over_must_be_there():
    other = saved()
    other["spec"]["serviceAccountSigningKey"] = {"name": "sa-signer"}
    prepared = made(text_of(AWS), saved=other, take_saved=True)
    prepared.check()
    assert any("'sa-signer'" in warning for warning in prepared.warnings)
    secret = (
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: sa-signer\n  namespace: clusters\n---\n"
    )
    there = made(secret + text_of(AWS), saved=other, take_saved=True)
    assert not any("'sa-signer'" in warning for warning in there.warnings)


def test_what_was_written_is_read_back(monkeypatch):
    # A defect of ours, the one that the manual procedure warns of: base64 of base64.
    monkeypatch.setattr(
        encryption_block, "_encode", lambda raw: base64.b64encode(base64.b64encode(raw)).decode()
    )
    refused(text_of(AWS), "do not hold the keys")


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        ("spec:\n  arch:", "spec:\n  pausedUntil: soon\n  arch:", "NodePool clusters/blue-eu"),
        ("  infraID: blue-x7k2p", "  infraID: Blue", "HostedCluster clusters/blue: spec.infraID"),
        ("type: PersistentVolume", "type: EmptyDir", "PersistentVolume"),
        ("    type: aescbc", "    type: aescbc\n  pausedUntil: '2026-01-01T00:00:00'", "RFC 3339"),
    ],
)
def test_what_the_api_server_would_refuse_is_refused(before, after, word):
    assert before in text_of(AWS)
    refused(text_of(AWS).replace(before, after), word)


def test_all_refusals_are_told_at_once():
    prepared = made(
        text_of(AWS).replace("managementType: Managed", "managementType: Unmanaged"),
        keys=(),
        url="http://x/y",
    )
    for word in ("http://", "Unmanaged", OLD.key_name):
        assert word in reasons(prepared)


# --- a KMS


def kms_text(arn: str = ARN, more: str = "") -> str:
    block = (
        "  secretEncryption:\n    kms:\n      aws:\n        activeKey:\n"
        f"          arn: {arn}\n        auth:\n          awsKms: arn:aws:iam::1:role/kms\n{more}"
        "        region: eu-west-1\n      provider: AWS\n    type: kms\n"
    )
    text = text_of(AWS)
    start, end = text.index("  secretEncryption:"), text.index("  services:")
    return text[:start] + block + text[end:]


def kms_name(arn: str) -> str:
    return f"awskmskey-{fnv1_32(arn.encode())}"


KMS_NEEDS = Needs(kms=frozenset({kms_name(ARN)}))
RECORDED = Kms(provider="AWS", active={"arn": ARN, "region": "eu-west-1"})


def test_the_name_of_a_kms_provider_is_that_of_upstreams_own_test():
    assert kms_name("test") == "awskmskey-3157003241"


def test_a_kms_key_that_is_the_same_is_taken_and_told():
    prepared = made(kms_text(), keys=(), needs=KMS_NEEDS, kms=RECORDED)
    prepared.check()
    assert hosted_cluster(prepared.text)["spec"]["secretEncryption"]["type"] == "kms"
    assert any(ARN in warning for warning in prepared.warnings)
    assert made(kms_text(), keys=(), needs=KMS_NEEDS, kms=None).text


def test_a_kms_key_that_can_not_be_named_or_is_another_is_refused():
    more = {"keys": (), "needs": KMS_NEEDS}
    refused(text_of(AWS), "names no key", kms=RECORDED, **more)
    refused(text_of("kubevirt-render"), ARN, kms=RECORDED, **more)
    other = ARN.replace("aaaa", "bbbb")
    refused(kms_text(other), "another key", kms=RECORDED, **more)
    refused(kms_text(other), kms_name(ARN), kms=None, **more)
    refused(kms_text(), "another key", kms=replace(RECORDED, provider="Azure"), **more)


def test_two_kms_keys_must_both_be_named():
    other = ARN.replace("aaaa", "bbbb")
    both = Needs(kms=frozenset({kms_name(ARN), kms_name(other)}))
    refused(kms_text(), "backupKey", keys=(), needs=both, kms=RECORDED)
    named = kms_text(more=f"        backupKey:\n          arn: {other}\n")
    assert made(named, keys=(), needs=both, kms=RECORDED).text


def test_a_key_of_another_provider_is_compared_by_what_identifies_it():
    azure = (
        "      azure:\n        activeKey:\n          keyVaultName: vault\n          keyName: etcd\n"
        "          keyVersion: v1\n      provider: Azure\n    type: kms\n"
    )
    text = kms_text()
    start, end = text.index("      aws:\n        activeKey"), text.index("  services:")
    text = text[:start] + azure + text[end:]
    needed = Needs(kms=frozenset({"azurekmskey-1"}))
    ids = {"keyVaultName": "vault", "keyName": "etcd", "keyVersion": "v1"}
    assert made(text, keys=(), needs=needed, kms=Kms(provider="Azure", active=ids)).text
    older = Kms(provider="Azure", active={**ids, "keyVersion": "v0"})
    refused(text, "another key", keys=(), needs=needed, kms=older)
    # Nothing was recorded: the reader may know better.
    unknown = made(text, keys=(), needs=needed)
    assert [it.lifted_by_force for it in unknown.refusals] == [True]
    assert made(text, keys=(), needs=needed, force=True).text


# --- the saved cluster


def saved() -> dict:
    found = one(hosted_objects("blue"), "HostedCluster")
    found["spec"]["release"]["image"] = "quay.io/openshift-release-dev/ocp-release:4.20.3-x86_64"
    del found["spec"]["serviceAccountSigningKey"]
    return found


def test_a_difference_that_would_not_work_is_refused_and_can_be_taken_or_forced():
    prepared = made(text_of(AWS), saved=saved())
    assert {it.path for it in prepared.differences if it.severity == "refuse"} == {"spec.clusterID"}
    assert prepared.text == ""
    with pytest.raises(RefusedError, match=r"--take-saved, or .*--force"):
        prepared.check()
    assert made(text_of(AWS), saved=saved(), force=True).text
    taken = made(text_of(AWS), saved=saved(), take_saved=True)
    taken.check()
    assert hosted_cluster(taken.text)["spec"]["clusterID"] == saved()["spec"]["clusterID"]
    assert "  # three members, on three zones\n" in taken.text


# --- reading the keys back


def test_keys_are_read_as_the_api_server_would():
    text = text_of(AWS)
    line = "  key: RnJlc2ggYW5kIHJhbmRvbSwgb2Ygbm8gdXNlIDEyMzQ="
    fresh = base64.b64decode(line.split()[1])
    assert keys_of(text) == [fresh]
    assert keys_of(
        text.replace(line, "  key: |\n    RnJlc2ggYW5kIHJhbmRv\n    bSwgb2Ygbm8gdXNlIDEyMzQ=\n")
    ) == [fresh]
    assert keys_of(kms_text()) == []
    assert keys_of(text_of("kubevirt-render")) == []
    for broken in ("  key: '!'", "  key: 12", "  other: eA==", "  key: ''"):
        with pytest.raises(FormatError, match="no key"):
            keys_of(text.replace(line, broken))
    with pytest.raises(FormatError, match="no key"):
        keys_of(text_of("agent-render"))


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([AWS, "agent-render", "kubevirt-render", "saved-list"]),
    st.lists(
        st.sampled_from([16, 24, 32]).flatmap(lambda n: st.binary(min_size=n, max_size=n)),
        min_size=1,
        max_size=3,
        unique=True,
    ),
    st.permutations(["active", "target", "backup"]),
    st.sets(st.integers(0, 2)),
)
def test_whatever_is_saved_and_needed_the_output_has_it_or_there_is_none(name, raw, roles, wanted):
    keys = [
        SavedKey.of(role, "clusters", role, value) for role, value in zip(roles, raw, strict=False)
    ]
    needed = frozenset(
        keys[index].key_name if index < len(keys) else f"key-{index}" for index in wanted
    )
    prepared = made(text_of(name), keys=tuple(keys), needs=Needs(aescbc=needed), force=True)
    known = {key.key_name for key in keys}
    if needed <= known and len(needed) < 3:
        found = keys_of(prepared.text)
        assert needed <= {key_name(value) for value in found}
        assert len(found) <= 2 or name == "saved-list"
    else:
        assert prepared.text == ""
