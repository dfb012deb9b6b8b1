"""One cluster of each kind with two backups, the commands that work on them, and what is right.

    with scene("hosted", folder) as place:
        disturbed = run(place.cli, place.words("restore"), case)
        place.judge("restore", disturbed.done.code)      # all is whole, and nothing is half there
        place.mend("restore")                            # the same again works
        place.reset()                                    # as it was

    with scene("okd", folder, relayed=True) as place:        # the program reaches etcd through
        place.relay.watch = Watch(case)                      # a server that damages what passes

The older backup is one that a prune by `--keep-last 1` removes. Repositories are directories; a
restore of a hosted cluster stages in a real S3 server.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from backstay.client.etcd import Etcd as Client
from backstay.repo import keyring as keyrings
from backstay.repo.catalogue import Repository
from backstay.repo.entry import Entry
from backstay.repo.keyring import Saved
from backstay.repo.stores.file import FileStore
from kit import s3
from kit.cli import Cli, etcd_variables
from kit.disturbed_rpc import Relay, relay
from kit.etcd import Etcd
from kit.kubeserver import KubeServer
from kit.okd_api import okd_api
from kit.okd_host import INFRASTRUCTURE, SAFE, VERSION, OkdHost, okd_etcd
from kit.world import CLUSTER, NAME, NAMESPACE, hosted_world

KINDS = ("etcd", "hosted", "okd")
COMMANDS = ("backup", "verify", "export", "restore", "prune")
_DAY = 86400.0


@dataclass
class Scene:
    """A cluster, its two backups, and the program.

    Attributes:
        kind: of the cluster.
        folder: of everything; `data` and `keys` are the repositories.
        cluster: its name.
        backup: the command line that backs it up.
        restore: what to say of its restores: the kind, and options.
        target: the option that names the target of a restore.
        staged: where restores stage; None where they don't.
        relay: what stands before etcd, where something does.
        kube: the Kubernetes API, where there is one.
        made: the backups that are there, the older one first.
        clean: what an undisturbed export, and a restore, leave; of each backup, the newest first.
    """

    kind: str
    folder: Path
    cli: Cli
    cluster: str
    backup: tuple
    restore: tuple
    target: str
    staged: Path | None = None
    relay: Relay | None = None
    kube: KubeServer | None = None
    made: tuple[str, ...] = ()
    clean: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)

    @property
    def latest(self) -> str:
        """The newest backup."""
        return f"{self.cluster}/latest"

    @property
    def out(self) -> Path:
        """Where exports and restores go; nothing else is there."""
        return self.folder / "out"

    @property
    def data(self) -> Repository:
        """The repository for data, undisturbed."""
        return Repository.open(FileStore(self.folder / "data"))

    @property
    def keys(self) -> Repository:
        """The repository for keys, undisturbed."""
        return Repository.open(FileStore(self.folder / "keys"))

    def words(self, command: str, of: str = "") -> tuple:
        """The command line of a command; it is about the newest backup unless told otherwise."""
        name = of or self.latest
        kind, *more = self.restore
        return {
            "backup": self.backup,
            "verify": ("verify", name, "--read-data"),
            "export": ("export", name, "-o", self.out / "export.db"),
            "restore": ("restore", kind, name, *more, self.target, self.out / "restored"),
            "prune": ("prune", "--keep-last", "1", "--yes"),
        }[command]

    # What there is.

    def listed(self) -> dict[str, Entry]:
        """All backups that are listed, by ID; each manifest can be read."""
        found = self.data.backups()
        assert all(isinstance(entry, Entry) for entry in found), found
        return {entry.manifest.id: entry for entry in found}

    def left(self) -> dict[str, bytes]:
        """What an export or a restore left, hidden names too, but for what differs each time."""
        found = {}
        for path in sorted(self.out.rglob("*")):
            if path.is_file():
                name = str(path.relative_to(self.out))
                found[name] = self._content(name, path)
        return found

    def _content(self, name: str, path: Path) -> bytes:
        if name.endswith("member/snap/db"):
            # etcd's tool writes it in one transaction more or less; what is in it is the same.
            return self.cli("hashkv", path, "--json").out.encode()
        varies = "/wal/" in name or (self.target == "-o" and name.startswith("restored"))
        return b"something" * (path.stat().st_size > 0) if varies else path.read_bytes()

    def named(self) -> dict[str, set[str]]:
        """The objects that backups which are listed name, in both repositories."""
        entries = self.listed()
        data = {item.path for entry in entries.values() for item in entry.manifest.objects}
        keys: set[str] = set()
        if self.kind != "etcd":
            for saved in keyrings.headers(self.keys):
                assert isinstance(saved, Saved)
                header = saved.header
                keys |= {header.object.path, *([header.archive.path] if header.archive else [])}
        return {"data": data, "keys": keys}

    def stored(self) -> dict[str, set[str]]:
        """The sealed objects that are there, whoever names them."""
        where = {"data": f"clusters/{self.cluster}/objects"}
        found = {"data": {info.path for info in self.data.store.list(where["data"])}, "keys": set()}
        if self.kind != "etcd":
            infos = self.keys.store.list(f"clusters/{self.cluster}/keyrings")
            found["keys"] = {info.path for info in infos if not info.path.endswith(".json")}
        return found

    # What is right.

    def judge(self, command: str, code: int, *, older: bool = False) -> None:
        """Hold what a disturbed command left to the promises.

        Args:
            command: which.
            code: its exit code.
            older: whether it may have taken the older backup for the newest.
        """
        assert code in {0, 1, 3, 4, 5}
        assert not list((self.folder / "spool").iterdir())
        entries = self.listed()
        assert set(entries) >= set(self.made[1:] if command == "prune" else self.made)
        new = [entry for name, entry in entries.items() if name not in self.made]
        assert len(new) <= (command == "backup")
        for entry in new:
            if not entry.failed:
                self.prove(entry.manifest.id)
        if command == "backup" and code in {0, 4}:
            # What can't be told of the backup before it makes none of this one less proven.
            assert len(new) == 1
            assert not new[0].failed
            assert new[0].verified >= (code == 0)
        if command == "prune":
            for name in entries:
                self.prove(name)
        left = self.left()
        if command in self.clean and (code == 0 or left):
            assert left in self.clean[command][: 1 + older]
        else:
            assert left == {}

    def prove(self, name: str) -> None:
        """Read a backup to its end; it is whole, and so are its keys."""
        self.cli("verify", name, "--read-data")

    def mend(self, command: str) -> None:
        """Run a command that was disturbed again: it works, and what was left is swept."""
        self.clear()
        if command == "backup":
            self.age(25 * 3600)
        self.cli(*self.words(command))
        assert self.left() == (self.clean[command][0] if command in self.clean else {})
        if command == "prune":
            assert list(self.listed()) == [self.made[-1]]
        if command == "backup":
            assert self.data.find(self.latest).manifest.id not in self.made
            assert self.stored() == self.named()

    # Between cases.

    def clear(self) -> None:
        """Forget what exports and restores left."""
        shutil.rmtree(self.out)
        self.out.mkdir()
        if self.staged is not None:
            shutil.rmtree(self.staged, ignore_errors=True)

    def reset(self) -> None:
        """Put everything back to two backups."""
        self.clear()
        for name in ("data", "keys"):
            if (self.folder / name).exists():
                shutil.rmtree(self.folder / name)
                shutil.copytree(self.folder / f"{name}.saved", self.folder / name)

    def age(self, seconds: float) -> None:
        """Let everything in both repositories be older."""
        for name in ("data", "keys"):
            for path in (self.folder / name).rglob("*"):
                if path.is_file():
                    then = path.stat().st_mtime - seconds
                    os.utime(path, (then, then))

    def begin(self) -> "Scene":
        """Make two backups, and learn what undisturbed commands leave."""
        (self.folder / "out").mkdir()
        for _ in range(2):
            self.cli(*self.backup)
            self.made = (*self.made, self.data.find(self.latest).manifest.id)
            self.age(_DAY * 2)
            # The next one is newer by its name, too, which tells whole seconds.
            time.sleep(1 - time.time() % 1)
        assert set(self.made) == set(self.listed())
        for name in ("data", "keys"):
            if (self.folder / name).exists():
                shutil.copytree(self.folder / name, self.folder / f"{name}.saved")
        for command in ("export", "restore"):
            self.clean[command] = []
            for name in reversed(self.made):
                self.cli(*self.words(command, name))
                self.clean[command].append(self.left())
                assert self.left()
                self.clear()
        return self


@contextmanager
def scene(kind: str, folder: Path, *, relayed: bool = False) -> Iterator[Scene]:
    """Make one."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        make = {"etcd": _etcd, "hosted": _hosted, "okd": _okd}[kind]
        yield make(folder, stack, relayed=relayed).begin()


def _etcd(folder: Path, stack: ExitStack, *, relayed: bool) -> Scene:
    etcd = stack.enter_context(Etcd.start(folder / "etcd"))
    with Client(etcd.access) as client:
        for number in range(4):
            client.put(b"fill/%d" % number, os.urandom(40_000))
    before = stack.enter_context(relay(etcd)) if relayed else None
    told = {"ETCDCTL_ENDPOINTS": before.endpoint} if before else {}
    return Scene(
        "etcd",
        folder,
        _cli(folder, etcd_variables(etcd, folder / "pki") | told),
        "prod",
        ("backup", "etcd", "--cluster", "prod"),
        ("etcd",),
        "--data-dir",
        relay=before,
    )


def _hosted(folder: Path, stack: ExitStack, *, relayed: bool) -> Scene:
    server = stack.enter_context(s3.over_tls(folder / "s3"))
    world = stack.enter_context(hosted_world(folder, repositories=False))
    before = stack.enter_context(relay(world.etcd)) if relayed else None
    if before:
        (name,) = world.etcds
        world.streams.move(world.control_plane, name, {2379: ("localhost", before.port)})
    trust = {"SSL_CERT_FILE": server.environment["AWS_CA_BUNDLE"]}
    staging = ("--staging", "s3://backups/staging", "--from-backup")
    return Scene(
        "hosted",
        folder,
        _cli(folder, world.cli.variables | server.environment | trust, keys=True),
        CLUSTER,
        ("backup", "hosted", NAME, "-n", NAMESPACE),
        ("hosted", *staging),
        "-o",
        server.root / "backups" / "staging",
        relay=before,
        kube=world.kube,
    )


def _okd(folder: Path, stack: ExitStack, *, relayed: bool) -> Scene:
    etcd = stack.enter_context(okd_etcd(folder / "etcd"))
    host = OkdHost.make(folder / "host", etcd)
    before = stack.enter_context(relay(etcd)) if relayed else None
    if before:
        told = dict.fromkeys(("ALL_ETCD_ENDPOINTS", "ETCDCTL_ENDPOINTS"), before.endpoint)
        # By its own address the host would go straight to its member.
        host.write_env(**told, **{f"NODE_{SAFE}_IP": None})
    kube = stack.enter_context(KubeServer.start(folder / "kube"))
    okd_api(kube)
    return Scene(
        "okd",
        folder,
        _cli(folder, {"KUBECONFIG": str(kube.kubeconfig)}, keys=True),
        INFRASTRUCTURE,
        ("backup", "okd", "--host-root", host.root, "--force"),
        ("okd", "--version", VERSION),
        "--output-dir",
        relay=before,
        kube=kube,
    )


def _cli(folder: Path, variables: dict[str, str], *, keys: bool = False) -> Cli:
    """The program, and the repositories that a kind has."""
    home = folder / "home"
    home.mkdir()
    (folder / "spool").mkdir(exist_ok=True)
    cli = Cli(home, {**variables, "BACKSTAY_SPOOL_DIR": str(folder / "spool")})
    recipient = cli("keygen", "-o", "identity.txt", "--json").json["recipient"]
    cli.variables["BACKSTAY_IDENTITY"] = str(home / "identity.txt")
    cli.variables["BACKSTAY_REPO"] = f"file://{folder}/data"
    cli("init", "--recipient", recipient)
    if keys:
        cli.variables["BACKSTAY_KEYS_REPO"] = f"file://{folder}/keys"
        words = ("init", "--repo", f"file://{folder}/keys", "--role", "keys")
        cli(*words, "--recipient", recipient)
    return cli
