"""What goes with the snapshots of a hosted control plane: its keys, and its objects.

Keys and Secrets go into a keyring, in a repository of their own; the other objects lie beside the
snapshots. On each snapshot the keys are tried before anything counts as saved.
"""

from dataclasses import replace
from datetime import datetime

import msgspec

from backstay.checks import keys as keys_check
from backstay.checks.question import Answer, ask, failed
from backstay.clock import Clock
from backstay.flows.companion import Document, Kept
from backstay.flows.keyring import Known, prove
from backstay.flows.places import Places
from backstay.kinds.hosted.belongings.keys import SavedKeys, saved_keys
from backstay.kinds.hosted.belongings.resources import Resources, collect
from backstay.kinds.hosted.cluster import Hosted
from backstay.kinds.hosted.find import find
from backstay.kinds.hosted.quiescing.quiesce import Quiesced
from backstay.kubeapi.api import Api
from backstay.mvcc.snapshot import Snapshot
from backstay.repo import keyring as keyrings
from backstay.repo.keyring import Keyring, Kms
from backstay.repo.keyring_document import HOSTED
from backstay.repo.manifest import HostedEntry
from backstay.repo.name import Run
from backstay.report import Check, Report, Verdict

#: What the manifest calls the objects that are no Secrets.
RESOURCES = "resources.yaml"
#: A manifest's texts end there.
_SHORT, _TEXT, _MANY = 256, 4096, 256


class Belongings:
    """The companion of a hosted control plane's backup.

    The keys are read when it is made, so that what is missing is known before anything else
    happens, and again when the snapshots have come: a rotation may have begun meanwhile.

    Args:
        api: of the management cluster.
        hosted: the control plane.
        places: where the backup goes.
        cluster: its name in the repositories.
        transport: how the snapshots come.
        prove_all: whether keys are tried on all values, not on samples.
        clock: for dates and durations.
        report: is warned.
    """

    def __init__(
        self,
        api: Api,
        hosted: Hosted,
        places: Places,
        *,
        cluster: str,
        transport: str,
        prove_all: bool,
        clock: Clock,
        report: Report,
    ) -> None:
        self._api = api
        self._hosted = hosted
        self._places = places
        self._cluster = cluster
        self._transport = transport
        self._prove_all = prove_all
        self._clock = clock
        self._report = report
        self._keys = saved_keys(api, hosted)
        self._came = False
        #: Set by whoever quiesces, when that is over.
        self.quiesced: Quiesced | None = None
        for warning in (*self._keys.warnings, *self._keys.replaced):
            report.warn(warning)

    @property
    def keys(self) -> SavedKeys:
        """What is known of the encryption keys."""
        return self._keys

    def examine(self, snapshot: Snapshot) -> tuple[Check, ...]:
        """Try the keys on what is encrypted in a snapshot."""
        if not self._came:
            self._came = True
            now = find(self._api, self._hosted.name, self._hosted.namespace)
            self._keys = together(self._keys, saved_keys(self._api, now))
        return (ask(keys_check.NAME, lambda: self._prove(snapshot), self._clock),)

    def _prove(self, snapshot: Snapshot) -> Answer:
        known = Known.of(self._keys.keys, self._keys.kms)
        _, answer = prove(snapshot, known, prove_all=self._prove_all)
        if self._keys.problems:
            return failed("; ".join((*self._keys.problems, answer.detail)))
        return answer

    def keep(self, run: Run) -> Kept:
        """Save the keyring; say what the manifest should know."""
        resources = collect(self._api, self._hosted)
        for name in resources.missing:
            self._report.warn(f"the spec refers to {name}, which is not there")
        entry = keyrings.save(
            self._places.keys,
            keyring_of(self._cluster, self._keys, resources, self._clock.now()),
            run,
            data=self._places.data.config.repository,
        )
        document = Document(RESOURCES, resources.public_yaml.encode())
        return Kept(
            keyring=entry,
            documents=(document,),
            hosted=self._entry(resources),
            checks=quiesced_checks(self.quiesced),
        )

    def _entry(self, resources: Resources) -> HostedEntry:
        hosted = self._hosted
        return HostedEntry(
            namespace=hosted.namespace,
            name=hosted.name,
            platform=hosted.platform[:_SHORT],
            release_image=hosted.release_image[:_TEXT],
            release_version=hosted.release_version[:_SHORT],
            etcd="unmanaged" if hosted.unmanaged else "managed",
            encryption=hosted.encryption[:_SHORT],
            rotating=self._keys.rotating,
            kms=flat(self._keys.kms),
            transport=self._transport,
            quiesced=None if self.quiesced is None else self.quiesced.holds,
            api_downtime=downtime(self.quiesced),
            missing=tuple(name[:_TEXT] for name in resources.missing[:_MANY]),
        )


def keyring_of(cluster: str, keys: SavedKeys, resources: Resources, now: datetime) -> Keyring:
    """Make the keyring of a hosted control plane.

    Args:
        cluster: its name in the repositories.
        keys: what is known of its encryption keys.
        resources: its objects, of which the Secrets are kept.
        now: when it is made.
    """
    return Keyring(
        cluster=cluster,
        kind=HOSTED,
        made_at=now,
        keys=keys.keys,
        kms=keys.kms,
        rotating=keys.rotating,
        manifests=resources.secret_yaml,
    )


def downtime(quiesced: Quiesced | None) -> float | None:
    """Say for how many seconds the API was down; None where it was not, or nobody saw its end."""
    if quiesced is None or quiesced.downtime_seconds is None:
        return None
    return round(quiesced.downtime_seconds, 3)


def quiesced_checks(quiesced: Quiesced | None) -> tuple[Check, ...]:
    """Say what came of quiescing. The snapshot is as good without; what was asked for is not there.

    Args:
        quiesced: how it went; None where it was not asked for.
    """
    if quiesced is None:
        return ()
    found = {"quiesced": quiesced.holds, "put-back": quiesced.back}
    return tuple(
        Check(
            name=name,
            verdict=Verdict.PASS if good else Verdict.COULD_NOT_VERIFY,
            detail=quiesced.detail,
            seconds=0.0,
        )
        for name, good in found.items()
    )


def together(before: SavedKeys, after: SavedKeys) -> SavedKeys:
    """Take the keys of before and after a snapshot: it may hold values under either.

    Args:
        before: read before the snapshot was taken.
        after: read when it had come; its roles and its problems are the newer ones.
    """
    known = {key.data_hash for key in after.keys}
    gone = tuple(
        msgspec.structs.replace(key, role="backup")
        for key in before.keys
        if key.data_hash not in known
    )
    if not gone:
        return after
    return replace(after, keys=(*after.keys, *gone), rotating=True)


def flat(kms: Kms | None) -> dict[str, str]:
    """Write the places of a KMS's keys as one flat table, for the manifest."""
    if kms is None:
        return {}
    found = {"provider": kms.provider, "state": kms.state}
    for role in ("active", "backup", "target"):
        found |= {f"{role}.{name}": place for name, place in getattr(kms, role).items()}
    return {name[:_SHORT]: text[:_TEXT] for name, text in found.items() if text}
