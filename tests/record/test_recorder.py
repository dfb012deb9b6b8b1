"""The recorder on real etcds: nothing is lost, nothing is doubled, no two lives are mixed."""

import random

import pytest

from backstay.client.etcd import Etcd as Client
from kit.etcd import Etcd
from kit.histories import Player
from kit.recording import Recording, at, hashkv_at


@pytest.fixture
def plain(tmp_path):
    """An etcd without TLS, for its JSON gateway."""
    with Etcd.start(tmp_path / "plain", tls=None) as etcd:
        yield etcd


def test_promise_8_what_was_recorded_is_what_the_server_said_at_every_revision(bench, plain):
    player = Player(plain, seed=7)
    player.play(20)
    said = {}
    with Client(plain.access) as client:
        with Recording.start(bench, plain.access) as recording:
            recording.until(lambda f: f.fulls)
            for _ in range(8):
                player.play(12)
                found = client.hashkv(client.endpoints[0], player.revision)
                said[player.revision] = found
                if len(said) == 4:
                    client.compact(player.revision - 5)
            recording.until(lambda f: f.sealed >= player.revision)
        assert recording.whole
        (entry,) = bench.listed
        base = entry.manifest.revision
        assert base < min(said)
        for revision, found in said.items():
            with at(bench, revision) as (snapshot, point):
                assert point.deltas
                assert snapshot.revision == revision
                first = entry.manifest.snapshots[0].compact_revision
                # As compacted where the server was: what is older counts as that leaves it.
                assert found.compact_revision >= first
                assert hashkv_at(snapshot, found.compact_revision) == found.hash
    random.seed()
