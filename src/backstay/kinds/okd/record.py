"""Recording the etcd of an OKD control plane, on one of its hosts: full backups, and keys.

The recorder runs for months, and operators roll out new certificates and keys meanwhile: the host
is looked at anew where etcd can't be reached, for each full backup, and for each new key.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

from backstay.client.etcd import Etcd
from backstay.clock import Clock
from backstay.files import unnamed_file
from backstay.flows.ancestry import Watched
from backstay.flows.places import Places
from backstay.flows.recording.keysaver import Found, RecordedKeys
from backstay.kinds.okd.archive import write_archive
from backstay.kinds.okd.backup import Options, backup_okd
from backstay.kinds.okd.cluster import Cluster
from backstay.kinds.okd.companion import keyring_of
from backstay.kinds.okd.host import Host
from backstay.kinds.okd.keys import PREFIX
from backstay.repo.manifest import Manifest
from backstay.report import Check, Report


@dataclass(frozen=True, slots=True)
class Asked:
    """What the cluster's API is asked for one backup.

    Attributes:
        cluster: what it told.
        guards: asks what may refuse the backup.
    """

    cluster: Cluster
    guards: Callable[[], Sequence[Check]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OkdRecord:
    """An OKD control plane that is recorded.

    Attributes:
        open: opens its host.
        ask: asks its API about a backup on a host, and holds its Lease while the block lasts.
        name: its name in the repositories.
        places: where everything goes.
        options: how full backups are made.
        clock: for names and dates.
        report: is told.
    """

    open: Callable[[], AbstractContextManager[Host]]
    ask: Callable[[Host], AbstractContextManager[Asked]]
    name: str
    places: Places
    options: Options
    clock: Clock
    report: Report

    def full(self, watched: Watched) -> Manifest:
        """Make a full backup of it.

        Args:
            watched: which lineage the watch has gone on with.

        Raises:
            BackstayError: as a backup does.
        """
        with self.open() as host, self.ask(host) as asked:
            return backup_okd(
                host,
                asked.cluster,
                self.places,
                replace(self.options, cluster=self.name, watched=watched),
                guards=asked.guards,
                clock=self.clock,
                report=self.report,
            )

    @contextmanager
    def etcd(self) -> Iterator[Etcd]:
        """Reach its etcd by what the host's files say now.

        Raises:
            BackstayError: they can't be read.
        """
        with self.open() as host:
            yield host.client

    @property
    def keys(self) -> RecordedKeys:
        """What saves its keys: kube-apiserver's. Those of others lie in the snapshot itself."""
        return RecordedKeys(
            self.places,
            self.name,
            self._read_keys,
            self.clock,
            self.report,
            prefix=f"{PREFIX}/".encode(),
        )

    @contextmanager
    def _read_keys(self) -> Iterator[Found]:
        """Archive the host's files, as a backup does: they have the keys."""
        spool = self.options.spool_dir
        with self.open() as host, unnamed_file(spool) as file:
            archived = write_archive(host.tree, file, spool, self.report)
            file.seek(0)
            yield Found(keyring_of(archived, self.name, self.clock.now()), file)
