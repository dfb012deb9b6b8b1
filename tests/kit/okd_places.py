"""A repository for data, one for keys, and the program: what OKD's commands work with."""

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
        home, spool = root / "home", root / "spool"
        home.mkdir()
        spool.mkdir()
        cli = Cli(home)
        recipient = cli("keygen", "-o", "identity.txt", "--json").json["recipient"]
        cli.variables |= {
            "BACKSTAY_REPO": f"file://{root}/data",
            "BACKSTAY_KEYS_REPO": f"file://{root}/keys",
            "BACKSTAY_IDENTITY": str(home / "identity.txt"),
            "BACKSTAY_SPOOL_DIR": str(spool),
        }
        cli("init", "--recipient", recipient)
        cli("init", "--role", "keys", "--repo", f"file://{root}/keys", "--recipient", recipient)
        return cls(cli, root)

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
