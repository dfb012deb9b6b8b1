"""Random histories, recorded while etcd's members change places: each point is what a server said.

It is the same with etcd 3.4, and where the store is a real S3 server.
"""

import hashlib
import time

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.repo.catalogue import Repository
from backstay.repo.url import Access, open_store
from kit import needs, s3
from kit.etcd import Etcd, EtcdCluster
from kit.histories import Player
from kit.recording import Recording, at, hashkv_at
from kit.world import restored


def restart(cluster, player):
    """Another member than the one that is written to is killed, and comes back."""
    other = next(member for member in cluster.followers() if member is not player.etcd)
    other.kill()
    player.play(6)
    other.launch()


def move_leader(cluster, player):
    """Another member leads from now on."""
    before = cluster.leader()
    other = next(member for member in cluster.followers())
    told = other.ctl_json("endpoint", "status")[0]["Status"]["header"]["member_id"]
    before.ctl("move-leader", f"{told:x}")
    deadline = time.monotonic() + 30
    while cluster.leader() is before:
        assert time.monotonic() < deadline
    player.play(6)


def compact(cluster, player):
    with Client(player.etcd.access) as client:
        client.compact(player.revision - 5)
    player.play(6)


def said_by(etcd, revision):
    with Client(etcd.access) as client:
        return client.hashkv(client.endpoints[0], revision)


def assert_points(bench, said):
    for revision, found in said.items():
        with at(bench, revision) as (snapshot, _):
            assert snapshot.revision == revision
            assert hashkv_at(snapshot, found.compact_revision) == found.hash


@pytest.mark.parametrize("seed", [1, 2])
def test_promise_8_members_change_places_while_a_history_is_recorded(bench, tmp_path, seed):
    with EtcdCluster.start(tmp_path / "three", tls=None) as cluster:
        player = Player(cluster.members[0], seed=seed)
        player.play(20)
        said = {}
        with Recording.start(bench, cluster.access) as recording:
            recording.until(lambda f: f.fulls)
            for happens in (move_leader, restart, compact, move_leader, restart):
                happens(cluster, player)
                said[player.revision] = said_by(player.etcd, player.revision)
            recording.until(lambda f: f.sealed >= player.revision)
            assert recording.figures.lineages == 1
            assert recording.figures.gaps == 0
        (entry,) = bench.listed
        assert entry.manifest.revision < min(said)
        assert_points(bench, said)


@pytest.mark.parametrize("version", ["3.5", "3.4"])
def test_promise_8_a_real_etcd_starts_with_each_point_of_either_version(bench, tmp_path, version):
    binary = needs.debian("etcd") if version == "3.4" else None
    said = {}
    with Etcd.start(tmp_path / "plain", tls=None, binary=binary) as etcd:
        player = Player(etcd, seed=34)
        player.play(20)
        with Recording.start(bench, etcd.access) as recording:
            recording.until(lambda f: f.fulls)
            for _ in range(5):
                player.play(10)
                said[player.revision] = said_by(etcd, player.revision)
            recording.until(lambda f: f.sealed >= player.revision)
            assert (recording.figures.lineages, recording.figures.fulls) == (1, 1)
    assert_points(bench, said)
    last = max(said)
    with at(bench, last) as (snapshot, _):
        copy, data = tmp_path / "copy.db", snapshot.bolt.image.data[: snapshot.size]
        copy.write_bytes(data + hashlib.sha256(data).digest())
    restored(copy, tmp_path / "again")
    with Etcd.start(tmp_path / "again", tls=None) as again:
        assert said_by(again, last).hash == said[last].hash


def test_a_recording_in_a_real_s3_server(bench, tmp_path, monkeypatch):
    with s3.plain(tmp_path / "s3") as server, Etcd.start(tmp_path / "plain", tls=None) as etcd:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        bench.store = open_store(f"s3://{s3.BUCKET}/recorded", Access(allow_http=True))
        bench.repository = Repository.init(bench.store, bench.repository.config)
        player = Player(etcd, seed=5)
        player.play(10)
        said = {}
        with Recording.start(bench, etcd.access) as recording:
            recording.until(lambda f: f.fulls)
            for _ in range(3):
                player.play(10)
                said[player.revision] = said_by(etcd, player.revision)
            recording.until(lambda f: f.sealed >= player.revision)
        # Another one goes on there.
        with Recording.start(bench, etcd.access) as recording:
            player.play(10)
            said[player.revision] = said_by(etcd, player.revision)
            recording.until(lambda f: f.sealed >= player.revision)
            assert recording.figures.lineages == 0
        assert_points(bench, said)
