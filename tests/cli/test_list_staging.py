"""`backstay list --staging`: restore objects that are still there."""

import shlex
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from backstay.clock import SystemClock
from backstay.repo.name import BackupId
from backstay.repo.staged import StagedName
from backstay.repo.url import open_store
from kit import process, s3
from kit.cli import Cli, environment

EXPIRED = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = datetime(2099, 1, 2, 3, 4, 5, tzinfo=UTC)
PROD = BackupId.parse("clusters.prod/20261120T231000Z-r2001-k3f9")
TEST = BackupId.parse("clusters.test/20261121T231000Z-r7-a1b2")


@pytest.fixture
def home(tmp_path, server):
    """The program, and a bucket; no etcd, and no repository."""
    folder = tmp_path / "home"
    folder.mkdir()
    url = f"s3://{s3.BUCKET}/{tmp_path.name}"
    return Cli(folder, server.environment | {"BACKSTAY_REPO": url})


@pytest.fixture
def put(home):
    """Put a restore object into the place beside the repository; gives its path."""
    with environment(home.variables):
        store = open_store(f"{home.variables['BACKSTAY_REPO']}.staging")

    def one(backup, expires, size=1000):
        path = StagedName.new(backup, expires).path
        store.put_new(path, bytes(size))
        return path

    return one


def test_objects_beside_the_repository_are_listed_and_expired_ones_are_marked(home, put, server):
    old, new = put(PROD, EXPIRED), put(TEST, LATER, 3 << 20)
    done = home("list", "--staging")
    heading, first, second = done.out.splitlines()
    assert heading.split() == ["BACKUP", "EXPIRES", "STATE", "AGE", "SIZE", "PATH"]
    assert [str(PROD), "2020-01-02", "03:04:05Z", "EXPIRED"] == first.split()[:4]
    assert "in use" in second
    assert "3.0 MiB" in second
    assert (first.split()[-1], second.split()[-1]) == (old, new)
    [command] = [line for line in done.err.splitlines() if "aws s3 rm" in line]
    assert shlex.split(command) == [
        *("aws", "s3", "rm", f"{home.variables['BACKSTAY_REPO']}.staging/{old}"),
        *("--endpoint-url", server.endpoint),
    ]


def test_the_document(home, put):
    old, new = put(PROD, EXPIRED), put(TEST, LATER)
    found = home("list", "--staging", "--json").json
    assert [(one["path"], one["expired"]) for one in found] == [(old, True), (new, False)]
    assert found[0].pop("written")[:2] == "20"
    assert found[0] == {
        "path": old,
        "url": f"{home.variables['BACKSTAY_REPO']}.staging/{old}",
        "cluster": "clusters.prod",
        "backup": str(PROD),
        "size": 1000,
        "expires": "2020-01-02T03:04:05+00:00",
        "expired": True,
    }
    assert home("list", "--staging", "--cluster", "clusters.test", "--json").json == found[1:]


def test_a_place_that_is_named_needs_no_repository(home, put):
    path = put(PROD, LATER)
    url = f"{home.variables.pop('BACKSTAY_REPO')}.staging"
    for words in (("--staging", url), (f"--staging={url}",)):
        assert [one["path"] for one in home("list", *words, "--json").json] == [path]
    assert "--repo" in home("list", "--staging", expect=2).err
    assert "--repo" in home("list", expect=2).err


def test_nothing_there(home):
    assert home("list", "--staging", "--json").json == []
    done = home("list", "--staging")
    assert done.out.startswith("BACKUP")
    assert "aws" not in done.err


def test_a_directory_has_no_staging_place(home, tmp_path):
    for words in (["--staging"], ["--staging", f"file://{tmp_path}/x"]):
        done = home("list", *words, BACKSTAY_REPO=f"file://{tmp_path}/repo", expect=5)
        assert "--staging s3://" in done.err


def test_the_repository_and_the_staging_place_do_not_see_each_other(home, put):
    home("init", "--no-encryption")
    put(PROD, EXPIRED)
    assert home("list", "--json").json == []
    assert home("list", "--json", "--staging", home.variables["BACKSTAY_REPO"]).json == []


SCRIPT = """
import os, sys, time
from datetime import UTC, datetime
from backstay.clock import SystemClock
from backstay.repo.name import BackupId
from backstay.repo.staging import Staging
from backstay.repo.url import open_store

def fill(sink):
    for number in range(40):
        sink.write(os.urandom(1 << 20))
    print("half", flush=True)
    time.sleep(60)

Staging(open_store(sys.argv[1]), SystemClock()).stage(
    BackupId.parse(sys.argv[2]), fill, expires=datetime(2099, 1, 1, tzinfo=UTC))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_promise_1_what_is_killed_in_the_middle_is_not_listed(home, number):
    url = f"{home.variables['BACKSTAY_REPO']}.staging"
    running = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, url, str(PROD)],
        env=process.environment(home.variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with running:
        try:
            assert running.stdout.readline() == b"half\n"
        finally:
            running.send_signal(number)
    assert home("list", "--staging", "--json").json == []


def test_promise_5_no_secret_is_in_what_is_said(home, put):
    put(PROD, SystemClock().now() + timedelta(hours=1))
    for words in (["--json"], ["--debug"], ["--log-format", "json"]):
        done = home("list", "--staging", *words)
        said = done.out + done.err
        assert home.variables["AWS_SECRET_ACCESS_KEY"] not in said
        assert home.variables["AWS_ACCESS_KEY_ID"] not in said
        assert "X-Amz" not in said
