"""Imports that are cut short: what is listed is whole, the rest is swept, a second run ends it."""

import os

import pytest

from backstay.clock import SystemClock
from backstay.errors import BackstayError
from backstay.flows.partner import Partner
from backstay.kinds.foreign.scan import scan
from backstay.kinds.foreign.take import Fate, Importer, Options
from backstay.repo.catalogue import Repository
from backstay.report import Report, Verdict
from kit import okd_pair
from kit.faulty_store import Fault, FaultyStore


@pytest.fixture
def folder(tmp_path, okd_data):
    okd_pair.write_pair(tmp_path / "pair", okd_data)
    return tmp_path / "pair"


def importer(places, folder, data=None, keys=None):
    return Importer(
        repository=data or places.data,
        keys=keys or places.keys,
        options=Options(directory=folder, spool_dir=places.root / "spool"),
        clock=SystemClock(),
        report=Report(),
    )


def is_whole(places, entry):
    """Whether snapshot and archive of a backup that is listed are there."""
    partner = Partner(entry.manifest, lambda: places.keys, places.identities, places.root / "spool")
    return partner.ask(Report()).verdict is Verdict.PASS and not entry.failed


@pytest.mark.parametrize("which", ["data", "keys"])
@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.ERROR])
def test_promise_1_whatever_fails_a_pair_is_listed_whole_or_not_at_all(
    places, folder, which, fault
):
    number, done = 0, False
    while not done:
        number += 1
        before = len(places.data.backups())
        real = getattr(places, which)
        store = FaultyStore(real.store, {number: fault})
        try:
            [one] = importer(places, folder, **{which: Repository(store, real.config)}).take_all(
                scan(folder)
            )
            done = len(store.operations) < number
        except BackstayError:
            pass
        for entry in places.data.backups()[before:]:
            assert is_whole(places, entry)
            # Make room for the next run, which would find it there already.
            manifest = entry.manifest
            place = f"clusters/{manifest.cluster}/backups/{manifest.name.name}.json"
            places.data.store.delete(place)
    assert number > 5
    assert one.fate is Fate.IMPORTED
    assert not list((places.root / "spool").iterdir())


def test_what_dead_imports_left_is_swept_in_both_places(places, folder):
    real = places.data
    counted = FaultyStore(real.store)
    taken = list(
        importer(places, folder, data=Repository(counted, real.config)).take_all(scan(folder))
    )
    manifest = taken[0].manifest
    places.data.store.delete(f"clusters/{manifest.cluster}/backups/{manifest.name.name}.json")
    for path in (*places.files("data"), *places.files("keys")):
        then = path.stat().st_mtime - 25 * 3600
        os.utime(path, (then, then))
    [one] = importer(places, folder).take_all(scan(folder))
    assert one.fate is Fate.IMPORTED
    assert len(places.files("keys")) == 3
    assert all(one.manifest.name.run in path.name for path in places.files("keys"))
    assert len(places.files("data", ".zst.age")) == 1
