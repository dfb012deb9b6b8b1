"""Repositories full of backups of some age, for tests that take some of them away.

    shelf = Shelf.make(tmp_path)                    # file://, with a repository for keys
    made = shelf.add(days=40, lineage="aa", revision=100)
    shelf.assert_whole(); shelf.assert_tidy()

Objects are small, and what their manifests say of them is true, so that `verify` reads them back.
"""

import os
import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec.structs import replace

from backstay.checks.stored import stored
from backstay.clock import SystemClock
from backstay.flows.prune import Options, Prune
from backstay.repo import keyring as keyrings
from backstay.repo.catalogue import Repository
from backstay.repo.config import Role, new_config
from backstay.repo.entry import Entry
from backstay.repo.identity import generate
from backstay.repo.keyring import Keyring, SavedKey
from backstay.repo.name import Run
from backstay.repo.note import Note
from backstay.repo.retention import Policy
from backstay.repo.store import Store
from backstay.repo.stores.file import FileStore
from backstay.report import Report, Verdict
from kit.manifests import checks, manifest

NOW = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)
CLOCK = SystemClock()
_, RECIPIENT = generate(NOW)


@dataclass
class Shelf:
    """A repository for data and one for keys.

    Attributes:
        repository: with the backups.
        keys: with their keyrings.
        roots: where the files of both are, by the URL of the store.
        said: what a prune reported.
    """

    repository: Repository
    keys: Repository
    roots: dict[str, Path]
    said: list = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path, data: Store | None = None, root: Path | None = None) -> "Shelf":
        """Make two empty repositories; that for data in another store if one is given."""
        data = data or FileStore(folder / "repo")
        vault = FileStore(folder / "keys")
        roots = {data.url: root or folder / "repo", vault.url: folder / "keys"}
        return cls(
            Repository.init(data, new_config(Role.DATA, [], {}, NOW)),
            Repository.init(vault, new_config(Role.KEYS, [RECIPIENT], {}, NOW)),
            roots,
        )

    def copy(self, folder: Path) -> "Shelf":
        """Make another like it, in directories; dates stay as they are."""
        for name, root in zip(("repo", "keys"), self.roots.values(), strict=True):
            shutil.copytree(root, folder / name)
        roots = (folder / "repo", folder / "keys")
        stores = [FileStore(root) for root in roots]
        return Shelf(
            Repository(stores[0], self.repository.config),
            Repository(stores[1], self.keys.config),
            {store.url: root for store, root in zip(stores, roots, strict=True)},
        )

    def add(self, *, days=3.0, keyring=False, noted=True, needs=(), base=None, **fields):
        """Put away one backup that is some days old; gives its manifest."""
        repository = self.repository
        made = manifest(
            repository=repository.config.repository,
            at=NOW - timedelta(days=days),
            data=os.urandom(8).hex().encode(),
            **fields,
        )
        [item] = made.objects
        data = os.urandom(64)
        item = replace(item, **_facts(data))
        made = replace(made, objects=(item,), needs=needs, base=base)
        repository.store.put_new(item.path, data)
        paths = [item.path]
        if keyring:
            made = replace(made, keyring=self._keyring(made, days))
        paths.append(repository.publish(made))
        if noted:
            note = Note(
                backup=made.id, action="verify", at=NOW, seconds=1.0, checks=checks(Verdict.PASS)
            )
            if all(check.verdict is Verdict.PASS for check in made.checks):
                repository.add(note)
                paths += [i.path for i in repository.store.list(f"clusters/{made.cluster}/notes")]
        self._age(repository.store, paths, days)
        return made

    def _keyring(self, made, days):
        key = SavedKey.of("active", "clusters", "key", bytes(range(32)))
        name = made.name
        run = Run(name.cluster, name.taken_at, name.random)
        entry = keyrings.save(
            self.keys,
            Keyring(cluster=made.cluster, kind="hosted", made_at=NOW, keys=(key,), manifests=""),
            run,
            data=self.repository.config.repository,
        )
        paths = [
            f"clusters/{made.cluster}/keyrings/{run.name}{end}" for end in (".json", ".zst.age")
        ]
        self._age(self.keys.store, paths, days)
        return entry

    def _age(self, store, paths, days):
        for path in paths:
            file = self.roots[store.url] / path
            when = time.time() - days * 86400
            os.utime(file, (when, when))

    def prune(self, policy=None, *, data=None, keys=None, cluster=None, keyless=False, clock=CLOCK):
        """One prune, plan and all; stores may stand in for the real ones."""
        prune = Prune(
            Repository(data or self.repository.store, self.repository.config),
            Options(policy=policy or Policy(last=2), cluster=cluster, by="me@here"),
            None if keyless else Repository(keys or self.keys.store, self.keys.config),
            clock,
            Report(self.said.append),
        )
        return prune.execute(prune.plan())

    @property
    def listed(self) -> dict[str, Entry]:
        """What is listed, by ID; all of it can be read."""
        found = self.repository.backups()
        assert all(isinstance(entry, Entry) for entry in found), found
        return {entry.manifest.id: entry for entry in found}

    def assert_whole(self) -> None:
        """Each backup that is listed has what its manifest names, byte for byte; its keys, too."""
        for name, entry in self.listed.items():
            found = stored(self.repository.store, entry.manifest.objects, lambda _: None)
            assert found.verdict is Verdict.PASS, name
            if entry.manifest.keyring is not None:
                keyrings.find(self.keys, entry.manifest.keyring, entry.manifest.name)

    def assert_tidy(self) -> None:
        """Nothing is left of what is not listed."""
        listed = [entry.manifest for entry in self.listed.values()]
        names = {one.name.name for one in listed}
        objects = {item.path for one in listed for item in one.objects}
        for info in self.repository.store.list("clusters"):
            kind, name = info.path.split("/")[2:4]
            assert kind in {"backups", "objects", "notes", "pins"}, info.path
            if kind == "objects":
                assert info.path in objects
            else:
                assert name.removesuffix(".json") in names, info.path
        runs = {one.name.run for one in listed if one.keyring is not None}
        for info in self.keys.store.list("clusters"):
            assert info.path.split("/")[3].partition(".")[0] in runs, info.path


def _facts(data: bytes) -> dict:
    import hashlib

    digest = hashlib.sha256(data).hexdigest()
    return {
        "size": len(data),
        "sha256": digest,
        "stored_size": len(data),
        "stored_sha256": digest,
    }
