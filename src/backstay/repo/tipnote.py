"""Tips: by what the end of a recorded lineage is known, for whoever goes on with it.

    tips/CLUSTER/LINEAGE/END-RAND.json

Who records can't read what is sealed. So before a delta is stored, a small document is, in the
clear, that says by what its last changes are known: a salted fingerprint (see `mvcc.tip`), the
cluster id, raft term and index. A recorder that starts again proves by it that the etcd which it
finds is the one that was recorded. A tip alone says nothing: it counts where a delta ends there.

Source: docs/formats.md.
"""

import secrets
from typing import Annotated

import msgspec
from msgspec import Meta

from backstay import __version__
from backstay.errors import FormatError, NotFoundError
from backstay.mvcc.delta import Position
from backstay.repo.deltaname import LINEAGE, position
from backstay.repo.document import FORMAT, MAX_SIZE, decode, encode
from backstay.repo.lineage import Stored
from backstay.repo.manifest import Count, Hex64, Short, Tip
from backstay.repo.name import check_cluster
from backstay.repo.store import Store


class TipNote(msgspec.Struct, frozen=True, kw_only=True):
    """By what the end of a recorded lineage is known.

    Attributes:
        lineage: which one.
        predecessor: the lineage that it came after; None where there was none.
        root: as in a manifest.
        end: the position after the last change that is recorded.
        cluster_id: of its etcd.
        raft_term: of its etcd; an earlier one will do.
        raft_index: of its etcd; an earlier one will do.
        tip: of the changes of the last revision, as far as they are recorded.
    """

    format: Annotated[int, Meta(ge=1)] = FORMAT
    requires: tuple[Short, ...] = ()
    cluster: Short
    lineage: Short
    predecessor: Short | None = None
    root: Short = ""
    end: tuple[Count, Count]
    cluster_id: Hex64
    raft_term: Count
    raft_index: Count
    tip: Tip
    backstay_version: Short = __version__

    @property
    def stored(self) -> Stored:
        """Give it as the end of a lineage."""
        main, sub = self.end
        return Stored(
            lineage=self.lineage,
            predecessor=self.predecessor,
            root=self.root or self.lineage,
            revision=main if sub else main - 1,
            compact_revision=-1,
            cluster_id=self.cluster_id,
            raft_term=self.raft_term,
            raft_index=self.raft_index,
            hash=None,
            tip=self.tip,
        )


def tips_of(cluster: str, lineage: str = "") -> str:
    """Prefix of the tips of a cluster, or of one of its lineages."""
    return f"tips/{check_cluster(cluster)}/" + (f"{lineage}/" if lineage else "")


def put_tip(store: Store, note: TipNote) -> str:
    """Store a tip; gives its path.

    Raises:
        StoreError: the store refuses.
    """
    at = position(Position(*note.end))
    path = f"{tips_of(note.cluster, note.lineage)}{at}-{secrets.token_hex(4)}.json"
    store.put_new(path, encode(note))
    return path


def find_tip(store: Store, cluster: str, lineage: str, end: Position) -> TipNote | None:
    """Find the tip of what ends at a position; None where there is none that can be read.

    Raises:
        StoreError: the store refuses.
    """
    if not LINEAGE.fullmatch(lineage):
        return None
    folder = tips_of(cluster, lineage)
    wanted = f"{folder}{position(end)}"
    for info in store.list(folder, after=wanted):
        if not info.path.startswith(f"{wanted}-"):
            return None
        try:
            note = decode(store.read(info.path, MAX_SIZE), TipNote, info.path)
        except (FormatError, NotFoundError):
            continue
        if (note.cluster, note.lineage, note.end) == (cluster, lineage, tuple(end)):
            return note
    return None


def clear_tips(store: Store, cluster: str, lineage: str, end: Position) -> None:
    """Delete the tips of a lineage before a position: a later delta stands for them.

    Raises:
        StoreError: the store refuses.
    """
    folder = tips_of(cluster, lineage)
    for info in store.list(folder):
        if info.path >= f"{folder}{position(end)}":
            return
        store.delete(info.path)
