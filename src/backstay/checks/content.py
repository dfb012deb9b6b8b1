"""content: do revisions rise, does every value parse, does the history hold together?"""

from backstay.checks.question import Answer, failed, passed, unknown
from backstay.errors import DamagedError
from backstay.mvcc.content import Content

NAME = "content"


def content(found: Content | DamagedError | None) -> Answer:
    """Judge what the look into bucket `key` came to; None: there was no looking."""
    if found is None:
        return unknown("the structure is too damaged to look")
    if isinstance(found, DamagedError):
        return failed(str(found))
    return passed(
        f"{found.elements} elements, {found.tombstones} of them tombstones, up to revision"
        f" {found.revision}"
    )
