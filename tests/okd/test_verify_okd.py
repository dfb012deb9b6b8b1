"""Verifying OKD backups: their keys, and the partner without which they restore nothing."""

import os
import shutil
from datetime import UTC, datetime

import pytest

from backstay.flows.okdmatch import TRIES
from backstay.repo.keyring import Keyring, headers, remove, save
from backstay.repo.name import Run
from kit import fixtures, kube, okd_pair, openshift, s3
from kit.okd_pair import INFRASTRUCTURE, write_pair

CLUSTER = "other"


def verify(places, backup, *words, expect=0, named=True, **variables):
    keys = ("--keys-repo", places.keys_url) if named else ()
    return places.cli("verify", backup, *keys, *words, "--json", expect=expect, **variables)


def verdicts(done):
    return {check["name"]: check["verdict"] for check in done.json["checks"]}


def detail(done, name):
    [text] = [check["detail"] for check in done.json["checks"] if check["name"] == name]
    return text


def archive_of(places):
    [path] = places.files("keys", ".tar.gz.zst.age")
    return path


def is_verified(places, backup):
    return places.data.find(backup).verified


def test_the_partner_is_opened_where_there_is_an_identity(places, backup):
    done = verify(places, backup)
    assert set(verdicts(done).values()) == {"PASS"}
    for pod, revision in okd_pair.PODS.items():
        assert f"{pod}-pod-{revision}" in detail(done, "partner")
    assert "1 secrets" not in detail(done, "keys")
    groups = {(group["prefix"], group["resource"]) for group in done.json["keys"]}
    # Routes and tokens open with the keys that lie in the snapshot's own Secrets.
    assert ("/openshift.io", "routes.route.openshift.io") in groups
    assert {group["verdict"] for group in done.json["keys"]} == {"PASS"}


def test_without_an_identity_it_is_read_back_and_not_opened(places, backup):
    del places.cli.variables["BACKSTAY_IDENTITY"]
    done = verify(places, backup)
    assert set(verdicts(done)) == {"stored", "partner"}
    assert verdicts(done)["partner"] == "PASS"
    assert "not opened" in detail(done, "partner")


def test_a_repository_that_only_a_variable_names_is_looked_at_too(places, backup):
    assert verdicts(verify(places, backup, named=False))["partner"] == "PASS"
    done = verify(places, backup, named=False, BACKSTAY_KEYS_REPO="")
    assert "partner" not in verdicts(done)


def test_promise_1_a_backup_whose_partner_is_gone_is_never_verified_again(places, backup):
    assert is_verified(places, backup)
    path = archive_of(places)
    data = path.read_bytes()
    path.unlink()
    done = verify(places, backup, expect=3)
    assert verdicts(done)["partner"] == "FAIL"
    assert not is_verified(places, backup)
    assert "FAILED" in places.cli("list").out
    path.write_bytes(data)
    assert verdicts(verify(places, backup))["partner"] == "PASS"
    assert not is_verified(places, backup)
    places.cli("show", f"{INFRASTRUCTURE}/latest-verified", expect=1)


@pytest.mark.parametrize("identity", [True, False])
def test_a_changed_partner_is_found_with_and_without_an_identity(places, backup, identity):
    if not identity:
        del places.cli.variables["BACKSTAY_IDENTITY"]
    path = archive_of(places)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert verdicts(verify(places, backup, expect=3))["partner"] == "FAIL"


def test_a_keyring_that_is_gone_takes_the_partner_along(places, backup):
    [saved] = headers(places.keys)
    remove(places.keys, saved)
    done = verify(places, backup, expect=3)
    assert verdicts(done)["partner"] == "FAIL"
    assert f"no keys of {backup}" in detail(done, "partner")


def test_promise_4_a_partner_that_cannot_be_asked_for_is_no_pass(places, backup, tmp_path):
    recipient = places.data.config.recipients[0]
    other = f"file://{tmp_path}/other"
    places.cli("init", "--role", "keys", "--repo", other, "--recipient", recipient)
    done = places.cli(
        "verify", backup, "--json", expect=4, BACKSTAY_KEYS_REPO=other, BACKSTAY_IDENTITY=""
    )
    assert verdicts(done)["partner"] == "COULD NOT VERIFY"
    # It says nothing of the backup: what was proven stands.
    assert is_verified(places, backup)


def test_a_backup_that_came_alone_could_not_be_verified(places, tmp_path, okd_data):
    write_pair(tmp_path / "alone", okd_data).archive.unlink()
    [one] = places.taken(tmp_path / "alone", expect=4)
    for named in (True, False):
        done = verify(places, one["id"], named=named, expect=4)
        assert verdicts(done)["partner"] == "COULD NOT VERIFY"


def test_the_archive_lacks_a_static_pod(places, tmp_path, okd_data):
    pods = {pod: n for pod, n in okd_pair.PODS.items() if pod != "kube-scheduler"}
    write_pair(tmp_path / "short", okd_data, content=okd_pair.files(pods=pods))
    [one] = places.taken(tmp_path / "short", expect=3)
    [check] = [check for check in one["checks"] if check["name"] == "partner"]
    assert check["verdict"] == "FAIL"
    assert "no resources of kube-scheduler" in check["detail"]


def test_both_repositories_in_buckets(tmp_path, okd_data):
    from kit.okd_places import Places

    with s3.over_tls(tmp_path / "s3") as server:
        places = Places.make(tmp_path)
        places.cli.variables |= server.environment
        recipient = places.data.config.recipients[0]
        places.cli.variables["BACKSTAY_REPO"] = "s3://backups/okd"
        places.cli("init", "--recipient", recipient)
        write_pair(tmp_path / "assets", okd_data)
        backup = places.imported(tmp_path / "assets")
        done = verify(places, backup)
        assert set(verdicts(done).values()) == {"PASS"}
        words = ("--output-dir", tmp_path / "restored", "--version", okd_pair.VERSION)
        places.cli("restore", "okd", backup, *words)
        assert len(os.listdir(tmp_path / "restored")) == 2


def real(name):
    """The configuration of a real kube-apiserver, as JSON."""
    import json

    return json.dumps(fixtures.facts(name)["encryption_configuration"])


def keep(places, configuration, kind="okd"):
    """A keyring of a backup that nobody lists."""
    made = Keyring(
        cluster=CLUSTER,
        kind=kind,
        made_at=datetime.now(UTC),
        keys=(),
        encryption_configuration=configuration,
    )
    run = Run.begin(CLUSTER, datetime.now(UTC))
    save(places.keys, made, run, data=places.data.config.repository)


def numbered(seed):
    """A configuration of another cluster, whose key has the same number."""
    value = openshift.raw(seed, 1)
    providers = [kube.provider("aescbc", **{"1": value}), openshift.IDENTITY]
    return kube.configuration((["secrets", "configmaps"], providers)).decode()


@pytest.fixture
def file(places, okd_data):
    """A snapshot file that no manifest names."""
    path = places.root / "file.db"
    path.write_bytes(okd_data)
    return path


def test_a_file_finds_its_keyring_among_namesakes_by_trying(places, file):
    for number in range(4):
        keep(places, numbered(f"cluster {number}"))
    keep(places, okd_pair.CONFIGURATION.decode())
    for number in range(4, 8):
        keep(places, numbered(f"cluster {number}"))
    done = verify(places, file)
    assert verdicts(done)["keys"] == "PASS"
    assert "routes.route.openshift.io" in detail(done, "keys")


def test_promise_4_a_namesake_of_another_cluster_is_no_key(places, file):
    keep(places, numbered("another cluster"))
    done = verify(places, file, expect=3)
    assert verdicts(done)["keys"] == "FAIL"
    assert "the key 1 is missing" in detail(done, "keys")


def test_promise_4_more_namesakes_than_are_tried_prove_nothing(places, file, monkeypatch):
    monkeypatch.setattr("backstay.flows.okdmatch.TRIES", 3)
    assert TRIES > 3
    for number in range(5):
        keep(places, numbered(f"cluster {number}"))
    done = verify(places, file, expect=4)
    assert verdicts(done)["keys"] == "COULD NOT VERIFY"


def test_one_configuration_in_many_keyrings_is_tried_once(places, file, monkeypatch):
    monkeypatch.setattr("backstay.flows.okdmatch.TRIES", 2)
    keep(places, okd_pair.CONFIGURATION.decode())
    for _ in range(4):
        keep(places, numbered("one other cluster"))
    assert verdicts(verify(places, file))["keys"] == "PASS"


def test_an_okd_keyring_is_not_taken_for_that_of_a_hosted_cluster(places, tmp_path):
    """Real kube-apiserver's data, encrypted under a key whose name a keyring of OKD has too."""
    path = fixtures.write("kube-aescbc", tmp_path)
    keep(places, real("kube-aescbc-rotation"))
    done = verify(places, path, expect=3)
    assert verdicts(done)["keys"] == "FAIL"
    keep(places, real("kube-aescbc"))
    assert verdicts(verify(places, path))["keys"] == "PASS"


def test_a_keyring_that_cannot_be_opened_is_told(places, file):
    keep(places, okd_pair.CONFIGURATION.decode())
    [path] = places.files("keys", ".zst.age")
    shutil.copy(path, path.with_suffix(".spare"))
    path.write_bytes(path.read_bytes()[:-1])
    done = verify(places, file, expect=3)
    assert verdicts(done)["keys"] == "FAIL"
    assert "damaged" in detail(done, "keys") or "in the store" in detail(done, "keys")
