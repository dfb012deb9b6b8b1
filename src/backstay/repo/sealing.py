"""Sealing: snapshot bytes to a stored object and back, in one pass and bounded memory.

A sealed object is a zstd frame inside an age file, or the frame alone where a repository is not
encrypted: `age -d | zstd -d` opens it (promise 2). Source: docs/formats.md; RFC 8878; the age
specification (age-encryption.org/v1), X25519 recipients.

On the way in, sizes and SHA-256 are taken on both sides. On the way out nothing that the store
or the manifest says is believed before the end: `unseal` returns only when both sizes and both
digests are what they should be. Plaintext has reached the sink by then, so whoever calls it must
publish nothing before it has returned.

pyrage pulls 8 KiB at a time from a file-like object and holds the interpreter while it encrypts;
zstd works in threads of its own beside it.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO

import pyrage

from backstay.errors import DamagedError, SealError
from backstay.repo.config import Encryption
from backstay.repo.identity import Identities
from backstay.repo.manifest import ObjectEntry
from backstay.repo.packing import PIECE, Packed, Readable, Sealing, Unpacked, compare
from backstay.repo.store import Store, Writer

__all__ = ["Sealed", "Sealing", "opens", "seal", "unseal", "unseal_unlisted"]

#: A recipient takes about 100 bytes. pyrage takes quadratic time over an endless header.
_HEADER_LIMIT = 64 << 10
_HEADER_END = re.compile(rb"\n--- [^\n]*\n")
_NO_KEY = "No matching keys"
#: Follows the header; without it pyrage takes the header for cut.
_NONCE = 16
_STANZA = re.compile(rb"^-> X25519 ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Sealed:
    """What became of a source.

    Attributes:
        size: bytes that came from the source.
        sha256: of these, hex.
        stored_size: bytes that went to the store.
        stored_sha256: of these, hex.
    """

    size: int
    sha256: str
    stored_size: int
    stored_sha256: str

    def entry(self, path: str, role: str) -> ObjectEntry:
        """Describe the object that it became."""
        return ObjectEntry(
            path=path,
            role=role,
            size=self.size,
            sha256=self.sha256,
            stored_size=self.stored_size,
            stored_sha256=self.stored_sha256,
        )


def seal(
    source: Readable,
    store: Store,
    path: str,
    recipients: Sequence[str],
    sealing: Sealing | None = None,
) -> Sealed:
    """Compress, encrypt and store what a source gives; one pass, bounded memory.

    Args:
        source: read to its end.
        store: where the object goes.
        path: its name; the object exists when this function has returned.
        recipients: age public keys; none: it is not encrypted.
        sealing: how hard to compress.

    Raises:
        SealError: a recipient is none.
        StoreError: the store refuses.
        SpaceError: it is full.
    """
    try:
        keys = [pyrage.x25519.Recipient.from_str(text) for text in recipients]
    except pyrage.RecipientError:
        raise SealError("a recipient of the repository is no age recipient") from None
    packed = Packed(source, sealing or Sealing())
    with store.writer(path) as sink:
        stored = _Counted(sink)
        if keys:
            _encrypt(packed, stored, keys)
        else:
            while piece := packed.read(PIECE):
                stored.write(piece)
    return Sealed(packed.size, packed.digest.hexdigest(), stored.size, stored.digest.hexdigest())


def unseal(  # noqa: PLR0917 - what, where from, where to, by what: callers have all at hand
    store: Store,
    stored: ObjectEntry,
    sink: Writer,
    identities: Identities | None,
    encryption: Encryption,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Fetch, decrypt and unpack an object, and prove it equal to its manifest's entry.

    What is in the sink counts for nothing unless this function returns.

    Args:
        store: where the object lies.
        stored: what the manifest says of it.
        sink: gets the bytes in the clear, never more than the manifest says.
        identities: private keys; not needed where nothing is encrypted.
        encryption: of the repository.
        progress: called with each number of stored bytes that came.

    Raises:
        SealError: none of the identities opens it.
        DamagedError: it is not what was stored, or not what the manifest says.
        NotFoundError: it is gone.
        StoreError: the store refuses.
    """
    came, unpacked = _open(store, stored, sink, identities, encryption, progress)
    unpacked.finish()
    came.finish()


def unseal_unlisted(
    store: Store,
    path: str,
    sink: Writer,
    *,
    identities: Identities | None,
    encryption: Encryption,
    size: int,
    stored_size: int,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Fetch, decrypt and unpack an object that no manifest speaks of.

    age and zstd tell where it was cut or changed; whether it is what it should be, its content
    must tell.

    Args:
        store: where the object lies.
        path: its name.
        sink: gets the bytes in the clear, never more than `size`.
        identities: private keys; not needed where nothing is encrypted.
        encryption: of the repository.
        size: bytes that must come.
        stored_size: bytes that the store says it has.
        progress: called with each number of stored bytes that came.

    Raises:
        SealError: none of the identities opens it.
        DamagedError: it is cut, changed, or not of that size.
        NotFoundError: it is gone.
        StoreError: the store refuses.
    """
    stored = ObjectEntry(
        path=path, role="", size=size, sha256="", stored_size=stored_size, stored_sha256=""
    )
    came, unpacked = _open(store, stored, sink, identities, encryption, progress)
    unpacked.end()
    came.end()


def _open(  # noqa: PLR0917 - see `unseal`
    store: Store,
    stored: ObjectEntry,
    sink: Writer,
    identities: Identities | None,
    encryption: Encryption,
    progress: Callable[[int], None] | None,
) -> "tuple[_Pieces, Unpacked]":
    """Decrypt and unpack; what is left in both must still be looked at."""
    came = _Pieces(store.stream(stored.path), stored, progress)
    unpacked = Unpacked(sink, stored)
    if encryption is Encryption.AGE:
        if identities is None:
            raise SealError(
                f"{stored.path} is encrypted",
                "name the file with the age identity: --identity or BACKSTAY_IDENTITY",
            )
        _decrypt(came, unpacked, identities)
    else:
        while piece := came.read(PIECE):
            unpacked.write(piece)
    return came, unpacked


def opens(store: Store, stored: ObjectEntry, identities: Identities) -> bool:
    """Tell whether one of the identities opens an object, from its first bytes alone.

    That the header's own MAC fits is proven by it; what comes after the header is not looked at.

    Args:
        store: where the object lies.
        stored: what the manifest says of it.
        identities: private keys.

    Raises:
        DamagedError: it is no age file, or its header was changed.
        NotFoundError: it is gone.
        StoreError: the store refuses.
    """
    came = _Pieces(store.stream(stored.path), stored, None)
    start = BytesIO(came.start(_NONCE))
    try:
        pyrage.decrypt_io(start, BytesIO(), list(identities.keys))
    except pyrage.DecryptError as error:
        if _NO_KEY in str(error):
            return False
        raise DamagedError(
            f"{came.name} is damaged or cut short: {error}", "use another backup"
        ) from None
    except OSError:
        # The header was good, and the key of the file was found: it is the payload that ends here.
        return True
    return True


def _encrypt(packed: Packed, stored: "_Counted", keys: list[pyrage.x25519.Recipient]) -> None:
    try:
        pyrage.encrypt_io(packed, stored, keys)
    except pyrage.EncryptError as error:
        _raise_cause(packed, stored)
        raise SealError(f"encryption failed: {error}") from error
    # It writes the last bytes when it is done, and drops what goes wrong then.
    _raise_cause(packed, stored)


def _decrypt(came: "_Pieces", unpacked: Unpacked, identities: Identities) -> None:
    header = came.header()
    try:
        pyrage.decrypt_io(came, unpacked, list(identities.keys))
    except (pyrage.DecryptError, OSError) as error:
        _raise_cause(came, unpacked)
        if isinstance(error, pyrage.DecryptError) and _NO_KEY in str(error):
            mine, theirs = len(identities.keys), len(_STANZA.findall(header))
            raise SealError(
                f"{came.name} is sealed to {theirs} recipient{'s'[: theirs != 1]}, and"
                f" {identities.name} holds the key of none of them ({mine} tried)",
                "give the identity of one of the recipients that `backstay show` names",
            ) from None
        raise DamagedError(
            f"{came.name} is damaged or cut short: {error}", "use another backup"
        ) from None
    _raise_cause(came, unpacked)


def _raise_cause(*ends: "Packed | Unpacked | _Counted | _Pieces") -> None:
    """Raise what a callback raised: pyrage hands on no more than its text, if that."""
    for end in ends:
        cause, end.error = end.error, None
        if cause is None:
            continue
        try:
            raise cause from None
        finally:
            # Its traceback has this frame: a cycle, which would keep the files of all others.
            del cause


class _Counted:
    """A sink that counts and hashes what goes through: a file to write to."""

    def __init__(self, sink: Writer) -> None:
        self._sink = sink
        self.size = 0
        self.digest = hashlib.sha256()
        self.error: BaseException | None = None

    def write(self, data: bytes, /) -> int:
        try:
            self._sink.write(data)
        except BaseException as error:
            self.error = self.error or error
            raise
        self.size += len(data)
        self.digest.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


class _Pieces:
    """The stored bytes of an object, counted, hashed and bounded: a file to read from."""

    def __init__(
        self,
        pieces: Iterable[bytes],
        stored: ObjectEntry,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._pieces = iter(pieces)
        self._stored = stored
        self._progress = progress
        self._ready = memoryview(b"")
        self._size = 0
        self._digest = hashlib.sha256() if stored.stored_sha256 else None
        self.error: BaseException | None = None

    @property
    def name(self) -> str:
        return self._stored.path

    def header(self) -> bytes:
        """Look at the header of the age file; it stays to be read."""
        data = b""
        while not (end := _HEADER_END.search(data[:_HEADER_LIMIT])):
            piece = self._next() if len(data) < _HEADER_LIMIT else b""
            if not piece:
                raise DamagedError(f"{self.name} is no age file, or damaged", "use another backup")
            data += piece
        self._ready = memoryview(data)
        return data[: end.end()]

    def start(self, more: int) -> bytes:
        """Take the header, and at least some bytes more where there are as many."""
        end = len(self.header()) + more
        data = bytes(self._ready)
        while len(data) < end and (piece := self._next()):
            data += piece
        return data

    def read(self, size: int, /) -> bytes:
        try:
            if not self._ready:
                self._ready = memoryview(self._next())
        except BaseException as error:
            self.error = self.error or error
            raise
        piece = bytes(self._ready[:size])
        self._ready = self._ready[size:]
        return piece

    def _next(self) -> bytes:
        piece = next(self._pieces, b"")
        self._size += len(piece)
        if self._size > self._stored.stored_size:
            raise DamagedError(
                f"{self.name} has more than the {self._stored.stored_size} bytes that were stored",
                "use another backup",
            )
        if self._digest:
            self._digest.update(piece)
        if piece and self._progress is not None:
            self._progress(len(piece))
        return piece

    def finish(self) -> None:
        """Read what is left, and hold all to what was stored."""
        self.end()
        found = self._digest.hexdigest() if self._digest else ""
        compare(self.name, "in the store", found, self._stored.stored_sha256)

    def end(self) -> None:
        """Read what is left, and hold its size to what was stored."""
        while self._next():
            pass
        compare(self.name, "in the store", self._size, self._stored.stored_size)
