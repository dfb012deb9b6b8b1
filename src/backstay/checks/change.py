"""change: is the cluster still what it was at its last good backup?

A cluster that was emptied, or put back, gives good backups; in time they would push out the last
one of what was lost. Whether it was meant so, nobody can tell: the verdict is COULD NOT VERIFY,
once, since the next backup is compared with this one. The one before is pinned.

That nothing proves that a lineage goes on is no such reason: API servers compact every few minutes,
so of two backups a day the later one always begins a lineage.
"""

from collections.abc import Iterator

from backstay.checks.question import Answer, passed, unknown
from backstay.repo.lineage import Lineage, Proof
from backstay.repo.manifest import SnapshotEntry

NAME = "change"


def change(before: SnapshotEntry, now: SnapshotEntry, lineage: Lineage) -> Answer:
    """Compare a snapshot with the newest good one before it.

    Args:
        before: what was stored of the same etcd.
        now: what came.
        lineage: what the comparison of the two histories came to.
    """
    reasons = tuple(_reasons(before, now, lineage))
    if reasons:
        return unknown("; ".join(reasons))
    goes_on = "the lineage goes on" if lineage.proof is Proof.CONTINUED else "a new lineage begins"
    return passed(f"{_figures(now)}; {_figures(before)} before; {goes_on}: {lineage.reason}")


def _reasons(before: SnapshotEntry, now: SnapshotEntry, lineage: Lineage) -> Iterator[str]:
    if lineage.proof is Proof.OTHER:
        yield f"it is another life of this etcd, or another etcd: {lineage.reason}"
    elif now.revision < before.revision:
        yield f"its revision went back from {before.revision} to {now.revision}"
    for word, then, since in (
        ("keys", before.live_keys, now.live_keys),
        ("bytes", before.live_size, now.live_size),
    ):
        if then is not None and since is not None and 2 * since < then:
            yield f"{since} {word}, {then} before: more than half are gone"


def _figures(entry: SnapshotEntry) -> str:
    if entry.live_keys is None:
        return "keys not counted"
    size = "" if entry.live_size is None else f" of {entry.live_size} bytes"
    return f"{entry.live_keys} keys{size}"
