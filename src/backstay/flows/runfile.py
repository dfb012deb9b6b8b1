"""Metrics of one run: that it was, how it ended, and when it last ended well.

Each run replaces its own lines of a textfile and leaves those of others. What a failed run
knows nothing of, when one last went well, is taken over from the lines that it replaces.
"""

from dataclasses import dataclass
from pathlib import Path

from backstay.exposition import Family, Sample, alone, read_textfile, write_textfile
from backstay.flows.metrics import verdicts
from backstay.repo.measure import Verdicts

_LABELS = ("command", "cluster", "repository")

ENDED = Family("backstay_run_timestamp_seconds", "When the last run ended.", _LABELS)
CODE = Family("backstay_run_exit_code", "The exit code of the last run.", _LABELS)
SECONDS = Family("backstay_run_duration_seconds", "Seconds that the last run took.", _LABELS)
GOOD = Family("backstay_run_good_timestamp_seconds", "When a run last ended with 0.", _LABELS)
CHECKS = Family(
    "backstay_run_checks", "Checks of the last run, by their verdict.", (*_LABELS, "verdict")
)

FAMILIES = (ENDED, CODE, SECONDS, GOOD, CHECKS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a command, when it is over.

    Attributes:
        command: as `backup etcd`.
        cluster: whose backup it was about; empty where it was about all of them, or a file.
        repository: its URL; empty where there was none.
        ended: seconds since 1970.
        seconds: that it took.
        code: that the process exits with.
        verdicts: of its checks.
    """

    command: str
    cluster: str
    repository: str
    ended: float
    seconds: float
    code: int
    verdicts: Verdicts

    @property
    def labels(self) -> tuple[str, str, str]:
        """What tells its lines from those of other runs."""
        return self.command, self.cluster, self.repository


def write_run(path: Path, run: Run) -> None:
    """Put a run into a textfile; lines of other commands and clusters stay.

    Raises:
        FormatError: there is a file, and it is no textfile of metrics.
        RefusedError: it has other metrics than ours.
        BackstayError: it can't be read or written.
    """
    with alone(path.parent):
        write_textfile(path, merged(read_textfile(path, FAMILIES), run))


def merged(before: tuple[Sample, ...], run: Run) -> tuple[Sample, ...]:
    """Replace the lines of a run, but keep when it last went well."""
    good = run.ended if run.code == 0 else _last_good(before, run.labels)
    others = (sample for sample in before if sample.labels[:3] != run.labels)
    own = [
        ENDED.of(*run.labels, value=run.ended),
        CODE.of(*run.labels, value=run.code),
        SECONDS.of(*run.labels, value=run.seconds),
        *verdicts(CHECKS, run.labels, run.verdicts),
    ]
    if good is not None:
        own.append(GOOD.of(*run.labels, value=good))
    return (*others, *own)


def _last_good(before: tuple[Sample, ...], labels: tuple[str, str, str]) -> float | None:
    return next((one.value for one in before if one.family == GOOD and one.labels == labels), None)
