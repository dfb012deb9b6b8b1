"""What dead runs leave is no backup, and is swept when nobody can still be at it."""

import io
import os
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from backstay.errors import StoreError
from backstay.repo import keyring, leftovers
from backstay.repo.catalogue import Repository
from backstay.repo.config import Encryption, Role, new_config
from backstay.repo.document import encode
from backstay.repo.identity import Identities, generate
from backstay.repo.manifest import ObjectEntry
from backstay.repo.name import Run
from backstay.repo.sealing import seal, unseal
from backstay.repo.stores.file import FileStore
from kit.faulty_store import TOLD, Fault, FaultyStore
from kit.manifests import manifest

NOW = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)


def test_promise_1_an_unfinished_file_is_swept_when_it_is_old(tmp_path):
    repository = Repository.init(FileStore(tmp_path), new_config(Role.DATA, [], {}, NOW))
    folder = tmp_path / "clusters" / "prod" / "objects"
    folder.mkdir(parents=True)
    young, old = folder / ".a.00000001.part", folder / ".b.00000002.part"
    for file in (young, old):
        file.write_bytes(b"half")
    long_ago = time.time() - timedelta(hours=25).total_seconds()
    os.utime(old, (long_ago, long_ago))
    assert leftovers.sweep(repository).paths == ("clusters/prod/objects/.b.00000002.part",)
    assert young.exists()
    assert not old.exists()


@pytest.mark.parametrize(
    ("role", "sweep"), [(Role.DATA, leftovers.sweep), (Role.KEYS, keyring.sweep)]
)
def test_what_a_killed_init_left_of_its_probe_is_swept_when_it_is_old(tmp_path, role, sweep):
    _, recipient = generate(NOW)
    repository = Repository.init(FileStore(tmp_path), new_config(role, [recipient], {}, NOW))
    repository.store.put_new("probe/0a1b2c3d/small", b"first")
    assert sweep(repository).paths == ()
    _age(tmp_path, timedelta(hours=25))
    assert sweep(repository).paths == ("probe/0a1b2c3d/small",)
    assert not list(repository.store.list("probe"))


@pytest.mark.parametrize("fault", TOLD)
def test_promise_1_whatever_fails_a_backup_is_listed_whole_or_not_at_all(tmp_path, fault):
    """Every operation of storing a backup fails once; what is listed then can be read."""
    text, recipient = generate(NOW)
    identities = Identities.parse(text.encode(), "identity")
    data = os.urandom(200_000)
    inner = FileStore(tmp_path)
    repository = Repository.init(inner, new_config(Role.DATA, [recipient], {}, NOW))
    done = number = 0
    while not done:
        number += 1
        store = FaultyStore(inner, {number: fault})
        try:
            _back_up(store, repository.config, data)
            done = len(store.operations) < number
        except StoreError:
            assert len(store.operations) >= number
        for entry in repository.backups():
            sink = io.BytesIO()
            unseal(inner, entry.manifest.objects[0], sink, identities, Encryption.AGE)
            assert sink.getvalue() == data
    # All but the last had a fault. One of these had all done when the manifest could not be read
    # back, and one when the answer to its put was lost.
    assert len(repository.backups()) == (3 if fault is Fault.ERROR else 2)
    assert number > 6
    _age(tmp_path, timedelta(hours=25))
    leftovers.sweep(repository)
    whole = {item.path for entry in repository.backups() for item in entry.manifest.objects}
    assert {info.path for info in inner.list("clusters/prod/objects")} == whole


def _back_up(store, config, data):
    run = Run.begin("prod", NOW)
    path = f"{run.folder}snapshot{config.suffix}"
    made = seal(io.BytesIO(data), store, path, config.recipients)
    entry = ObjectEntry(path=path, role="snapshot", **asdict(made))
    plain = manifest(repository=config.repository)
    whole = replace(
        plain,
        id=str(run.backup(plain.revision)),
        objects=(entry,),
        snapshots=(replace(plain.snapshots[0], object=path),),
    )
    Repository(store, config).publish(whole)


def _age(folder: Path, age: timedelta):
    when = time.time() - age.total_seconds()
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (when, when))


def test_promise_5_a_repository_holds_nothing_that_opens_it(tmp_path):
    text, recipient = generate(NOW)
    secret = text.splitlines()[-1]
    assert secret.startswith("AGE-SECRET-KEY-1")
    store = FileStore(tmp_path)
    config = new_config(Role.DATA, [recipient], {}, NOW)
    Repository.init(store, config)
    _back_up(store, config, b"password of the cluster " * 1000)
    stored = b"".join(b"".join(store.stream(info.path)) for info in store.list())
    assert recipient.encode() in stored
    assert secret.encode() not in stored
    assert b"password of the cluster" not in stored
    assert encode(config) in stored
