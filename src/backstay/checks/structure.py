"""structure: is every page of the bolt file in its place, once, in order?"""

from backstay.bolt.check import Structure
from backstay.checks.question import Answer, failed, passed
from backstay.errors import DamagedError

NAME = "structure"


def structure(found: Structure | DamagedError) -> Answer:
    """Judge what the walk over all pages came to."""
    if isinstance(found, DamagedError):
        return failed(str(found))
    return passed(f"{found.pages} pages, {found.elements} elements in {found.buckets} buckets")
