"""Putting a plain snapshot where a hosted control plane fetches it, and trying the URL it will use.

HyperShift's init container fetches with `curl -o /tmp/snapshot "$URL"`: an error page is saved as
if it were the snapshot, a redirect is not followed, no authority can be named, and nothing is
tried twice. The field that holds the URL can't be changed later. So the URL is tried here first,
by the same plain request.

Source: openshift/hypershift, etcd-init.sh; api/hypershift/v1beta1/hostedcluster_types.go
(restoreSnapshotURL: at most 1024 characters).
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, cast
from urllib.parse import parse_qs

from backstay.checks.question import Answer, ask, failed, passed, unknown
from backstay.client.secret import Secret
from backstay.clock import Clock
from backstay.errors import CheckFailedError, DamagedError, StoreError
from backstay.mvcc.export import Edits, export
from backstay.mvcc.snapshot import Snapshot, Trailer
from backstay.repo import bearer
from backstay.repo.bearer import UntrustedError
from backstay.repo.name import BackupId
from backstay.repo.staged import EDGE, Link, Staged
from backstay.repo.staging import Staging
from backstay.repo.store import Writer
from backstay.report import Check, Report

CHECK = "url"
#: What the API takes.
MAX_URL = 1024
#: Between the clock that signed and the one that asked, in seconds.
_SLACK = 60
_SECONDS_OF_ALL = 24 * 3600.0
_TOKEN = re.compile(r"X-Amz-Security-Token=[^&]*")
_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,80})</Code>")
_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")
_PAGE = 16 << 10
_BY_BUNDLE = (
    "its certificate is trusted here by the CA bundle alone: etcd-init's curl has no such option,"
    " and fails unless the etcd image itself trusts that authority"
)
_OK, _PARTIAL, _REDIRECTS = 200, 206, range(300, 400)


def stage_export(
    snapshot: Snapshot,
    edits: Edits,
    staging: Staging,
    backup: BackupId,
    *,
    expires: datetime,
    report: Report,
) -> Staged:
    """Export a snapshot straight into a staging place, in one pass, without a file between.

    Args:
        snapshot: the source.
        edits: what to change.
        staging: where it goes.
        backup: what the snapshot is from.
        expires: when nobody needs it any more; aware.
        report: is told of the step, and of what is to know of the place.

    Raises:
        DamagedError: the source is damaged; nothing was put there.
        RefusedError: the place would keep it.
        StoreError: the store refuses.
    """

    def fill(writer: Writer) -> None:
        # It writes front to back and asks for nothing but `write`.
        exported = export(snapshot, cast("BinaryIO", writer), edits, progress)
        if exported.source_trailer is Trailer.ABSENT:
            report.warn("the source had no SHA-256: its structure was checked, its bytes were not")

    with report.task(f"staging {backup}", snapshot.size) as progress:
        staged = staging.stage(backup, fill, expires=expires)
    for warning in staged.warnings:
        report.warn(warning)
    return staged


def check_url(
    link: Link,
    staged: Staged,
    *,
    until: datetime,
    clock: Clock,
    authorities: bytes = b"",
    whole: bool = False,
) -> Check:
    """Try a presigned URL as the control plane will use it.

    PASS is: https, short enough, good for long enough, and a plain GET from here gives the object,
    under a certificate that this machine trusts by itself. COULD NOT VERIFY is: it does so, but
    under an authority of one's own, or signed with credentials that may end sooner. That it can be
    reached from the control plane's pods is not seen from here.

    Args:
        link: the URL.
        staged: what it must give.
        until: when it must still be good; aware.
        clock: for the seconds that it takes.
        authorities: PEM certificates that are trusted here, beside the system's.
        whole: read all of it and compare the SHA-256; else the size and both ends.
    """
    return ask(CHECK, lambda: _judge(link, staged, until, clock, authorities, whole=whole), clock)


def _judge(
    link: Link, staged: Staged, until: datetime, clock: Clock, authorities: bytes, *, whole: bool
) -> Answer:
    wrong = faults_of(link.url, until)
    if wrong:
        return failed("; ".join(wrong))
    doubts = [] if link.certain else [*link.warnings]
    if expiry_of(link.url) is None:
        doubts.append("it does not say when it ends")
    trial = _Trial(link.url, staged, clock)
    try:
        seen, by_bundle = trial.run_trusting(authorities, whole=whole)
    except UntrustedError as error:
        return failed(str(error))
    if by_bundle:
        doubts.append(_BY_BUNDLE)
    host = bearer.host_of(link.url)
    detail = f"{host} gives {staged.size} bytes, {seen}, until {until.astimezone(UTC):%F %TZ}"
    if doubts:
        return unknown("; ".join([detail, *doubts]))
    return passed(f"{detail}; asked from here, not from the control plane's pods")


def faults_of(url: Secret, until: datetime) -> tuple[str, ...]:
    """Say what is wrong with a URL that can be seen without asking anyone.

    Args:
        url: the URL.
        until: when it must still be good; aware.

    Raises:
        UsageError: it is none.
    """
    text = url.reveal()
    parts = bearer.split(url)
    found = []
    if parts.scheme != "https":
        found.append(f"{parts.scheme}:// does not work: curl fetches it, and the API wants https")
    if len(text) > MAX_URL:
        found.append(_too_long(text))
    if not text.isascii() or not text.isprintable() or set(parts.path + parts.query) & set(" []{}"):
        found.append("it has characters in it that curl does not take as they are")
    end = expiry_of(url)
    if end is not None and end < until - timedelta(seconds=_SLACK):
        found.append(f"it is good until {end:%F %TZ} only, not until {until:%F %TZ}")
    return tuple(found)


def expiry_of(url: Secret) -> datetime | None:
    """Read when a presigned URL ends; None where it does not say (signature version 4 does)."""
    query = parse_qs(bearer.split(url).query, max_num_fields=50)
    try:
        signed = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return signed + timedelta(seconds=int(query["X-Amz-Expires"][0]))
    except (KeyError, ValueError, OverflowError):
        return None


def _too_long(text: str) -> str:
    token = _TOKEN.search(text)
    part = f", {len(token[0])} of them the session token" if token else ""
    advice = "sign with static keys instead of temporary ones, or " if token else ""
    return (
        f"it has {len(text)} characters{part}, and the API takes {MAX_URL}: {advice}use a shorter"
        " bucket, prefix or endpoint with --staging"
    )


@dataclass(frozen=True, slots=True)
class _Trial:
    """What is asked of a URL, and compared with what must come."""

    url: Secret
    staged: Staged
    clock: Clock

    def run_trusting(self, authorities: bytes, *, whole: bool) -> tuple[str, bool]:
        """Ask, trusting the system's authorities, and if that fails some more.

        Returns:
            what was compared, and whether it took the further authorities.
        """
        try:
            return self.run(b"", whole=whole), False
        except UntrustedError:
            if not authorities:
                raise
        return self.run(authorities, whole=whole), True

    def run(self, authorities: bytes, *, whole: bool) -> str:
        """Ask; gives what was compared.

        Raises:
            CheckFailedError: it does not give what was stored.
            UntrustedError: the certificate is not trusted.
            StoreError: it can't be asked.
        """
        context = bearer.trust(authorities)
        with bearer.request("GET", self.url, context) as answer:
            self._check_answer(answer)
            if whole:
                return self._all(answer)
            self._same("begins with other bytes", answer.read(EDGE, self.clock), self.staged.head)
        first = max(self.staged.size - EDGE, 0)
        span = {"Range": f"bytes={first}-{self.staged.size - 1}"}
        with bearer.request("GET", self.url, context, span) as answer:
            if self._is_span(answer, first):
                tail = answer.read(EDGE, self.clock)
                self._same("ends with other bytes", tail, self.staged.tail)
                return "with the first and last bytes that were stored"
        # Nobody restores by ranges: a server that does not know them is read to the end.
        with bearer.request("GET", self.url, context) as answer:
            self._check_answer(answer)
            return self._all(answer)

    def _check_answer(self, answer: bearer.Answer) -> None:
        if answer.status in _REDIRECTS:
            raise CheckFailedError(
                f"the URL redirects ({answer.status}): etcd-init's curl does not follow",
                "name the bucket's own region and endpoint",
            )
        if answer.status != _OK:
            raise CheckFailedError(f"the URL answers {answer.status}{self._code(answer)}")
        size = answer.headers.get("content-length", "")
        if size != str(self.staged.size):
            found = f"{size[:20]} bytes" if size.isdecimal() else "no size"
            raise CheckFailedError(
                f"the URL gives {found}, {self.staged.size} were stored{self._code(answer)}"
            )
        if answer.headers.get("content-encoding"):
            raise CheckFailedError("the server compresses what it gives, which curl would keep")

    def _code(self, answer: bearer.Answer) -> str:
        """The server's word for what is wrong, and no more: the rest may repeat the request."""
        try:
            code = _CODE.search(answer.read(_PAGE, self.clock))
        except StoreError:
            return ""
        return f" ({code[1].decode()})" if code else ""

    def _is_span(self, answer: bearer.Answer, first: int) -> bool:
        """Whether a range came; some servers give one with status 200."""
        said = _RANGE.fullmatch(answer.headers.get("content-range", ""))
        if said is None or answer.status not in {_OK, _PARTIAL}:
            return False
        return tuple(map(int, said.groups())) == (first, self.staged.size - 1, self.staged.size)

    def _all(self, answer: bearer.Answer) -> str:
        digest = hashlib.sha256()
        for piece in self._bounded(answer):
            digest.update(piece)
        self._same("gives other bytes", digest.hexdigest(), self.staged.sha256)
        return "with the SHA-256 that was stored"

    def _bounded(self, answer: bearer.Answer) -> Iterator[bytes]:
        """Read all, for a day at most; its size is held by the header that was compared."""
        end = self.clock.monotonic() + _SECONDS_OF_ALL
        for piece in answer.pieces():
            if self.clock.monotonic() > end:
                raise CheckFailedError("the URL is too slow: it gave no end within a day")
            yield piece

    def _same(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            raise DamagedError(
                f"the URL {what} than were stored: what it gives is not the snapshot",
                "find out what lies between here and the bucket",
            )
