"""Making manifests that restore a backup of a hosted control plane.

HyperShift restores an etcd only when a cluster is made, from a URL in its manifest. So a restore is
three things: a plain snapshot where that URL leads, the saved keys where the new cluster looks for
them, and a HostedCluster that is, in all that can't be changed later, the one that was saved.

What can fail is looked at before the plain snapshot is put anywhere; what fails after that takes it
away again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from io import BytesIO

from backstay.client.secret import Secret
from backstay.clock import Clock
from backstay.errors import BackstayError, CheckFailedError, NotFoundError, RefusedError, UsageError
from backstay.flows.fetch import BackupSubject
from backstay.flows.keyring import Known, keyring_for_backup, prove
from backstay.flows.restore import BUMP
from backstay.flows.staging import check_url, stage_export
from backstay.flows.timetravel import PointSubject
from backstay.kinds.hosted.companion import RESOURCES
from backstay.kinds.hosted.manifests.compare import Difference, release_of
from backstay.kinds.hosted.manifests.documents import Documents, parse_documents
from backstay.kinds.hosted.manifests.encryption_block import Needs, keys_of
from backstay.kinds.hosted.manifests.namespaces import with_namespaces
from backstay.kinds.hosted.manifests.render import Plan, prepare
from backstay.kinds.hosted.recovery.restored import Expected, expect
from backstay.kubedata.encryption import hypershift_configuration
from backstay.kubedata.proof import prove_keys
from backstay.mvcc.export import Edits
from backstay.mvcc.snapshot import Snapshot
from backstay.repo.catalogue import Repository
from backstay.repo.keyring import Keyring
from backstay.repo.keyring_document import HOSTED
from backstay.repo.staged import Link, Staged
from backstay.repo.staging import Staging
from backstay.report import Report, Verdict

#: Stands for the URL until there is one: all that can be wrong is found before.
_NO_URL = "https://staging.invalid/snapshot"
#: More than any collection of manifests has.
_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How manifests are made.

    Attributes:
        rendered: what `hcp create cluster ... --render` printed; None uses the saved resources.
        url_seconds: for how long the URL is to work.
        take_saved: write the saved values over those that differ.
        force: go on in spite of what can be lifted.
        authorities: PEM certificates that are trusted here, beside the system's.
        url: that an earlier run of the same restore has made: nothing is staged then.
        expect: work out what the restored cluster must be like, for who will wait for it: that
            takes another look at every key.
        examine: is given the finished manifests, but for the URL, before anything is staged; what
            it raises ends it.
        point: at which revision, made from the backup; None is as it was taken.
    """

    rendered: bytes | None = field(default=None, repr=False)
    url_seconds: int = 86400
    take_saved: bool = False
    force: bool = False
    authorities: bytes = b""
    url: Secret | None = None
    expect: bool = True
    examine: Callable[[str], object] = lambda _: None
    point: PointSubject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Manifests that restore.

    Attributes:
        text: the manifests; they hold a key, and a URL that opens the data.
        name: of the HostedCluster.
        namespace: of the HostedCluster.
        restore: which restore this is; the same for a run that goes on after a crash.
        staged: path of the plain snapshot in the staging place; empty where an earlier run made it.
        expires: when the URL ends; None where an earlier run made it.
        outlook: what the restored cluster must be like; None where nobody asked.
        changes: what was changed in the manifests, a line each.
        warnings: what the reader should know.
        differences: from the saved HostedCluster, those that are left.
    """

    text: str = field(repr=False)
    name: str
    namespace: str
    restore: str
    staged: str
    expires: datetime | None
    outlook: Expected | None = field(repr=False)
    changes: tuple[str, ...]
    warnings: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def expected(self) -> Expected:
        """What the restored cluster must be like.

        Raises:
            UsageError: nobody asked for that when it was made.
        """
        if self.outlook is None:
            raise UsageError("what the restored cluster must be like was not asked for")
        return self.outlook


def make_manifests(
    subject: BackupSubject,
    keys: Repository,
    staging: Staging,
    options: Options,
    *,
    clock: Clock,
    report: Report,
) -> Made:
    """Make manifests that restore a backup, and put its snapshot where they say.

    Args:
        subject: the backup.
        keys: the repository that has its keys.
        staging: where the plain snapshot goes.
        options: how.
        clock: for dates and durations.
        report: is told of each step.

    Raises:
        RefusedError: something stands against it; nothing was left in the staging place.
        NotFoundError: the backup is none of a hosted control plane, or its keys are gone.
        SealError: the identity opens neither.
        DamagedError: the backup is damaged.
        StoreError: a store refuses.
    """
    making = _Making.begin(subject, keys, staging, options, clock=clock, report=report)
    with (options.point or subject).opened(report) as snapshot:
        return making.make(snapshot)


@dataclass(frozen=True, slots=True)
class _Making:
    """What is known before the snapshot is opened."""

    subject: BackupSubject
    staging: Staging
    options: Options
    keyring: Keyring
    saved: Documents
    documents: Documents
    clock: Clock
    report: Report

    @classmethod
    def begin(
        cls,
        subject: BackupSubject,
        keys: Repository,
        staging: Staging,
        options: Options,
        *,
        clock: Clock,
        report: Report,
    ) -> "_Making":
        manifest = subject.entry.manifest
        if manifest.kind != HOSTED:
            raise NotFoundError(
                f"{manifest.id} is a backup of kind {manifest.kind}, not of a hosted control plane",
                f"restore it with `backstay restore {manifest.kind}`",
            )
        keyring = keyring_for_backup(manifest, keys, subject.identities)
        resources = _resources(subject, report)
        saved = parse_documents(resources, f"the saved resources of {manifest.id}")
        if options.rendered is None:
            text = with_namespaces(resources.decode(errors="replace") + keyring.manifests)
            documents = parse_documents(text, "what was saved")
        else:
            documents = parse_documents(options.rendered, "what was rendered")
        return cls(subject, staging, options, keyring, saved, documents, clock, report)

    def make(self, snapshot: Snapshot) -> Made:
        plan = self._plan(snapshot)
        # With a URL that leads nowhere: all else that stands against it is found.
        prepared = prepare(self.documents, plan)
        prepared.check()
        self.options.examine(prepared.text)
        if self.options.url is not None:
            return self._made(snapshot, plan, self.options.url)
        with self._staged(snapshot) as (staged, link):
            made = self._made(snapshot, plan, link.url)
            return replace(made, staged=staged.path, expires=link.expires)

    def _made(self, snapshot: Snapshot, plan: Plan, url: Secret) -> Made:
        prepared = prepare(self.documents, replace(plan, url=url.reveal()))
        prepared.check()
        check_written(snapshot, prepared.text, [key.value for key in self.keyring.keys])
        for warning in prepared.warnings:
            self.report.warn(warning)
        hosted = self.documents.hosted_cluster
        return Made(
            text=prepared.text,
            name=hosted.name,
            namespace=hosted.namespace,
            restore=(self.options.point or self.subject).name,
            staged="",
            expires=None,
            outlook=self._outlook(snapshot) if self.options.expect else None,
            changes=prepared.changes,
            warnings=prepared.warnings,
            differences=prepared.differences,
        )

    def _plan(self, snapshot: Snapshot) -> Plan:
        """Prove the saved keys, and say what goes into the manifests."""
        known = Known.of(self.keyring.keys, self.keyring.kms)
        proof, answer = prove(snapshot, known)
        if answer.verdict is Verdict.FAIL:
            raise RefusedError(
                f"the saved keys do not open {self.subject.name}: {answer.detail}",
                "restore another backup",
            )
        if answer.verdict is Verdict.COULD_NOT_VERIFY and proof.groups:
            self.report.warn(f"keys: {answer.detail}")
        hosted = self.subject.entry.manifest.hosted
        return Plan(
            url=_NO_URL,
            snapshot_size=snapshot.size,
            needs=Needs.of(proof.groups),
            keys=self.keyring.keys,
            kms=self.keyring.kms,
            saved=self.saved.hosted_cluster.value,
            saved_version=hosted.release_version if hosted else "",
            rendered_version=release_of(self.documents.hosted_cluster.value),
            take_saved=self.options.take_saved,
            force=self.options.force,
        )

    @contextmanager
    def _staged(self, snapshot: Snapshot) -> Iterator[tuple[Staged, Link]]:
        """Put the snapshot into the staging place; an error in the block takes it away again."""
        until = self.clock.now() + timedelta(seconds=self.options.url_seconds)
        edits = Edits(bump=BUMP, mark_compacted=True, drop_alarms=True)
        backup = self.subject.entry.manifest.name
        staged = stage_export(
            snapshot, edits, self.staging, backup, expires=until, report=self.report
        )
        with removing(self.staging, staged, self.report):
            link = self.staging.link(staged.path, self.options.url_seconds)
            for warning in link.warnings:
                self.report.warn(warning)
            self._try(link, staged)
            yield staged, link

    def _try(self, link: Link, staged: Staged) -> None:
        authorities = self.options.authorities or self.staging.authorities
        check = check_url(
            link, staged, until=link.expires, clock=self.clock, authorities=authorities
        )
        self.report.judge(check)
        if check.verdict is Verdict.FAIL:
            raise CheckFailedError(
                f"the new cluster could not download its snapshot: {check.detail}"
            )

    def _outlook(self, snapshot: Snapshot) -> Expected:
        known = list(dict.fromkeys(key.value for key in self.keyring.keys))
        configuration = hypershift_configuration(known) if known else None
        return expect(snapshot, snapshot.revision + BUMP, configuration)


def check_written(snapshot: Snapshot, text: str, proven: Sequence[bytes]) -> None:
    """Read the keys back out of finished manifests, and hold them to open the snapshot.

    Where they are those that were tried on it already, they are not tried again: that would be
    another look at every key.

    Args:
        snapshot: what is restored.
        text: the manifests.
        proven: the saved keys, which open it; none where nothing is encrypted.

    Raises:
        RefusedError: they don't open it.
    """
    if not proven:
        return
    written = keys_of(text)
    if set(written) == set(proven):
        return
    proof = prove_keys(snapshot, [hypershift_configuration(written)])
    if proof.verdict is Verdict.FAIL:
        raise RefusedError(
            f"the keys in the finished manifests do not open the snapshot: {proof.summary}",
            "report this: it is a defect of backstay",
        )


@contextmanager
def removing(staging: Staging, staged: Staged, report: Report) -> Iterator[None]:
    """Take a restore object away where the block ends by an error; else it stays."""
    try:
        yield
    except BaseException:
        try:
            staging.remove(staged.path)
        except BackstayError as error:
            report.warn(
                f"{staging.url}/{staged.path} is left, and open to who can read it: {error}"
            )
        raise


def _resources(subject: BackupSubject, report: Report) -> bytes:
    """Fetch the saved objects that are no Secrets."""
    for entry in subject.documents:
        if entry.role == RESOURCES:
            if entry.size > _LIMIT:
                raise RefusedError(f"the saved resources of {subject.name} have {entry.size} bytes")
            sink = BytesIO()
            subject.fetch(entry, sink, report)
            return sink.getvalue()
    raise NotFoundError(f"{subject.name} has no saved resources", "give --rendered")
