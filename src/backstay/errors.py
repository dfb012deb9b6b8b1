"""Every error that Backstay raises on purpose, in one tree.

An error says in one line what happened, to what, and what to do about it. Its class fixes
the exit code of the process. An exception that is not of this tree is a defect.
"""

from typing import ClassVar


class BackstayError(Exception):
    """Something could not be done.

    Args:
        what: what happened, and to what; no full stop at the end.
        do: what the reader can do about it, as an imperative; may be empty.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, do: str = "") -> None:
        super().__init__(what, do)
        self.what = what
        self.do = do

    def __str__(self) -> str:
        return f"{self.what}: {self.do}" if self.do else self.what


class UsageError(BackstayError):
    """The command was called with arguments or settings that make no sense."""

    exit_code = 2


class CheckFailedError(BackstayError):
    """A check asked its question and the answer was no."""

    exit_code = 3


class DamagedError(CheckFailedError):
    """A file, an object or a stream is not what it claims to be."""


class NotVerifiedError(BackstayError):
    """A check could not be run, so nothing is proven either way."""

    exit_code = 4


class RefusedError(BackstayError):
    """A guard said no: a rule that can be lifted by name, or a thing that is already there."""

    exit_code = 5


class NotFoundError(BackstayError):
    """What was asked for by name is not there."""


class GapError(NotFoundError):
    """Some revisions on the way to the one that was asked for are not recorded."""


class FormatError(BackstayError):
    """A document (manifest, configuration, identity) can't be understood, or is too new."""


class StoreError(BackstayError):
    """The store of a repository refused, failed or could not be reached."""


class AlreadyExistsError(RefusedError):
    """A name that must be new is taken."""


class SpaceError(BackstayError):
    """There is too little room on a disk."""


class SealError(BackstayError):
    """A sealed object can't be opened, or can't be sealed."""


class EtcdError(BackstayError):
    """A running etcd answered with an error."""


class ConnectionFailedError(EtcdError):
    """No connection to etcd: wrong address, wrong certificate, or nobody there."""


class AuthenticationError(EtcdError):
    """etcd does not accept the user, the password or the client certificate."""


class EtcdUnavailableError(EtcdError):
    """A member is there but can't answer now: silent, stopping, overloaded or without a leader."""


class CompactedError(EtcdError):
    """A revision was asked for that etcd has compacted away.

    Args:
        what: what happened.
        do: what the reader can do.
        revision: at which it is compacted; 0 where etcd does not say so.
    """

    def __init__(self, what: str, do: str = "", revision: int = 0) -> None:
        super().__init__(what, do)
        self.revision = revision


class StreamError(EtcdError):
    """A snapshot stream was cut, stalled, over-long or did not match its own checksum."""


class KubeError(BackstayError):
    """The Kubernetes API refused, failed or could not be reached."""


class KubeForbiddenError(KubeError):
    """The Kubernetes API knows us, and does not allow it."""


class KubeLoginError(KubeForbiddenError):
    """The Kubernetes API does not know us, or not any more."""


class KubeNotFoundError(KubeError, NotFoundError):
    """The Kubernetes API has no such object."""


class KubeConflictError(KubeError):
    """An object was changed by someone else meanwhile, or exists already."""


class KubeStreamError(KubeError):
    """A stream through the Kubernetes API (exec, port-forward, log) was cut or stalled."""


class QuiesceError(BackstayError):
    """What writes to a control plane's etcd could not be stopped, or not be put back."""


class ToolError(BackstayError):
    """One of etcd's own programs is missing, unfit or failed."""
