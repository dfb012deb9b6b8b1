"""Deltas in a repository, and the rolls that stand for many of them."""

from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pyrage
import pytest

from backstay.errors import BackstayError, DamagedError, FormatError, SealError
from backstay.mvcc.delta import MAX_REVISIONS, Position
from backstay.mvcc.deltawriter import DeltaWriter, Origin
from backstay.mvcc.revision import element_key
from backstay.repo.catalogue import Repository
from backstay.repo.config import Role, new_config
from backstay.repo.delta import check_fetched, fetch_delta, list_deltas, put_delta
from backstay.repo.deltaname import DeltaName, deltas_of
from backstay.repo.identity import Identities
from backstay.repo.roll import read_roll, recorded, roll_up, rolls_of
from backstay.repo.stores.file import FileStore
from kit import deltas
from kit.deltas import LINEAGE, ORIGIN
from kit.snapfile import keyvalue

NOW = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)
SECRET = b"a value that nobody must read"


class CountingStore(FileStore):
    """Counts the names that a LIST gives, as a store would by requests of a thousand."""

    requests = 0

    def list(self, prefix="", *, after=""):
        found = list(super().list(prefix, after=after))
        self.requests += max(1, -(-len(found) // 1000))
        return iter(found)


@pytest.fixture
def store(tmp_path):
    return CountingStore(tmp_path / "repo")


@pytest.fixture
def repository(store):
    return Repository.init(store, new_config(Role.DATA, [], {}, NOW))


def puts(begin, end, value=SECRET):
    return [
        (element_key(main, 0), keyvalue(b"k", main, main, 1, value)) for main in range(begin, end)
    ]


def delta(begin, end, *, origin=ORIGIN):
    return deltas.written(puts(begin, end), (begin,), origin=origin)


def idle(begin, at):
    writer = DeltaWriter(ORIGIN, Position(begin))
    writer.mark(begin - 1, at)
    return writer.finish()


def fetched(repository, stored, identities=None):
    sink = BytesIO()
    fetch_delta(repository, stored, sink, identities)
    found = deltas.read(sink.getvalue(), stored.path)
    check_fetched(stored, found)
    return deltas.changes(sink.getvalue())


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_delta_is_put_listed_and_fetched(tmp_path, store, encrypted):
    key = pyrage.x25519.Identity.generate()
    recipients = [str(key.to_public())] if encrypted else []
    repository = Repository.init(store, new_config(Role.DATA, recipients, {}, NOW))
    put = put_delta(repository, delta(5, 15))
    (listed,) = list_deltas(repository, "prod", LINEAGE)
    assert listed == put
    assert (listed.begin, listed.end) == ((5, 0), (15, 0))
    assert listed.path.endswith(".zst.age" if encrypted else ".zst")
    raw = (Path(store.url.removeprefix("file://")) / listed.path).read_bytes()
    assert SECRET not in raw
    assert listed.stored_size == len(raw)
    identities = Identities((key,), "the key") if encrypted else None
    assert fetched(repository, listed, identities) == puts(5, 15)
    if encrypted:
        with pytest.raises(SealError):
            fetched(repository, listed)


def test_names_sort_as_the_history_does_and_say_what_a_plan_needs(repository):
    spans = [(1, 9), (9, 10), (10, 16), (16, 255), (255, 300), (1000, 70_000 - 5000)]
    for span in reversed(spans):
        put_delta(repository, delta(*span))
    found = list(list_deltas(repository, "prod", LINEAGE))
    assert [(one.begin.main, one.end.main) for one in found] == spans
    for one, (begin, end) in zip(found, spans, strict=True):
        assert one.name.first == deltas.at(begin) // 1000
        assert one.name.last == deltas.at(end - 1) // 1000
        assert DeltaName.parse(str(one.name)) == one.name


def test_deltas_of_the_same_changes_by_two_writers_have_two_names(repository):
    other = Origin("prod", LINEAGE, "w2")
    paths = {put_delta(repository, delta(5, 9, origin=one)).path for one in (ORIGIN, other)}
    assert len(paths) == 2


def test_lineages_and_clusters_are_never_listed_together(repository):
    put_delta(repository, delta(5, 9))
    put_delta(repository, delta(5, 9, origin=Origin("prod", "f" * 16, "w")))
    put_delta(repository, delta(5, 9, origin=Origin("test", LINEAGE, "w")))
    assert len(list(list_deltas(repository, "prod", LINEAGE))) == 1


def test_what_ends_before_a_revision_is_not_listed(repository):
    far = 10 * MAX_REVISIONS
    for begin in (5, far - MAX_REVISIONS, far - 10, far, far + 10):
        put_delta(repository, delta(begin, begin + 10))
    put_delta(repository, deltas.written(puts(far - 100, far + 5), (far - 100,)))
    found = [one.begin.main for one in list_deltas(repository, "prod", LINEAGE, since=far + 1)]
    assert found == [far - 100, far, far + 10]


def test_names_that_are_none_are_passed_over(repository):
    good = put_delta(repository, delta(5, 9))
    folder = deltas_of("prod", LINEAGE)
    name = good.path.rpartition("/")[2]
    for strange in (
        "README",
        name.replace(".zst", ".gz"),
        name.replace("0000000000000005.", "f000000000000005."),
        name.replace("0000000000000005.", "0000000000000000."),
        name.replace("0000000000000005.", "0000000000000019."),
        name.replace("0000000000000009.", "0000000000ffff09."),
        "x" + name,
    ):
        repository.store.put_new(folder + strange, b"")
    assert list(list_deltas(repository, "prod", LINEAGE)) == [good]


@pytest.mark.parametrize("what", ["cut", "longer", "another", "other lineage", "other size"])
def test_what_is_not_what_was_put_is_told(repository, store, what):
    stored = put_delta(repository, delta(5, 9))
    root = Path(store.url.removeprefix("file://"))
    data = (root / stored.path).read_bytes()
    if what == "cut":
        data = data[:-9]
    elif what == "longer":
        data += b"more"
    elif what == "another":
        data = (root / put_delta(repository, delta(4, 9)).path).read_bytes()
    elif what == "other lineage":
        stored = replace(stored, lineage="f" * 16)
    else:
        stored = replace(stored, name=replace(stored.name, size=stored.name.size - 1))
    (root / stored.path).write_bytes(data)
    with pytest.raises(DamagedError):
        fetched(repository, replace(stored, stored_size=len(data)))


def test_a_bomb_is_not_unpacked(repository, store):
    stored = put_delta(repository, delta(5, 9, origin=ORIGIN))
    bomb = put_delta(repository, deltas.written(puts(9, 10, bytes(50 << 20)), (9,)))
    root = Path(store.url.removeprefix("file://"))
    (root / stored.path).write_bytes(data := (root / bomb.path).read_bytes())
    sink = BytesIO()
    with pytest.raises(DamagedError, match="unpacks to more"):
        fetch_delta(repository, replace(stored, stored_size=len(data)), sink, None)
    assert len(sink.getvalue()) <= stored.name.size


def spans(repository, lineages=(LINEAGE,)):
    found = recorded(repository, "prod", lineages)
    return {
        lineage: [(one.begin.main, one.end.main, one.deltas) for one in stretches]
        for lineage, stretches in found.items()
    }


def test_what_is_recorded_is_known_from_names_alone(repository):
    for begin, end in [(5, 9), (9, 12), (11, 15), (20, 21)]:
        put_delta(repository, delta(begin, end))
    assert spans(repository) == {LINEAGE: [(5, 15, 3), (20, 21, 1)]}


def test_a_month_of_deltas_is_a_few_requests(repository, store):
    folder = Path(store.url.removeprefix("file://"), deltas_of("prod", LINEAGE))
    folder.mkdir(parents=True)
    number = 5500
    for index in range(number):
        name = DeltaName(Position(5 + index), Position(6 + index), index, index + 1, 100, "0" * 16)
        (folder / f"{name}.zst").touch()
        if index in {1700, 4000}:
            roll_up(repository, "prod", LINEAGE)
    roll_up(repository, "prod", LINEAGE)
    store.requests = 0
    assert spans(repository) == {LINEAGE: [(5, 5 + number, number)]}
    assert store.requests <= 3 < number / 1000
    store.requests = 0
    assert spans(repository, ()) == {LINEAGE: [(5, 5 + number, number)]}


def test_rolls_never_reach_over_a_hole(repository):
    for begin, end in [(5, 9), (9, 12), (13, 15), (15, 16)]:
        put_delta(repository, delta(begin, end))
    assert roll_up(repository, "prod", LINEAGE, least=10) == 1
    assert roll_up(repository, "prod", LINEAGE, least=1) == 1
    assert roll_up(repository, "prod", LINEAGE, least=1) == 0
    assert spans(repository) == {LINEAGE: [(5, 12, 2), (13, 16, 2)]}
    put_delta(repository, delta(16, 18))
    assert spans(repository) == {LINEAGE: [(5, 12, 2), (13, 18, 3)]}


def test_that_nothing_happened_is_known_after_a_roll_too(repository):
    put_delta(repository, delta(5, 9))
    roll_up(repository, "prod", LINEAGE, least=1)
    put_delta(repository, idle(9, deltas.at(5000)))
    (stretch,) = recorded(repository, "prod", ())[LINEAGE]
    assert stretch.last == deltas.at(5000) // 1000
    assert stretch.deltas == 2
    assert roll_up(repository, "prod", LINEAGE, least=1) == 1
    (stretch,) = recorded(repository, "prod", ())[LINEAGE]
    assert (stretch.last, stretch.deltas) == (deltas.at(5000) // 1000, 2)


def test_a_roll_names_its_deltas(repository):
    put = [put_delta(repository, delta(begin, begin + 4)) for begin in (5, 9)]
    roll_up(repository, "prod", LINEAGE, least=1)
    (info,) = repository.store.list(rolls_of("prod"))
    roll = read_roll(repository, info.path)
    folder = deltas_of("prod", LINEAGE)
    assert [(folder + name, size) for name, size in roll.deltas] == [
        (one.path, one.stored_size) for one in put
    ]
    repository.store.put_new(moved := info.path.replace("prod", "test"), b"{}")
    with pytest.raises(FormatError):
        read_roll(repository, moved)


def test_strange_names_among_rolls_are_passed_over(repository):
    for name in ("README", "x.json", "-".join(["0" * 16] * 5) + ".json"):
        repository.store.put_new(f"{rolls_of('prod', LINEAGE)}{name}", b"")
    assert spans(repository) == {LINEAGE: []}


def test_a_cluster_of_no_name_is_refused(repository):
    with pytest.raises(BackstayError):
        list(list_deltas(repository, "../x", LINEAGE))
