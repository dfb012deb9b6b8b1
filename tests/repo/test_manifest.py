import json
import subprocess
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import FormatError
from backstay.repo.document import MAX_SIZE, encode
from backstay.repo.manifest import parse_manifest
from kit.manifests import manifest


def changed(**fields):
    document = json.loads(encode(manifest()))
    document.update(fields)
    return json.dumps(document).encode()


def test_a_manifest_comes_back_as_it_was_written():
    written = manifest()
    assert parse_manifest(encode(written), "m") == written


def test_it_has_the_fields_that_others_rely_on():
    document = json.loads(encode(manifest()))
    assert set(document) == {
        *("format", "requires", "repository", "id", "cluster", "kind", "revision", "taken_at"),
        "seconds",
        *("total_keys", "total_size", "hash", "hashkv", "snapshots", "objects", "recipients"),
        *("base", "needs", "keyring", "hosted", "okd", "checks", "backstay_version"),
    }
    assert set(document["snapshots"][0]) == {
        *("name", "lineage", "revision", "compact_revision", "etcd_version", "cluster_id"),
        *("raft_term", "raft_index", "hash", "total_keys", "total_size", "hashkv", "object"),
        *("predecessor", "root", "lineage_reason", "tip", "members", "live_keys", "live_size"),
    }
    assert set(document["objects"][0]) == {
        *("path", "role", "size", "sha256", "stored_size", "stored_sha256"),
    }
    assert set(document["checks"][0]) == {"name", "verdict", "detail", "seconds"}
    assert document["taken_at"] == "2026-11-20T23:10:00Z"
    assert document["checks"][0]["verdict"] == "PASS"


def test_unknown_fields_are_ignored():
    assert parse_manifest(changed(later="more"), "m").cluster == "prod"


@pytest.mark.parametrize(
    "fields", [{"requires": ["deltas"]}, {"format": 2}], ids=["requires", "format"]
)
def test_what_is_too_new_is_refused(fields):
    with pytest.raises(FormatError, match="update backstay"):
        parse_manifest(changed(**fields), "m")


@pytest.mark.parametrize(
    "fields",
    [
        {"revision": -1},
        {"revision": 1 << 63},
        {"total_size": 1.5},
        {"hash": 1 << 32},
        {"snapshots": []},
        {"objects": []},
        {"cluster": "../x"},
        {"cluster": "other"},
        {"id": "prod/20261340T000000Z-r1-aaaa"},
        {"id": "prod/x"},
        {"taken_at": "yesterday"},
        {"taken_at": "2026-11-20T23:10:00"},
        {"checks": [{"name": "a", "verdict": "MAYBE", "detail": "", "seconds": 0}]},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(fields):
    with pytest.raises(FormatError):
        parse_manifest(changed(**fields), "m")


@pytest.mark.parametrize(
    "path",
    [
        "backstay.json",
        "clusters/other/objects/x/snapshot",
        "clusters/prod/objects/../../other/objects/x",
        "clusters/prod/objects/./x",
        "clusters/prod/objects//x",
        "/etc/passwd",
    ],
)
def test_objects_of_others_are_refused(path):
    document = json.loads(encode(manifest()))
    document["objects"][0]["path"] = path
    document["snapshots"][0]["object"] = path
    with pytest.raises(FormatError, match="outside of its cluster"):
        parse_manifest(json.dumps(document).encode(), "m")


def test_a_snapshot_without_its_object_is_refused():
    document = json.loads(encode(manifest()))
    document["snapshots"][0]["object"] += "x"
    with pytest.raises(FormatError, match="has no object"):
        parse_manifest(json.dumps(document).encode(), "m")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b'{"format": 1, "format": 1}',
        b"[" * 100_000,
        b'{"format":' * 50_000,
        b"9" * 10_000,
        b" " * (MAX_SIZE + 1),
    ],
    ids=["empty", "list", "null", "binary", "twice", "deep", "deeper", "number", "large"],
)
def test_what_is_no_document_is_refused(data):
    with pytest.raises(FormatError):
        parse_manifest(data, "m")


def test_a_key_that_stands_twice_deep_inside_is_refused():
    data = encode(manifest()).replace(b'"role":', b'"role": "keys", "role":')
    with pytest.raises(FormatError, match="twice"):
        parse_manifest(data, "m")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_any_change_is_taken_or_refused_and_nothing_else(data):
    document = json.loads(encode(manifest()))
    place = document
    while isinstance(place, dict | list) and place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if data.draw(st.booleans()) or not isinstance(place[key], dict | list):
            place[key] = data.draw(JSON)
            break
        place = place[key]
    with suppress(FormatError):
        parse_manifest(json.dumps(document).encode(), "m")


#: Threads that read their first manifest at the same moment, in a process of their own.
TOGETHER = """
import sys, threading
sys.setswitchinterval(1e-7)
from backstay.repo.manifest import parse_manifest
data = open(sys.argv[1], "rb").read()
barrier = threading.Barrier(16)
def read():
    barrier.wait()
    parse_manifest(data, "m")
threads = [threading.Thread(target=read) for _ in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_many_threads_may_read_the_first_manifests_of_a_process(tmp_path):
    """msgspec crashed where two of them came to a type first."""
    path = tmp_path / "m.json"
    path.write_bytes(encode(manifest()))
    for _ in range(6):
        done = subprocess.run([sys.executable, "-c", TOGETHER, path], check=False)
        assert done.returncode == 0
