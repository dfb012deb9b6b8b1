"""The archive that lies beside some keyrings: secrets that a restore needs as files.

    clusters/CLUSTER/keyrings/TIME-RAND.tar.gz.zst.age

A control plane host's static pod resources are tens of megabytes, so an archive is an object of
its own: sealed in one pass, never whole in memory. It is part of a keyring when the keyring's
header names it, and that is written last.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from backstay.errors import FormatError, NotFoundError, StoreError
from backstay.repo.catalogue import Repository
from backstay.repo.config import Encryption
from backstay.repo.identity import Identities
from backstay.repo.keyring_document import MAX_ARCHIVE, KeyringHeader
from backstay.repo.manifest import ObjectEntry
from backstay.repo.packing import Readable
from backstay.repo.sealing import seal, unseal
from backstay.repo.store import Store, Writer

#: How the name of an archive ends.
SUFFIX = ".tar.gz.zst.age"
#: The role of an archive among objects.
ROLE = "archive"


def seal_archive(repository: Repository, archive: Readable, path: str) -> ObjectEntry:
    """Seal and store an archive, and compare what the store has with what went there.

    It can't be opened here: the writer can't read.

    Args:
        repository: one for keys.
        archive: its bytes in the clear, read once to the end.
        path: its name.

    Raises:
        FormatError: it is larger than any archive.
        SealError: it can't be sealed.
        StoreError: the store refuses, or did not keep what was written.
    """
    store = repository.store
    source = _Bounded(archive)
    entry = seal(source, store, path, repository.config.recipients).entry(path, ROLE)
    if not _is_there(store, entry):
        raise StoreError(
            f"{store.url}/{path} is not what was written to it, so the archive is not saved",
            "find out why the store changes what it is given",
        )
    return entry


def _is_there(store: Store, entry: ObjectEntry) -> bool:
    try:
        if store.stat(entry.path).size != entry.stored_size:
            return False
        digest = hashlib.sha256()
        for piece in store.stream(entry.path):
            digest.update(piece)
    except NotFoundError:
        return False
    return digest.hexdigest() == entry.stored_sha256


def fetch_archive(
    repository: Repository,
    header: KeyringHeader,
    sink: Writer,
    identities: Identities | None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Fetch, decrypt and unpack the archive of a keyring, and hold it to the keyring's header.

    What is in the sink counts for nothing unless this function returns.

    Args:
        repository: where it lies.
        header: of the keyring, from `keyring.find`.
        sink: gets the bytes in the clear.
        identities: private keys.
        progress: called with each number of stored bytes that came.

    Raises:
        NotFoundError: the keyring has no archive, or it is gone.
        DamagedError: it is not what the header says.
        SealError: none of the identities opens it.
        StoreError: the store refuses.
    """
    if header.archive is None:
        raise NotFoundError(
            f"no archive was saved with the keyring {header.id}", "use another backup"
        )
    unseal(
        repository.store,
        header.archive,
        sink,
        identities=identities,
        encryption=Encryption.AGE,
        progress=progress,
    )


@dataclass(slots=True)
class _Bounded:
    """A source that ends in an error where it goes on beyond what an archive may have."""

    source: Readable
    size: int = 0

    def read(self, size: int, /) -> bytes:
        piece = self.source.read(size)
        self.size += len(piece)
        if self.size > MAX_ARCHIVE:
            raise FormatError(
                f"the archive has more than {MAX_ARCHIVE} bytes", "look at what is in it"
            )
        return piece
