import hashlib
import os
import threading
import time

import pytest

from backstay.errors import SpaceError
from backstay.flows.spool import CutShortError, Spool


def read_all(follower, size=-1):
    parts = []
    while part := follower.read(size):
        parts.append(part)
    return b"".join(parts)


def test_a_reader_behind_gets_every_byte_and_waits_for_the_end(tmp_path):
    data = os.urandom(3_000_001)
    found = []
    with Spool(tmp_path) as spool:
        reader = threading.Thread(target=lambda: found.append(read_all(spool.follow(), 70_000)))
        reader.start()
        for start in range(0, len(data), 32_768):
            spool.write(memoryview(data)[start : start + 32_768])
        time.sleep(0.05)
        assert not found
        spool.finish()
        reader.join()
        assert spool.size == len(data)
    assert hashlib.sha256(found[0]).digest() == hashlib.sha256(data).digest()


def test_a_reader_behind_a_failed_spool_gets_an_error_not_an_end(tmp_path):
    with Spool(tmp_path) as spool:
        spool.write(b"half")
        follower = spool.follow()
        assert follower.read() == b"half"
        threading.Timer(0.05, spool.fail).start()
        with pytest.raises(CutShortError):
            follower.read()


def test_closing_wakes_a_reader(tmp_path):
    spool = Spool(tmp_path)
    threading.Timer(0.05, spool.close).start()
    with pytest.raises(CutShortError):
        spool.follow().read()


def test_promise_5_the_spool_has_no_name(tmp_path):
    with Spool(tmp_path) as spool:
        spool.write(b"secret")
        assert not list(tmp_path.iterdir())


def test_too_little_room_is_found_before_anything_comes(tmp_path):
    with pytest.raises(SpaceError, match="--spool-dir"):
        Spool(tmp_path, expected=1 << 60)
