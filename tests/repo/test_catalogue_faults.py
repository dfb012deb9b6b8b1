"""A catalogue whose store, or whose reader, stops in the middle."""

import time
from datetime import UTC, datetime

import pytest

from backstay.errors import StoreError
from backstay.repo.catalogue import Repository
from backstay.repo.config import Role, new_config
from backstay.repo.stores.file import FileStore
from kit.faulty_store import Fault, FaultyStore
from kit.manifests import manifest

NOW = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)
NUMBER = 120


@pytest.fixture
def full(tmp_path):
    """A repository with many manifests."""
    repository = Repository.init(FileStore(tmp_path), new_config(Role.DATA, [], {}, NOW))
    for number in range(NUMBER):
        # By their revisions they have names of their own: the random part alone is short.
        made = manifest(repository=repository.config.repository, revision=1000 + number)
        repository.publish(made)
    return repository


class Slow(FileStore):
    """A store that takes a moment for each object, and fails at the first."""

    def __init__(self, folder, error):
        super().__init__(folder)
        self.error = error
        self.reads = 0

    def read(self, path, limit):
        self.reads += 1
        if self.reads == 1:
            raise self.error
        time.sleep(0.02)
        return super().read(path, limit)


@pytest.mark.parametrize("error", [StoreError("refused"), KeyboardInterrupt()])
def test_what_has_not_begun_when_it_fails_never_does(full, tmp_path, error):
    """Also where somebody wants us to stop: else each of thousands is waited for."""
    store = Slow(tmp_path, error)
    with pytest.raises(type(error)):
        Repository(store, full.config).backups()
    assert store.reads < NUMBER / 2


@pytest.mark.parametrize("fault", [Fault.SHORT, Fault.CUT, Fault.ERROR, Fault.REFUSE])
def test_a_manifest_is_read_back_before_anything_is_called_a_backup(full, fault):
    made = manifest(repository=full.config.repository)
    store = FaultyStore(full.store, {1: fault})
    with pytest.raises(StoreError):
        Repository(store, full.config).publish(made)
    listed = [entry.manifest.id for entry in full.backups()]
    # Where the answer alone was lost it is there, and whole; else nothing of it is.
    assert (made.id in listed) == (fault is Fault.ERROR)
    assert len(listed) == NUMBER + (fault is Fault.ERROR)
