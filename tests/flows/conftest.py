import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from backstay.client.answer import Put
from backstay.client.etcd import Etcd as Client
from backstay.clock import SystemClock
from backstay.flows.backup import NAME, Options, Part, backup
from backstay.flows.fetch import BackupSubject
from backstay.flows.verify import verify_backup
from backstay.kinds.etcd import EtcdSource
from backstay.repo.catalogue import Repository
from backstay.repo.config import Role, new_config
from backstay.repo.entry import Entry
from backstay.repo.identity import Identities, generate
from backstay.repo.stores.file import FileStore
from backstay.report import Report
from kit.etcd import Etcd, EtcdCluster

CLOCK = SystemClock()
SIZE = 160_000


def fill(access):
    """Values that do not compress, so that an upload takes several writes; and some history."""
    with Client(access) as client:
        for number in range(0, SIZE, 40_000):
            client.put(b"fill/%d" % number, os.urandom(40_000))
        client.txn([Put(b"key/%d" % n, b"value") for n in range(50)])
        client.compact(client.put(b"last", b"value") - 2)


@pytest.fixture(scope="session")
def etcd(tmp_path_factory):
    """A real etcd over mTLS."""
    with Etcd.start(tmp_path_factory.mktemp("etcd")) as etcd:
        fill(etcd.access)
        yield etcd


@pytest.fixture(scope="session")
def client(etcd):
    """A client of it that stays open."""
    with Client(etcd.access) as client:
        yield client


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Three real members."""
    with EtcdCluster.start(tmp_path_factory.mktemp("cluster"), 3) as cluster:
        fill(cluster.access)
        yield cluster


@dataclass
class Bench:
    """A repository in a directory, and what it takes to make and to prove backups in it."""

    store: FileStore
    repository: Repository
    identity: str
    spool: Path
    said: list

    @property
    def identities(self):
        """What opens the backups."""
        return Identities.parse(self.identity.encode(), "identity")

    def back_up(self, access, store=None, dialer=None, stall=1.0):
        """One backup, by the flow itself; `store` stands in for the real one."""
        timeouts = replace(access.timeouts, stall=stall)
        with Client(replace(access, timeouts=timeouts), dialer) as client:
            return self.back_up_by(client, store)

    def back_up_by(self, client, store=None, *listeners, clock=CLOCK, poller=None):
        """The same by a client that stays open: closing one takes a while."""
        part = Part(NAME, EtcdSource(client), poller)
        return self.back_up_part(part, store, *listeners, clock=clock)

    def back_up_part(self, part, store=None, *listeners, clock=CLOCK):
        """The same of any source."""
        used = Repository(store or self.store, self.repository.config)
        options = Options(cluster="prod", spool_dir=self.spool)
        report = Report(self.said.append, *listeners)
        return backup([part], used, options, clock=clock, report=report)

    @property
    def listed(self) -> list[Entry]:
        """What is listed; all of it can be read."""
        found = self.repository.backups()
        assert all(isinstance(entry, Entry) for entry in found), found
        return list(found)

    def prove(self, entry):
        """Read all of a backup that is listed; gives the verdicts by name."""
        subject = BackupSubject(
            self.repository, entry, entry.manifest.id, self.identities, self.spool
        )
        found = verify_backup(subject, read_data=True, clock=CLOCK, report=Report())
        return {check.name: check.verdict for check in found.checks}

    @property
    def objects(self) -> list[str]:
        """The sealed objects that are there, whoever names them."""
        return [info.path for info in self.store.list("clusters/prod/objects")]

    @property
    def files(self) -> list[Path]:
        """Everything in the repository's directory and in the spool's, hidden files too."""
        root = Path(self.store.url.removeprefix("file://"))
        return [p for top in (root, self.spool) for p in top.rglob("*") if p.is_file()]

    def assert_no_spool(self):
        """Nothing of a snapshot is left on the disk, with a name or without."""
        assert not list(self.spool.iterdir())
        for fd in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):  # closed meanwhile, by gRPC's own threads
                target = str(Path("/proc/self/fd", fd).readlink())
                assert not target.startswith(str(self.spool))


@pytest.fixture
def bench(tmp_path):
    """An encrypted repository, empty."""
    text, recipient = generate(CLOCK.now())
    store = FileStore(tmp_path / "repo")
    repository = Repository.init(store, new_config(Role.DATA, [recipient], {}, CLOCK.now()))
    spool = tmp_path / "spool"
    spool.mkdir()
    return Bench(store, repository, text, spool, [])
