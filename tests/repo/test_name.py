from datetime import UTC, datetime

import pytest

from backstay.errors import UsageError
from backstay.repo.name import BackupId, Run, check_cluster

AT = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)


@pytest.mark.parametrize("name", ["a", "0", "prod", "clusters.my-cluster", "a.b-c.0"])
def test_names_of_clusters(name):
    assert check_cluster(name) == name


@pytest.mark.parametrize("name", ["", "A", "-a", ".a", "a/b", "a..b", "a b", "ä", "a" * 300, "a\n"])
def test_what_is_no_name_of_a_cluster(name):
    with pytest.raises(UsageError, match="use a-z"):
        check_cluster(name)


def test_an_id_is_read_as_it_is_written():
    text = "prod/20261120T231000Z-r2001-k3f9"
    assert str(BackupId.parse(text)) == text
    assert BackupId.parse(text) == BackupId("prod", AT, 2001, "k3f9")


@pytest.mark.parametrize(
    "text",
    [
        "prod",
        "prod/",
        "/20261120T231000Z-r1-aaaa",
        "prod/20261120T231000Z-r1-aaa",
        "prod/20261120T231000Z-r1-AAAA",
        "prod/20261320T231000Z-r1-aaaa",
        "prod/20261120T231000Z-r-1-aaaa",
        "prod/20261120T231000Z-r1-aaaa/x",
        "prod/20261120T231000Z-r1-aaaa\n",
        "prod/" + "9" * 10_000,
    ],
)
def test_what_is_no_id(text):
    with pytest.raises(UsageError) as caught:
        BackupId.parse(text)
    assert len(str(caught.value)) < 600


def test_objects_and_manifest_of_a_run_share_time_and_random_part():
    run = Run.begin("prod", AT)
    assert run.folder == f"clusters/prod/objects/20261120T231000Z-{run.random}/"
    assert str(run.backup(7)) == f"prod/20261120T231000Z-r7-{run.random}"


def test_runs_of_one_second_do_not_share_a_name():
    assert len({Run.begin("prod", AT).random for _ in range(100)}) > 95
