"""Clusters that shrink: the backup is good, the change is told, and the older one stays."""

import pytest

from backstay.client.answer import Put
from backstay.client.etcd import Etcd as Client
from backstay.clock import SystemClock
from backstay.flows import metrics
from backstay.repo.pin import unpin
from backstay.report import Said, Verdict
from kit.etcd import Etcd
from kit.faulty_store import TOLD, Fault, FaultyStore

CLOCK = SystemClock()


@pytest.fixture
def client(tmp_path):
    """Of an etcd of its own, with a hundred keys."""
    with Etcd.start(tmp_path / "server") as server, Client(server.access) as client:
        for _ in range(3):
            client.txn([Put(b"key/%02d" % n, b"value" * 50) for n in range(100)])
        yield client


def checks(made):
    return {check.name: check for check in made.checks}


def pins(bench):
    return [info.path for info in bench.store.list("clusters/prod/pins")]


def test_the_first_backup_has_nothing_to_be_compared_with(bench, client):
    made = bench.back_up_by(client)
    assert "change" not in checks(made)
    assert (made.snapshots[0].live_keys, pins(bench)) == (100, [])
    # A hundred of: revision, key, value and the fields of a KeyValue.
    assert 100 * 250 < made.snapshots[0].live_size < 100 * 300


def test_promise_7_an_emptied_cluster_pins_the_backup_before_it_once(bench, client):
    full = bench.back_up_by(client)
    client.delete(b"key/", b"key0")
    emptied = bench.back_up_by(client)
    found = checks(emptied)["change"]
    assert found.verdict is Verdict.COULD_NOT_VERIFY
    assert "0 keys, 100 before" in found.detail
    assert f"{full.id} is pinned until somebody runs `backstay unpin {full.id}`" in found.detail
    assert any(e.warning and "0 keys" in e.text for e in bench.said if isinstance(e, Said))
    [path] = pins(bench)
    assert path.startswith(f"clusters/prod/pins/{full.name.name}/")
    # It is a good backup all the same, and the next one is compared with it.
    assert bench.repository.find("prod/latest-verified").manifest == emptied
    quiet = bench.back_up_by(client)
    assert checks(quiet)["change"].verdict is Verdict.PASS
    assert pins(bench) == [path]


def measured(bench):
    return {
        (one.family, one.labels[2:]): one.value
        for one in metrics.collect(bench.repository, "prod", CLOCK)
    }


def test_metrics_tell_of_a_change_until_somebody_unpins_what_was_kept(bench, client):
    full = bench.back_up_by(client)
    assert measured(bench)[metrics.KEPT, ()] == 0
    assert (metrics.LAST_CHANGE, ("pass",)) not in measured(bench)
    client.delete(b"key/", b"key0")
    bench.back_up_by(client)
    found = measured(bench)
    assert found[metrics.LAST_CHANGE, ("could_not_verify",)] == 1
    assert found[metrics.KEPT, ()] == found[metrics.PINNED, ()] == 1
    bench.back_up_by(client)
    found = measured(bench)
    assert found[metrics.LAST_CHANGE, ("could_not_verify",)] == 0
    assert found[metrics.LAST_CHANGE, ("pass",)] == 1
    assert found[metrics.KEPT, ()] == 1
    unpin(bench.store, bench.repository.find(full.id).pins)
    assert measured(bench)[metrics.KEPT, ()] == 0


def test_a_compaction_is_no_change(bench, client):
    bench.back_up_by(client)
    for _ in range(10):
        head = client.txn([Put(b"key/%02d" % n, b"value" * 50) for n in range(100)])
    client.compact(head)
    later = bench.back_up_by(client)
    assert checks(later)["change"].verdict is Verdict.PASS
    assert later.snapshots[0].live_keys == 100
    assert pins(bench) == []


def test_promise_7_the_verified_one_is_pinned_where_a_later_one_was_never_verified(bench, client):
    verified = bench.back_up_by(client)
    deaf = FaultyStore(bench.store, lambda o: Fault.REFUSE if o.name == "stream" else None)
    unproven = bench.back_up_by(client, deaf)
    assert [entry.verified for entry in bench.listed] == [True, False]
    client.delete(b"key/", b"key0")
    found = checks(bench.back_up_by(client))["change"]
    assert verified.id in found.detail
    assert unproven.id not in found.detail
    [path] = pins(bench)
    assert verified.name.name in path


def test_a_pin_that_is_refused_is_told(bench, client):
    bench.back_up_by(client)
    client.delete(b"key/", b"key0")
    deny = FaultyStore(
        bench.store, lambda o: Fault.REFUSE if o.name == "put_new" and "/pins/" in o.path else None
    )
    found = checks(bench.back_up_by(client, deny))["change"]
    assert found.verdict is Verdict.COULD_NOT_VERIFY
    assert "could NOT be pinned" in found.detail


@pytest.mark.parametrize("fault", TOLD, ids=lambda fault: fault.name)
def test_promise_4_what_could_not_be_looked_back_at_is_told_and_the_backup_is_made(
    bench, client, fault
):
    first = bench.back_up_by(client)
    store = FaultyStore(bench.store)
    bench.back_up_by(client, store)
    before = store.names.index("writer")
    assert before > 2
    for number in range(1, before + 1):
        made = bench.back_up_by(client, FaultyStore(bench.store, {number: fault}))
        assert bench.listed[-1].verified
        assert checks(made)["change"].verdict is Verdict.COULD_NOT_VERIFY
        assert made.snapshots[0].lineage != first.snapshots[0].lineage
    last = bench.back_up_by(client)
    assert checks(last)["change"].verdict is Verdict.PASS
