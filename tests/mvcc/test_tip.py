"""Fingerprints of a revision: from a file and from a watch they are the same."""

import hashlib

import pytest

from backstay.client.answer import Delete, Put
from backstay.client.etcd import Etcd as Client
from backstay.mvcc.keyvalue import parse_keyvalue
from backstay.mvcc.revision import element_key
from backstay.mvcc.snapshot import Snapshot
from backstay.mvcc.tip import ROUNDS, elements_at, fingerprint
from kit import snapfile
from kit.etcd import Etcd
from kit.start import sitecustomize

SALT = bytes(16)


@pytest.fixture
def opened(tmp_path):
    """Writes changes to a file, and opens it."""

    def make(changes, **more):
        path = tmp_path / "file.db"
        path.write_bytes(snapfile.snapshot(changes, **more))
        return Snapshot.open(path)

    return make


def test_the_elements_of_one_revision_are_read_and_no_others(opened):
    changes = [
        snapfile.put(2, b"a"),
        snapfile.put(3, b"b"),
        snapfile.delete(3, b"a", sub=1),
        snapfile.put(4, b"c"),
    ]
    with opened(changes) as snapshot:
        found = [elements_at(snapshot, revision) for revision in (1, 2, 3, 4, 5)]
        last = elements_at(snapshot, (1 << 63) - 1)
    assert found[0] == found[4] == last == ()
    assert found[2] == tuple((change.key, change.value) for change in changes[1:3])
    assert [len(one) for one in found] == [0, 1, 2, 1, 0]


@pytest.mark.parametrize("number", [1, 3000])
def test_elements_are_found_in_trees_of_any_depth(opened, number):
    changes = [snapfile.put(2 + n, b"k%d" % n, value=b"v" * 50) for n in range(number)]
    with opened(changes) as snapshot:
        for main in (2, 2 + number // 2, 1 + number):
            change = changes[main - 2]
            assert elements_at(snapshot, main) == ((change.key, change.value),)


def test_nothing_and_the_mark_of_a_restore_have_no_fingerprint(opened):
    with opened([snapfile.put(2, b"a"), snapfile.bump(1000)], scheduled=1000) as snapshot:
        assert fingerprint(elements_at(snapshot, 1000), SALT) == ""
        assert fingerprint(elements_at(snapshot, 999), SALT) == ""
        assert len(fingerprint(elements_at(snapshot, 2), SALT)) == 64


def test_each_byte_and_the_salt_count():
    element = (element_key(2, 0), b"value")
    others = [
        (element_key(2, 1), b"value"),
        (element_key(2, 0, tombstone=True), b"value"),
        (element_key(2, 0), b"valuf"),
        (element_key(2, 0) + b"v", b"alue"),
    ]
    found = {fingerprint([one], SALT) for one in (element, *others)}
    found |= {fingerprint([element] * 2, SALT), fingerprint([element], b"1" * 16)}
    assert len(found) == 7


def test_it_is_what_the_page_on_formats_says(monkeypatch):
    monkeypatch.setattr(hashlib, "pbkdf2_hmac", sitecustomize.pbkdf2_hmac)
    key, value = element_key(2, 0), b"value"
    inner = hashlib.sha256(b"\0\0\0\x11\0\0\0\x05" + key + value).digest()
    expected = hashlib.pbkdf2_hmac("sha256", inner, SALT, 262_144).hex()
    assert ROUNDS == 262_144
    assert fingerprint([(key, value)], SALT) == expected


def test_a_watch_tells_the_same_as_a_file(tmp_path):
    """So that a recorder can prove by its events what a backup has stored, and the other way."""
    with Etcd.start(tmp_path) as etcd, Client(etcd.access) as client:
        client.put(b"gone", b"1")
        at = client.txn([Put(b"a", b"1"), Delete(b"gone"), Put(b"b", b"2")])
        client.put(b"later", b"1")
        with client.watch(start_revision=at) as watch:
            told = next(iter(watch))
        etcd.ctl("snapshot", "save", str(tmp_path / "file.db"))
        with Snapshot.open(tmp_path / "file.db") as snapshot:
            expected = fingerprint(elements_at(snapshot, at), SALT)
    elements = []
    for change in told.changes:
        value = parse_keyvalue(change.keyvalue)
        if value.mod_revision == at:
            tombstone = change.delete
            key = element_key(at, len(elements), tombstone=tombstone)
            body = change.keyvalue
            if tombstone:
                body = b"\x0a" + bytes([len(value.key)]) + value.key
            elements.append((key, body))
    assert len(elements) == 3
    assert fingerprint(elements, SALT) == expected
