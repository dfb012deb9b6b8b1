"""What can be restored, and what can't: pure decisions, and what they cost."""

from datetime import UTC, datetime

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.flows.timeline import Point, look, windows_of
from backstay.mvcc.delta import Position
from backstay.mvcc.deltawriter import DeltaWriter, Origin
from backstay.repo.catalogue import Repository
from backstay.repo.delta import put_delta
from backstay.repo.roll import Stretch, roll_up
from kit.etcd import Etcd
from kit.faulty_store import FaultyStore

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def point(first, revision, state="verified"):
    return Point(f"prod/r{revision}", "etcd", first, revision, NOW, state, None)


def stretch(begin, end, sub=0):
    return Stretch(
        lineage="a" * 16, begin=Position(begin), end=Position(end, sub), first=100, last=200
    )


def spans(points, stretches):
    return [(one.first, one.last) for one in windows_of(points, stretches)]


@pytest.mark.parametrize(
    ("points", "stretches", "expected"),
    [
        ([point(5, 10)], [], [(5, 10)]),
        ([point(5, 10)], [stretch(11, 21)], [(5, 20)]),
        ([point(5, 10)], [stretch(8, 21)], [(5, 20)]),
        # The last revision has not come whole.
        ([point(5, 10)], [stretch(11, 21, 3)], [(5, 20)]),
        # A hole of one revision.
        ([point(5, 10)], [stretch(12, 21)], [(5, 10)]),
        ([point(5, 10), point(15, 30)], [stretch(11, 14)], [(5, 13), (15, 30)]),
        ([point(5, 10), point(15, 30)], [stretch(11, 15)], [(5, 30)]),
        ([point(5, 10), point(8, 30, "FAILED")], [], [(5, 10)]),
        ([point(20, 30, "FAILED")], [stretch(31, 40)], []),
        ([point(5, 10), point(7, 12)], [stretch(11, 21)], [(5, 20)]),
    ],
)
def test_windows_are_what_can_be_restored_and_nothing_else(points, stretches, expected):
    assert spans(points, stretches) == expected


def test_many_deltas_cost_as_few_requests_as_a_few(bench, tmp_path):
    with Etcd.start(tmp_path / "etcd") as etcd, Client(etcd.access) as client:
        base = client.put(b"k", b"v")
        manifest = bench.back_up_by(client)
    lineage = manifest.snapshots[0].lineage

    def record(first, number):
        for revision in range(first, first + number):
            writer = DeltaWriter(Origin("prod", lineage, "w"), Position(revision))
            writer.put(revision, 0, b"\n\x01k")
            writer.mark(revision, 1_795_000_000_000 + revision)
            put_delta(bench.repository, writer.finish())

    def requests():
        store = FaultyStore(bench.store)
        (life,) = look(Repository(store, bench.repository.config), "prod").lives
        return life.windows[0], len(store.operations)

    record(base + 1, 5)
    window, few = requests()
    assert window.last == base + 5
    record(base + 6, 60)
    assert roll_up(bench.repository, "prod", lineage, least=10) == 1
    record(base + 66, 3)
    window, many = requests()
    assert (window.last, window.deltas) == (base + 68, 68)
    assert many == few <= 8
