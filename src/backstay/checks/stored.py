"""stored: does the store have what was written to it?

The objects are read back, whole, and compared with what was counted while they were written. It
needs no identity.
"""

import hashlib
from collections.abc import Callable, Sequence

from backstay.checks.question import Answer, failed, passed
from backstay.repo.manifest import ObjectEntry
from backstay.repo.store import Store

NAME = "stored"


def stored(store: Store, objects: Sequence[ObjectEntry], progress: Callable[[int], None]) -> Answer:
    """Read objects back and compare size and SHA-256.

    Args:
        store: where they lie.
        objects: what they should be.
        progress: called with each number of bytes that was read.

    Raises:
        NotFoundError: an object is gone.
        StoreError: the store could not be asked.
    """
    for entry in objects:
        size = store.stat(entry.path).size
        if size != entry.stored_size:
            return failed(f"{entry.path} has {size} bytes in the store, not {entry.stored_size}")
        digest = hashlib.sha256()
        for chunk in store.stream(entry.path):
            digest.update(chunk)
            progress(len(chunk))
        if digest.hexdigest() != entry.stored_sha256:
            return failed(
                f"{entry.path} has SHA-256 {digest.hexdigest()} in the store,"
                f" not {entry.stored_sha256}"
            )
    total = sum(entry.stored_size for entry in objects)
    return passed(f"{total} bytes read back, size and SHA-256 as written")
