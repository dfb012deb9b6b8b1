"""What is published is on the disk before it has its name, and the name is right after."""

from pathlib import Path

import pytest

from kit.scenes import scene
from kit.synced import Call, published, traced, unsynced


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with scene("etcd", tmp_path_factory.mktemp("etcd")) as place:
        yield place


@pytest.fixture(scope="module")
def okd(tmp_path_factory):
    with scene("okd", tmp_path_factory.mktemp("okd")) as place:
        yield place


@pytest.fixture(autouse=True)
def clean(request):
    yield
    for name in {"etcd", "okd"} & set(request.fixturenames):
        request.getfixturevalue(name).reset()


def hold(calls, folder, number):
    """All that a command gave names to was on the disk; without the fsyncs it would not be."""
    names = published(calls, folder)
    assert len(names) >= number, names
    assert unsynced(calls, folder) == []
    without = [call for call in calls if "sync" not in call.name]
    # Each misses what is in it, and its name.
    assert len(unsynced(without, folder)) >= 2 * number


def test_objects_and_the_manifest_of_a_backup(etcd):
    metrics = etcd.out / "backstay.prom"
    calls = traced(etcd.cli, (*etcd.backup, "--metrics-file", metrics))
    # The snapshot and the manifest; then the metrics.
    for folder in ("objects", "backups"):
        inside = etcd.folder / "data/clusters/prod" / folder
        assert published(calls, inside)
        assert unsynced(calls, inside) == []
        assert unsynced([c for c in calls if "sync" not in c.name], inside)
    objects, manifests = (
        next(n for n, call in enumerate(calls) if call.name == "linkat" and part in call.paths[-1])
        for part in ("/objects/", "/backups/")
    )
    assert objects < manifests
    hold(calls, etcd.out, 1)
    metrics.unlink()


def test_an_export(etcd):
    hold(traced(etcd.cli, etcd.words("export")), etcd.out, 1)


def test_a_data_directory(etcd):
    calls = traced(etcd.cli, etcd.words("restore"))
    hold(calls, etcd.out, 1)
    assert published(calls, etcd.out)[-1] == str(etcd.out / "restored")


def test_a_pair_that_is_restored(okd):
    calls = traced(okd.cli, okd.words("restore"))
    hold(calls, okd.out, 1)
    assert published(calls, okd.out)[-1] == str(okd.out / "restored")


def test_a_pair_that_is_written_into_a_directory(okd):
    calls = traced(okd.cli, (*okd.backup, "--output-dir", okd.out))
    names = [name.rpartition("/")[2] for name in published(calls, okd.out)]
    assert sum(name.startswith("snapshot_") for name in names) == 2
    hold(calls, okd.out, 3)


A, B = "/d/.part", "/d/file"


@pytest.mark.parametrize(
    ("calls", "number"),
    [
        ([("write", A), ("fsync", A), ("rename", A, B), ("fsync", "/d")], 0),
        ([("write", A), ("rename", A, B), ("fsync", "/d")], 1),
        ([("write", A), ("fsync", A), ("write", A), ("rename", A, B), ("fsync", "/d")], 1),
        ([("write", A), ("fsync", A), ("rename", A, B)], 1),
        ([("write", A), ("fsync", A), ("fsync", "/d"), ("rename", A, B)], 1),
        ([("write", "/d/x/y"), ("fsync", "/d/x/y"), ("rename", "/d/x", B), ("fsync", "/d")], 0),
        ([("write", "/d/x/y"), ("rename", "/d/x", B), ("fsync", "/d")], 1),
        ([("mkdir", "/d/x/y"), ("rename", "/d/x", B), ("fsync", "/d")], 1),
        ([("mkdir", "/d/x/y"), ("fsync", "/d/x"), ("rename", "/d/x", B), ("fsync", "/d")], 0),
    ],
)
def test_what_is_not_on_the_disk_is_found(calls, number):
    found = unsynced([Call(1, name, tuple(paths)) for name, *paths in calls], Path("/d"))
    assert len(found) == number, found
