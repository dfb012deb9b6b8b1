"""One bit flipped, anywhere: what may be said of it then, exactly.

Of a file whose SHA-256 at the end is as it was: it FAILs, always.

Of a file whose SHA-256 was made new, so that only what is inside can tell: either it does not
pass, or it can be read, and then it holds every key and value of the original and all figures
that a manifest has are equal (the bit was in bytes that nobody uses), or what it holds differs and
so do the figures that a manifest has: a backup by its ID fails. What it holds is read here, by code
that shares nothing with the program's.

Of a stored object: verify of the backup FAILs, always. Of a manifest: it can't be read, verify does
not pass, or the bit was in a word that says nothing of the data.
"""

import resource
import time
from random import Random

import pytest

from backstay.cli.verdicts import exit_code
from backstay.clock import SystemClock
from backstay.flows.fetch import FileSubject
from backstay.flows.verify import verify_file
from backstay.mvcc.hashkv import compute_hashkv
from backstay.mvcc.snapshot import Snapshot
from backstay.mvcc.status import read_status
from backstay.repo.document import plain
from backstay.repo.manifest import parse_manifest
from backstay.report import Report
from kit import fixtures
from kit.boltbytes import fnv, with_trailer

PAGE = 4096
#: Seconds that one verify may take, on a machine that has other work.
PATIENCE = 20
#: Bytes that all of them together may need.
MEMORY = 200 << 20


# A reader of bolt files as simple as can be: it trusts what it reads.


def number(data, at, size=8):
    return int.from_bytes(data[at : at + size], "little")


def root_of(data):
    """The root bucket's page by the newer of the metas that are whole."""
    whole = [at for at in (16, PAGE + 16) if fnv(data[at : at + 56]) == number(data, at + 56)]
    return number(data, max(whole, key=lambda at: number(data, at + 48)) + 16)


def pairs(data, page, path=()):
    """All keys and values below a page, with their buckets; a bucket itself has no value."""
    yield from _pairs(data, data, page * PAGE, path)


def _pairs(data, part, at, path):
    flags, count = number(part, at + 8, 2), number(part, at + 10, 2)
    for index in range(count):
        element = at + 16 + 16 * index
        if flags & 1:
            yield from pairs(data, number(part, element + 8), path)
            continue
        kind, place, key_size, value_size = (
            number(part, element + 4 * word, 4) for word in range(4)
        )
        start = element + place
        key = bytes(part[start : start + key_size])
        value = bytes(part[start + key_size : start + key_size + value_size])
        if kind & 1:
            # The bucket itself: an empty one has a name, too.
            yield path, key, None
        if kind & 1 and number(value, 0):
            yield from pairs(data, number(value, 0), (*path, key))
        elif kind & 1:
            yield from _pairs(data, value, 16, (*path, key))
        else:
            yield path, key, value


def content(data):
    return list(pairs(data, root_of(data)))


# The file


class Original:
    """A snapshot as etcd made it, and what is known of it."""

    def __init__(self, name):
        self.data = fixtures.data(name)
        self.image = self.data[:-32]
        self.content = content(self.image)
        assert len(self.content) > 100

    def figures(self, path):
        with Snapshot.open(path) as snapshot:
            return read_status(snapshot), compute_hashkv(snapshot)


def places(image, random, how_many):
    """Bits all over a file: half of them in the first bytes of a page, where its structure is."""
    pages = len(image) // PAGE
    for index in range(how_many):
        if index % 2:
            yield random.randrange(len(image) * 8)
        else:
            yield (random.randrange(pages) * PAGE + random.randrange(200)) * 8 + index // 2 % 8


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def verdict(path, data):
    """What verify of a file with these bytes ends with; within bounded time."""
    path.write_bytes(data)
    began = time.monotonic()
    verified = verify_file(FileSubject(path), clock=SystemClock(), report=Report())
    assert time.monotonic() - began < PATIENCE
    return exit_code(verified.checks)


def judge(original, path, bit):
    """Flip one bit; gives what came of it: `found`, `unused` or `figures`."""
    if bit % 7 == 0:
        assert verdict(path, flipped(original.data, bit % (len(original.data) * 8))) == 3, bit
    data = flipped(original.image, bit)
    code = verdict(path, with_trailer(data))
    if code != 0:
        assert code in {3, 4}
        return "found"
    same = content(data) == original.content
    assert (original.figures(path) == original.known) == same, bit
    return "unused" if same else "figures"


def judge_many(name, path, seed, how_many):
    original = Original(name)
    assert verdict(path, original.data) == 0
    original.known = original.figures(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    random = Random(seed)
    found = [judge(original, path, bit) for bit in places(original.image, random, how_many)]
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) << 10 < MEMORY
    return found


def test_the_simple_reader_reads_what_etcd_wrote(tmp_path):
    original = Original("etcd3516-plain")
    keys = {key for path, key, _ in original.content if path == (b"key",)}
    with Snapshot.open(fixtures.write("etcd3516-plain", tmp_path)) as snapshot:
        assert keys == {key for key, _ in snapshot.bucket(b"key").items()}
        values = [value for _, _, value in original.content if value is not None]
        assert read_status(snapshot).total_keys == len(values)


@pytest.mark.parametrize("seed", range(2))
def test_no_flipped_bit_of_a_file_passes_for_the_original(tmp_path, seed):
    found = judge_many("valid", tmp_path / "snapshot.db", seed, 80)
    # Otherwise this would be a test of nothing: each of the three does come.
    assert set(found) == {"found", "unused", "figures"}


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    ("name", "how_many"), [("valid", 700), ("kube-secretbox", 200), ("etcd36-plain", 100)]
)
def test_ten_thousand_flipped_bits(tmp_path, name, how_many, seed):
    judge_many(name, tmp_path / "snapshot.db", 1000 + seed, how_many)


# The backup

BACKUP = ("backup", "etcd", "--cluster", "prod")
#: What may be wrong of a manifest without saying anything wrong of the data.
SAID = {
    *("checks", "backstay_version", "taken_at", "seconds", "recipients", "format", "kind", "okd"),
    *("hosted", "keyring", "base", "requires"),
}
#: The same of a snapshot in it: whose it was and what members said then. The file has none of it.
SAID_OF_SNAPSHOT = {
    *("name", "lineage", "etcd_version", "cluster_id", "raft_term", "raft_index"),
    *("predecessor", "root", "lineage_reason", "members"),
}


def data_of(manifest):
    """What a manifest says of the data."""
    told = {name: value for name, value in plain(manifest).items() if name not in SAID}
    told["snapshots"] = [
        {name: value for name, value in snapshot.items() if name not in SAID_OF_SNAPSHOT}
        for snapshot in told["snapshots"]
    ]
    told["objects"] = [
        {name: value for name, value in item.items() if name != "role"} for item in told["objects"]
    ]
    return told


#: A flipped bit in one of these names makes a field that is not known, and the figure is not told.
OPTIONAL = ("live_keys", "live_size", "tip")


def with_what_may_be_missing(data, told):
    """Put in what a manifest may leave out, where it is left out."""
    for snapshot, original in zip(data["snapshots"], told["snapshots"], strict=True):
        snapshot.update({name: original[name] for name in OPTIONAL if snapshot[name] is None})
    return data


def verify_with(cli, path, data, backup):
    """Verify a backup while a file of the repository has other bytes."""
    before = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(data)
    try:
        return cli("verify", backup, "--read-data", expect=None).code
    finally:
        path.write_bytes(before)


def flip_objects(cli, file_repo, random, how_many):
    backup = cli(*BACKUP, "--json").json["id"]
    [path] = (file_repo / "clusters/prod/objects").rglob("*.age")
    data = path.read_bytes()
    for _ in range(how_many):
        bit = random.randrange(len(data) * 8)
        assert verify_with(cli, path, flipped(data, bit), backup) == 3, bit


def flip_manifests(cli, file_repo, random, how_many):
    backup = cli(*BACKUP, "--json").json["id"]
    [path] = (file_repo / "clusters/prod/backups").glob("*.json")
    data = path.read_bytes()
    told, passed = data_of(parse_manifest(data, "it")), 0
    for _ in range(how_many):
        bit = random.randrange(len(data) * 8)
        changed = flipped(data, bit)
        code = verify_with(cli, path, changed, backup)
        assert code in {0, 1, 3}, bit
        if code == 0:
            passed += 1
            assert with_what_may_be_missing(data_of(parse_manifest(changed, "it")), told) == told, (
                bit
            )
    return passed


def test_no_flipped_bit_of_a_stored_object_passes(cli, file_repo, identity):
    flip_objects(cli, file_repo, Random(1), 12)


def test_a_flipped_bit_of_a_manifest_tells_nothing_wrong_of_the_data(cli, file_repo, identity):
    flip_manifests(cli, file_repo, Random(2), 40)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4))
def test_many_flipped_bits_of_a_repository(cli, file_repo, identity, seed):
    flip_objects(cli, file_repo, Random(100 + seed), 200)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4))
def test_many_flipped_bits_of_a_manifest(cli, file_repo, identity, seed):
    assert flip_manifests(cli, file_repo, Random(200 + seed), 300) > 0
