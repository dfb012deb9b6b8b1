"""What a kind of cluster asks, and keeps, beside its snapshots.

An etcd alone has no companion. A control plane has one: its keys are proven on each snapshot and
go to a repository of their own, and what a restore needs of its objects lies beside the data.
"""

from dataclasses import dataclass
from typing import Protocol

from backstay.mvcc.snapshot import Snapshot
from backstay.repo.manifest import HostedEntry, KeyringEntry, OkdEntry
from backstay.repo.name import Run
from backstay.report import Check


@dataclass(frozen=True, slots=True)
class Document:
    """Something small that lies beside the snapshots. Never a secret.

    Attributes:
        role: what it is, as the manifest calls it.
        data: its bytes.
    """

    role: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a companion has for the manifest.

    Attributes:
        keyring: where the secrets are that belong to the backup; None where there are none.
        documents: what is to lie beside the snapshots.
        hosted: what the manifest says of a hosted control plane.
        okd: what the manifest says of an OKD control plane.
        checks: what was asked of the backup as a whole.
        told: what was asked before it began, and told then.
    """

    keyring: KeyringEntry | None = None
    documents: tuple[Document, ...] = ()
    hosted: HostedEntry | None = None
    okd: OkdEntry | None = None
    checks: tuple[Check, ...] = ()
    told: tuple[Check, ...] = ()


class Companion(Protocol):
    """Goes with one backup."""

    def examine(self, snapshot: Snapshot) -> tuple[Check, ...]:
        """Ask what the kind of cluster asks of each snapshot that came."""
        ...

    def keep(self, run: Run) -> Kept:
        """Put away what must not lie with the data; called once, before the manifest.

        Raises:
            BackstayError: it could not be kept: then there is no backup.
        """
        ...


class Alone:
    """The companion of an etcd that nothing belongs to."""

    def examine(self, snapshot: Snapshot) -> tuple[Check, ...]:
        """Ask nothing."""
        del snapshot
        return ()

    def keep(self, run: Run) -> Kept:
        """Keep nothing."""
        del run
        return Kept()
