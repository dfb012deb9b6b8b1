"""What dead runs left in a repository for keys: found by what they left of data, and deleted."""

from backstay.errors import BackstayError
from backstay.repo import keyring as keyrings
from backstay.repo import leftovers
from backstay.repo.catalogue import Repository
from backstay.report import Report


def sweep_keys(data: Repository, keys: Repository, report: Report) -> None:
    """Delete keyrings of backups that never came to be; what stands is not touched.

    It comes before a sweep of the data: what is there of a dead run tells that there never was a
    backup, and nothing else does.

    Args:
        data: the repository of the backups.
        keys: that of their keyrings.
        report: is told what was deleted, and warned where that can't be done.
    """
    try:
        swept = keyrings.sweep(keys)
        dead = leftovers.dead_runs(data)
        lost = keyrings.of_runs(keys, data.config.repository, dead)
        for one in lost:
            keyrings.remove(keys, one)
    except BackstayError as error:
        report.warn(f"what dead runs left of keys could not be swept: {error}")
        return
    number = len(swept.paths) + len(lost)
    if number:
        report.say(f"swept {number} keyrings of backups that never came to be")
