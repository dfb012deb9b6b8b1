"""Manifests for tests that need some, and no etcd."""

import hashlib
from datetime import UTC, datetime

from backstay.repo.manifest import CheckEntry, HashKV, Manifest, ObjectEntry, SnapshotEntry, figures
from backstay.repo.name import Run
from backstay.report import Verdict

REPOSITORY = "0" * 32
PROVEN = ("transfer", "stored", "structure", "content")


def checks(verdict=Verdict.PASS, names=PROVEN):
    return tuple(
        CheckEntry(name=name, verdict=verdict, detail="looked at", seconds=0.1) for name in names
    )


def manifest(
    *,
    cluster="prod",
    revision=100,
    at=datetime(2026, 11, 20, 23, 10, tzinfo=UTC),
    lineage="aa",
    root="",
    data=b"stored",
    verdicts=None,
    repository=REPOSITORY,
):
    """A manifest, and the run that its object belongs to."""
    run = Run.begin(cluster, at)
    digest = hashlib.sha256(data).hexdigest()
    item = ObjectEntry(
        path=f"{run.folder}snapshot.zst",
        role="snapshot",
        size=len(data),
        sha256=digest,
        stored_size=len(data),
        stored_sha256=digest,
    )
    taken = SnapshotEntry(
        name="etcd",
        lineage=lineage,
        root=root,
        revision=revision,
        compact_revision=-1,
        etcd_version="3.5.1",
        cluster_id="cafe",
        raft_term=2,
        raft_index=10,
        hash=1,
        total_keys=5,
        total_size=20480,
        hashkv=HashKV(hash=2, revision=revision, compact_revision=-1),
        object=item.path,
    )
    return Manifest(
        repository=repository,
        id=str(run.backup(revision)),
        cluster=cluster,
        kind="etcd",
        taken_at=run.began,
        snapshots=(taken,),
        objects=(item,),
        recipients=(),
        checks=checks() if verdicts is None else verdicts,
        **figures(taken),
    )
