"""partner: is the archive of static pod resources there, without which a snapshot restores nothing?

It lies with the keys, in another repository than the snapshot. The manifest has its digest, and
so has the header of the keyring: what was swapped is found without opening anything.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from backstay.checks.question import Answer, failed, passed, unknown
from backstay.checks.stored import stored
from backstay.kubedata.podarchive import STATIC_PODS, PodArchive
from backstay.repo.entry import PARTNER
from backstay.repo.keyring_document import KeyringHeader
from backstay.repo.manifest import OkdEntry
from backstay.repo.store import Store
from backstay.report import Verdict

NAME = PARTNER
#: Whose certificates end so soon should be restored soon.
SOON = timedelta(days=3)
_NAMED = 5


def saved(
    okd: OkdEntry, header: KeyringHeader, store: Store, progress: Callable[[int], None]
) -> Answer:
    """Is what the store has of keyring and archive what was written, and meant by the manifest?

    Args:
        okd: what the manifest says.
        header: of the keyring.
        store: where it lies.
        progress: called with each number of bytes that was read.

    Raises:
        NotFoundError: keyring or archive are gone.
        StoreError: the store could not be asked.
    """
    answer = meant(okd, header)
    if answer.verdict is not Verdict.PASS or header.archive is None:
        return answer
    answer = stored(store, (header.object, header.archive), progress)
    if answer.verdict is not Verdict.PASS:
        return answer
    return passed(f"keyring and static pod resources: {answer.detail}")


def meant(okd: OkdEntry, header: KeyringHeader) -> Answer:
    """Is the archive of the keyring the one that the manifest means?"""
    if header.archive is None:
        return failed("the keyring has no static pod resources beside it")
    found = (header.archive.size, header.archive.sha256)
    if found != (okd.archive_size, okd.archive_sha256):
        return failed(
            f"the static pod resources in the keyring have {found[0]} bytes and SHA-256 {found[1]};"
            f" those of the backup {okd.archive_size} and {okd.archive_sha256}"
        )
    return passed("the archive that the manifest means")


def inside(okd: OkdEntry, archive: PodArchive, configuration: str) -> Answer:
    """Has the archive what the manifest and the keyring say of it?

    Args:
        okd: what the manifest says.
        archive: what was found in it.
        configuration: kube-apiserver's EncryptionConfiguration, as the keyring has it; empty where
            there is none.
    """
    missing = [pod for pod in STATIC_PODS if pod not in archive.static_pods]
    if missing:
        return failed(f"the archive has no resources of {', '.join(missing)}")
    for pod, revision in okd.static_pods.items():
        found = archive.static_pods.get(pod, ())
        if revision not in found:
            return failed(f"the archive has no {pod[:40]}-pod-{revision}, the manifest means that")
    if len(archive.configurations) > 1:
        return failed("the archive has several encryption configurations, which differ")
    data = archive.configuration or b""
    if data.decode("utf-8", "backslashreplace") != configuration:
        return failed("the encryption configuration in the archive is not that of the keyring")
    pods = ", ".join(
        f"{pod}-pod-{'/'.join(map(str, revisions))}"
        for pod, revisions in archive.static_pods.items()
    )
    return passed(f"static pod resources opened, {archive.members} members: {pods}")


@dataclass(frozen=True, slots=True)
class Endings:
    """How long the certificates of an archive are good.

    Attributes:
        count: how many there are.
        ended: what has run out: each file, whose, and when.
        soon: what runs out before long.
    """

    count: int
    ended: tuple[str, ...] = ()
    soon: tuple[str, ...] = ()


def endings(archive: PodArchive, now: datetime) -> Endings:
    """Look at the dates of the certificates in an archive.

    In a bundle of authorities old ones may stand beside good ones: only what has none left counts.

    Args:
        archive: what was found in it.
        now: the time of day, aware.
    """
    ended, soon = [], []
    for file in archive.certificates:
        choose = min if file.own else max
        last = choose(file.dates, key=lambda dates: dates.ends)
        path = file.path if file.path.isprintable() else ascii(file.path)
        line = f"{path} ({last.subject}) at {last.ends:%Y-%m-%d %H:%M:%SZ}"
        if last.ends < now:
            ended.append(line)
        elif last.ends < now + SOON:
            soon.append(line)
    count = sum(len(file.dates) for file in archive.certificates)
    return Endings(count, tuple(sorted(ended)), tuple(sorted(soon)))


def certificates(found: Endings) -> Answer:
    """Are the certificates in the archive still good?

    A component that is restored shows them until its operator has made new ones, and nodes
    refuse what has run out.
    """
    if found.ended:
        return failed(f"run out: {listed(found.ended)}")
    if not found.count:
        return unknown("no certificate was found in the archive")
    return passed(f"{found.count} certificates, none has run out")


def listed(lines: Sequence[str]) -> str:
    """Name some of many."""
    rest = len(lines) - _NAMED
    return "; ".join([*lines[:_NAMED], *([f"and {rest} more"] if rest > 0 else [])])
