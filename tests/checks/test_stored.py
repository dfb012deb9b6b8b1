import hashlib

import pytest

from backstay.checks.question import ask
from backstay.checks.stored import stored
from backstay.checks.transfer import transfer
from backstay.clock import SystemClock
from backstay.mvcc.snapshot import Trailer
from backstay.repo.manifest import ObjectEntry
from backstay.repo.stores.file import FileStore
from backstay.report import Verdict
from kit.faulty_store import Fault, FaultyStore

DATA = b"what was sealed" * 1000
PATH = "clusters/prod/objects/x/snapshot.zst"


@pytest.fixture
def store(tmp_path):
    store = FileStore(tmp_path)
    store.put_new(PATH, DATA)
    return store


def entry(data=DATA, path=PATH):
    digest = hashlib.sha256(data).hexdigest()
    return ObjectEntry(
        path=path,
        role="snapshot",
        size=1,
        sha256="0" * 64,
        stored_size=len(data),
        stored_sha256=digest,
    )


def verdict(store, *entries):
    came = []
    check = ask("stored", lambda: stored(store, entries, came.append), SystemClock())
    return check.verdict, sum(came), check.detail


def test_what_is_there_passes_and_is_counted(store):
    assert verdict(store, entry())[:2] == (Verdict.PASS, len(DATA))


def test_other_bytes_fail(store):
    other = DATA[:-1] + b"x"
    found = verdict(store, entry(other))
    assert found[0] is Verdict.FAIL
    assert hashlib.sha256(DATA).hexdigest() in found[2]


def test_another_size_fails_before_anything_is_read(store):
    assert verdict(store, entry(DATA + b"x"))[:2] == (Verdict.FAIL, 0)


def test_what_is_gone_fails(store):
    assert verdict(store, entry(), entry(path=f"{PATH}.2"))[0] is Verdict.FAIL


def test_promise_4_a_store_that_does_not_answer_is_no_pass(store):
    for number in range(1, 4):
        for fault in (Fault.REFUSE, Fault.ERROR, Fault.STALL):
            found = verdict(FaultyStore(store, {number: fault}), entry())
            assert found[0] is Verdict.COULD_NOT_VERIFY


@pytest.mark.parametrize(
    ("trailer", "sha256", "received", "expected"),
    [
        (Trailer.MATCHES, "aa", "aa", Verdict.PASS),
        (Trailer.MATCHES, "aa", "bb", Verdict.FAIL),
        (Trailer.MISMATCH, "aa", "aa", Verdict.FAIL),
        (Trailer.ABSENT, "aa", "aa", Verdict.COULD_NOT_VERIFY),
    ],
)
def test_what_was_sent_and_what_was_spooled(trailer, sha256, received, expected):
    assert transfer(trailer, sha256=sha256, received=received).verdict is expected
