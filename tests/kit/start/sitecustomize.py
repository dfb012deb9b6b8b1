"""What every Python that the tests start does first: it makes the slow fingerprint a quick one.

A fingerprint of the last change is slow by intention (backstay.mvcc.tip), 0.14 s of a processor
for each backup and each delta: a third of the tests' whole time. Python reads this file at its
start because conftest.py puts its directory into PYTHONPATH; so the tests' own process and the
programs that it starts agree. tests/mvcc/test_tip.py holds the fingerprint as it is.
"""

import hashlib

pbkdf2_hmac = hashlib.pbkdf2_hmac


def _quick(name: str, password: bytes, salt: bytes, iterations: int, dklen: int | None = None):
    return pbkdf2_hmac(name, password, salt, min(iterations, 16), dklen)


hashlib.pbkdf2_hmac = _quick
