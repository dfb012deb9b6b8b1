"""A repository for data, one for keys, and the program: what OKD's commands work with."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from backstay.repo.catalogue import Repository
from backstay.repo.identity import Identities
from backstay.repo.stores.file import FileStore
from kit.cli import Cli


@dataclass(frozen=True)
class Places:
    """Where things are."""

    cli: Cli
    root: Path

    @classmethod
    def make(cls, root: Path) -> "Places":
        """Make both repositories; commands know them, and the identity."""
        for name in ("home", "spool"):
            (root / name).mkdir()
        made = cls.at(root)
        recipient = made.cli("keygen", "-o", "identity.txt", "--json").json["recipient"]
        made.cli("init", "--recipient", recipient)
        made.cli("init", "--role", "keys", "--repo", made.keys_url, "--recipient", recipient)
        return made

    @classmethod
    def at(cls, root: Path) -> "Places":
        """Know those that are there."""
        variables = {
            "BACKSTAY_REPO": f"file://{root}/data",
            "BACKSTAY_KEYS_REPO": f"file://{root}/keys",
            "BACKSTAY_IDENTITY": str(root / "home" / "identity.txt"),
            "BACKSTAY_SPOOL_DIR": str(root / "spool"),
        }
        return cls(Cli(root / "home", variables), root)

    def copy(self, root: Path) -> "Places":
        """Make the same somewhere else."""
        for name in ("home", "spool", "data", "keys"):
            shutil.copytree(self.root / name, root / name)
        return self.at(root)

    @property
    def data(self) -> Repository:
        return Repository.open(FileStore(self.root / "data"))

    @property
    def keys(self) -> Repository:
        return Repository.open(FileStore(self.root / "keys"))

    @property
    def keys_url(self) -> str:
        return f"file://{self.root}/keys"

    @property
    def identities(self) -> Identities:
        return Identities.read(self.cli.folder / "identity.txt")

    def taken(self, folder: Path, *words, expect: int | None = 0) -> list[dict]:
        """Import a directory."""
        return self.cli("import", folder, *words, "--json", expect=expect).json

    def imported(self, folder: Path, *words) -> str:
        """Import a directory that has one backup; gives its ID."""
        [one] = self.taken(folder, *words)
        assert one["fate"] == "imported", one
        return one["id"]

    def files(self, place: str, ending: str = "") -> list[Path]:
        """The files of a repository's clusters."""
        return sorted(
            p for p in (self.root / place / "clusters").rglob(f"*{ending}") if p.is_file()
        )
