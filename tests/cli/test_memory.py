"""Memory of its own stays bounded, however large the snapshot is; mapped pages are the file's."""

import os
import re
import time
from pathlib import Path

import pytest

from backstay.client.etcd import Etcd as Client
from kit import process
from kit.cli import etcd_variables
from kit.etcd import Etcd

SIZE = 150 << 20
LIMIT = 200 << 10

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module", params=["large values", "small values"])
def large(request, tmp_path_factory):
    """An etcd with a file of some 150 MB."""
    value = 1 << 20 if request.param == "large values" else 400
    with Etcd.start(tmp_path_factory.mktemp("large")) as etcd:
        with Client(etcd.access) as client:
            fill(client, value)
        yield etcd


def fill(client, value):
    from backstay.client.answer import Put

    each = max(1, min(100, (1 << 20) // value))
    for start in range(0, SIZE // value, each):
        client.txn([Put(b"key/%08d" % n, os.urandom(value)) for n in range(start, start + each)])


def peak(cli, *words):
    """Run; gives the highest RssAnon that was seen, in KiB."""
    running = process.start(words, cli.folder, cli.variables, stdout=None, stderr=None)
    status, highest = Path(f"/proc/{running.pid}/status"), 0
    while running.poll() is None:
        found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text())
        highest = max(highest, int(found[1]) if found else 0)
        time.sleep(0.01)
    assert running.returncode == 0
    return highest


def test_no_command_takes_more_than_it_may(cli, large, identity, tmp_path):
    cli.variables |= etcd_variables(large, tmp_path / "large-pki")
    found = {
        "backup": peak(cli, "backup", "etcd", "--cluster", "prod"),
        "verify": peak(cli, "verify", "prod/latest", "--read-data"),
        "export": peak(cli, "export", "prod/latest", "-o", "copy.db"),
        "bumped export": peak(
            cli,
            *("export", "copy.db", "-o", "bumped.db"),
            *("--bump-revision", "1000000", "--mark-compacted"),
        ),
        "verify file": peak(cli, "verify", "copy.db"),
        "restore": peak(cli, "restore", "etcd", "copy.db", "--data-dir", "data"),
    }
    print({name: f"{kib >> 10} MiB" for name, kib in found.items()})  # noqa: T201 - for people
    assert max(found.values()) < LIMIT
    assert (cli.folder / "copy.db").stat().st_size > SIZE
