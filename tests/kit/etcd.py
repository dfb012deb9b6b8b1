"""Real etcd servers for tests, over mTLS unless told otherwise.

    with Etcd.start(tmp_path) as etcd:
        etcd.ctl("put", "k", "v")
        connect(etcd.access)            # backstay's own Access, with the client's certificate
        etcd.kill()                     # as a power cut would; etcd.restart() brings it back

    with EtcdCluster.start(tmp_path, 3) as cluster: cluster.leader(); cluster.members[0].kill()

    Etcd.start(tmp_path, tls=None)                              plain http on loopback
    Etcd.start(tmp_path, binary=needs.debian("etcd"))           etcd 3.4
    Etcd.start(tmp_path, flags=("--quota-backend-bytes", "..."))

A server starts in about 0.3 s. It ends with the block, and with the tests' process, however that
ends. What it said is in `etcd.log`, and in the error where it does not start.
"""

import functools
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from backstay.client import keeper
from backstay.client.access import Access, Timeouts, Tls
from backstay.client.endpoint import parse_endpoints
from backstay.client.secret import Secret
from kit import needs
from kit.certificates import Authority, Identity

START_SECONDS = 30.0
_SERVING = re.compile(r"serving (insecure )?client (traffic|requests)")
#: Below the range from which the system takes ports for outgoing connections.
_PORTS = range(15000, 32000)
_PORT_TAKEN = "address already in use"
_ATTEMPTS = 5


@dataclass(frozen=True)
class ServerTls:
    """What a server shows, whom it trusts, and what our client shows.

    Attributes:
        authority: signed the server, and the clients that it lets in.
        server: the server's identity.
        client: our identity; None shows none.
        client_required: whether the server wants a client's certificate.
    """

    authority: Authority
    server: Identity
    client: Identity | None = None
    client_required: bool = True

    @property
    def tls(self) -> Tls:
        """What backstay's client needs."""
        mine = self.client
        return Tls(
            ca=self.authority.pem,
            certificate=mine and mine.certificate,
            key=mine and mine.key,
        )


@functools.cache
def mutual_tls() -> ServerTls:
    """Certificates for the server and for one client, by one authority."""
    authority = Authority.make()
    return ServerTls(authority, authority.issue("etcd"), authority.issue("client"))


@functools.cache
def version(binary: Path) -> tuple[int, int]:
    """Major and minor version of an etcd."""
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = re.search(r"etcd Version: (\d+)\.(\d+)", text).groups()
    return int(major), int(minor)


@dataclass(kw_only=True)
class Etcd:
    """One running member. `folder` holds its data directory, its log and its certificates."""

    folder: Path
    name: str
    binary: Path
    tls: ServerTls | None
    flags: tuple[str, ...]
    peers: str
    state: str = "new"
    port: int = 0
    user: tuple[str, str] | None = None
    _keeper: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @classmethod
    @contextmanager
    def start(
        cls,
        folder: Path,
        *,
        tls: ServerTls | bool | None = True,
        binary: Path | None = None,
        flags: Sequence[str] = (),
        name: str = "default",
    ) -> Iterator["Etcd"]:
        """Run one member that is a cluster of its own."""
        etcd = cls._new(
            folder, name, tls=tls, binary=binary, flags=flags, peers=f"{name}=unix://{name}:0"
        )
        try:
            etcd.launch()
            yield etcd
        finally:
            etcd.kill()

    @classmethod
    def _new(cls, folder, name, *, tls, binary, flags, peers, **more) -> "Etcd":
        folder.mkdir(parents=True, exist_ok=True)
        return cls(
            folder=folder,
            name=name,
            binary=binary or needs.binary("etcd"),
            tls=mutual_tls() if tls is True else (tls or None),
            flags=tuple(flags),
            peers=peers,
            **more,
        )

    @property
    def endpoint(self) -> str:
        """The client URL."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def access(self) -> Access:
        """How backstay's client enters it; change parts with dataclasses.replace."""
        return _access(self.endpoint, self.tls, self.user)

    @property
    def data_dir(self) -> Path:
        """Its data directory."""
        return self.folder / f"{self.name}.etcd"

    @property
    def log(self) -> Path:
        """What it said, of all its starts."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """Its process, for signals."""
        keeper_pid = self._keeper.pid
        return int(Path(f"/proc/{keeper_pid}/task/{keeper_pid}/children").read_text().split()[0])

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor."""
        return version(self.binary)

    def ctl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run etcdctl against this member; gives its standard output."""
        return _ctl(self, self.endpoint, arguments, stdin=stdin, check=check)

    def ctl_json(self, *arguments: str):
        """Run etcdctl with `-w json`."""
        return json.loads(self.ctl(*arguments, "-w", "json"))

    def enable_auth(self, password: str = "the-password-of-root") -> None:
        """Make user root and turn auth on; `ctl` and `access` use that user from then on.

        etcdctl reads a password up to its first blank.
        """
        self.ctl("user", "add", "root", "--interactive=false", stdin=f"{password}\n")
        if self.version < (3, 5):
            self.ctl("role", "add", "root")
        self.ctl("user", "grant-role", "root", "root")
        self.ctl("auth", "enable")
        self.user = ("root", password)

    def kill(self) -> None:
        """End it at once, as a crash does. Its data stay."""
        if self._keeper is not None:
            with suppress(BrokenPipeError):
                self._keeper.stdin.close()
            self._keeper.wait()
            self._keeper = None

    def restart(self) -> None:
        """Start it again, on the same data and the same port."""
        self.kill()
        self.launch()

    def put_back(self, snapshot: Path) -> None:
        """Put a snapshot in the place of what it has, as an administrator does."""
        self.kill()
        shutil.rmtree(self.data_dir)
        words = ("--name", self.name, "--initial-cluster", self.peers)
        peer = ("--initial-advertise-peer-urls", f"unix://{self.name}:0")
        to = ("--data-dir", str(self.data_dir))
        subprocess.run(
            [needs.binary("etcdutl"), "snapshot", "restore", snapshot, *words, *peer, *to],
            check=True,
            capture_output=True,
        )
        self.launch()

    def launch(self) -> None:
        """Start and wait until it serves."""
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start, without waiting."""
        self.port = self.port or free_port()
        self._mark = self.log.stat().st_size if self.log.exists() else 0
        program = [sys.executable, "-I", "-S", keeper.__file__, "--patience", "0", "--"]
        with self.log.open("ab") as log:
            self._keeper = subprocess.Popen(
                [*program, str(self.binary), *self._arguments()],
                cwd=self.folder,
                env={k: v for k, v in os.environ.items() if not k.startswith("ETCD")},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, seconds: float = START_SECONDS) -> None:
        """Wait until it serves clients; takes another port where somebody has taken this one."""
        attempts = _ATTEMPTS
        deadline = time.monotonic() + seconds
        while not _SERVING.search(text := self._said()):
            if self._keeper.poll() is not None:
                self.kill()
                attempts -= 1
                if _PORT_TAKEN not in text or not attempts:
                    raise AssertionError(f"etcd ended:\n{text[-3000:]}")
                self.port = 0
                self.begin()
            if time.monotonic() > deadline:
                raise AssertionError(f"etcd did not start in {seconds} s:\n{text[-3000:]}")
            time.sleep(0.01)

    def _said(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._mark)
            return log.read().decode(errors="replace")

    def _arguments(self) -> list[str]:
        # Peers talk over sockets beside the logs: etcd wants HOST:PORT there, and makes it a
        # relative path.
        single = "," not in self.peers
        arguments = [
            *("--name", self.name, "--data-dir", str(self.data_dir)),
            *("--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint),
            *("--listen-peer-urls", f"unix://{self.name}:0"),
            *("--initial-advertise-peer-urls", f"unix://{self.name}:0"),
            *("--initial-cluster", self.peers, "--initial-cluster-state", self.state),
            *("--heartbeat-interval", "20" if single else "100"),
            *("--election-timeout", "200" if single else "1000"),
        ]
        # Members may be added at once, not only when all have been connected for a while.
        arguments.append("--strict-reconfig-check=false")
        if self.version >= (3, 5):
            arguments.append("--unsafe-no-fsync")
        if self.tls:
            certificate, key = self.tls.server.write(self.folder)
            ca = self.tls.authority.write(self.folder)
            arguments += ["--cert-file", str(certificate), "--key-file", str(key)]
            if self.tls.client_required:
                arguments += ["--client-cert-auth", "--trusted-ca-file", str(ca)]
        return [*arguments, *self.flags]


@dataclass
class EtcdCluster:
    """Several members. `members[i]` are `Etcd`s; each can be killed and restarted."""

    members: list[Etcd]
    _stack: ExitStack

    @classmethod
    @contextmanager
    def start(
        cls,
        folder: Path,
        size: int = 3,
        *,
        tls: ServerTls | bool | None = True,
        binary: Path | None = None,
        flags: Sequence[str] = (),
    ) -> Iterator["EtcdCluster"]:
        """Run a cluster, and wait until all members serve."""
        names = [f"m{number}" for number in range(1, size + 1)]
        peers = ",".join(f"{name}=unix://{name}:0" for name in names)
        with ExitStack() as stack:
            members = [
                Etcd._new(folder, name, tls=tls, binary=binary, flags=flags, peers=peers)
                for name in names
            ]
            for member in members:
                stack.callback(member.kill)
                member.begin()
            for member in members:
                member.wait()
            yield cls(members, stack)

    @property
    def endpoint(self) -> str:
        """All client URLs, comma-separated."""
        return ",".join(member.endpoint for member in self.members)

    @property
    def access(self) -> Access:
        """How backstay's client enters it, by all its members."""
        first = self.members[0]
        return _access(self.endpoint, first.tls, first.user)

    def ctl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run etcdctl against all members."""
        return _ctl(self.members[0], self.endpoint, arguments, stdin=stdin, check=check)

    def leader(self) -> Etcd:
        """The member that leads now."""
        return self._find(lambda status: status.get("leader") == status["header"]["member_id"])

    def followers(self) -> list[Etcd]:
        """The running members that do not lead."""
        leader = self.leader()
        return [m for m in self.members if m is not leader and m._keeper is not None]

    def _find(self, wanted: Callable[[dict], bool]) -> Etcd:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for member in self.members:
                if member._keeper is not None:
                    with suppress(subprocess.CalledProcessError, json.JSONDecodeError):
                        if wanted(member.ctl_json("endpoint", "status")[0]["Status"]):
                            return member
            time.sleep(0.05)
        raise AssertionError("no member of the cluster answers so")

    def add(self, *, learner: bool = False) -> Etcd:
        """Add one member, which stays a learner where that is asked for."""
        first = self.members[0]
        name = f"m{len(self.members) + 1}"
        kind = ["--learner"] if learner else []
        self.ctl("member", "add", name, *kind, "--peer-urls", f"unix://{name}:0")
        peers = f"{first.peers},{name}=unix://{name}:0"
        member = Etcd._new(
            first.folder,
            name,
            tls=first.tls,
            binary=first.binary,
            flags=first.flags,
            peers=peers,
            state="existing",
        )
        self._stack.callback(member.kill)
        member.launch()
        self.members.append(member)
        return member


def free_port() -> int:
    """A port on which nobody listens now, from a range that the system gives to nobody."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _access(endpoints: str, tls: ServerTls | None, user: tuple[str, str] | None) -> Access:
    return Access(
        endpoints=parse_endpoints(endpoints),
        tls=tls and tls.tls,
        user=user and user[0],
        password=Secret(user[1]) if user else None,
        timeouts=Timeouts(dial=5.0, command=10.0, stall=20.0),
    )


def _ctl(member, endpoint, arguments, *, stdin, check) -> str:
    command = [str(needs.binary("etcdctl")), "--endpoints", endpoint]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ETCD")}
    environment["ETCDCTL_API"] = "3"
    if member.tls:
        command += ["--cacert", str(member.tls.authority.write(member.folder / "ctl"))]
        if member.tls.client:
            certificate, key = member.tls.client.write(member.folder / "ctl")
            command += ["--cert", str(certificate), "--key", str(key)]
    if member.user:
        environment["ETCDCTL_USER"] = ":".join(member.user)
    done = subprocess.run(
        [*command, *arguments],
        check=False,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if check and done.returncode:
        raise AssertionError(f"etcdctl {' '.join(arguments)}: {done.stderr or done.stdout}")
    return done.stdout
