"""transfer: is what lies in the spool what etcd sent?

etcd ends its stream with the SHA-256 of all that went before. It was compared while the bytes came
in; here the file that was written is read again and compared with both, so that a disk that
lies is found as well.
"""

from backstay.checks.question import Answer, failed, passed, unknown
from backstay.mvcc.snapshot import Trailer

NAME = "transfer"


def transfer(trailer: Trailer, *, sha256: str, received: str) -> Answer:
    """Compare the spooled file with its trailer, and with what came in.

    Args:
        trailer: how the file's own SHA-256 compares with its bytes, read again.
        sha256: of the database, as it is in the file; hex.
        received: the same, as it was while it came in; hex.
    """
    if trailer is Trailer.ABSENT:
        return unknown("there is no SHA-256 at the end of the file: etcd's stream always has one")
    if trailer is Trailer.MISMATCH:
        return failed("the SHA-256 at the end of the file is not that of its bytes")
    if sha256 != received:
        return failed(f"the file has SHA-256 {sha256}, but {received} came in")
    return passed(f"SHA-256 {sha256} as etcd sent it")
