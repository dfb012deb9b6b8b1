"""Promise 5, watched from outside: the real program, all commands, known secrets.

While a command runs, what others can see of it is looked at again and again: the argument lists of
all that it starts, and every file that has a name. Afterwards its words, the stores, and what
is left.
"""

import atexit
import base64
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from backstay.client.etcd import Etcd as Client
from kit import needs, process, s3
from kit.cli import Cli, etcd_variables
from kit.etcd import Etcd
from kit.world import hosted_world, keys_of

PASSWORD = "correct-horse-battery-staple"
KEY, VALUE = "secret/the-key-of-all", "the-value-that-nobody-may-see"
#: How each command talks: the most that it can say.
LOUD = ("--debug", "--log-format", "json")


def forms(secret):
    """A secret as it could stand somewhere."""
    raw = secret.encode() if isinstance(secret, str) else secret
    return {raw, base64.b64encode(raw).rstrip(b"="), raw.hex().encode()}


class Watched:
    """Runs command lines as processes, and collects what could be seen of them."""

    def __init__(self, home, variables, secrets, private=()):
        # The path of a socket has 107 characters at most.
        self.home, self.temp = home, Path(tempfile.mkdtemp(prefix="watched-"))
        atexit.register(shutil.rmtree, self.temp, ignore_errors=True)
        self.spool = home / "spool-dir"
        self.spool.mkdir()
        self.variables = variables | {
            "BACKSTAY_SPOOL_DIR": str(self.spool),
            "TMPDIR": str(self.temp),
        }
        self.needles = set().union(*(forms(secret) for secret in secrets))
        #: Where the user keeps secrets, or asked for them in the clear.
        self.private = tuple(private)
        self.words, self.arguments, self.names = [], set(), set()

    def run(self, *words, code=0, **variables):
        running = process.start([*words, *LOUD], self.home, self.variables | variables)
        ended = threading.Event()
        watching = threading.Thread(target=self._watch, args=(running.pid, ended))
        watching.start()
        try:
            out, err = running.communicate(timeout=120)
        finally:
            ended.set()
            watching.join()
        assert running.returncode == code, (words, err)
        self.words.append((words, out + err))
        assert not list(self.temp.iterdir()), words
        assert not list(self.spool.iterdir()), words

    def _watch(self, pid, ended):
        while not ended.wait(0.01):
            for one in process.family(pid):
                with suppress(OSError):
                    self.arguments.add(Path(f"/proc/{one}/cmdline").read_bytes())
            for folder in (self.temp, self.spool):
                self._look(folder)

    def _look(self, folder):
        """Note the files that others could open, and whether a secret is in one."""
        with suppress(OSError):
            for path in folder.iterdir():
                mode = path.lstat().st_mode
                self.names.add(path.name)
                # A private directory keeps others from all that is below it.
                if path.is_file() and mode & 0o077:
                    self.words.append(((str(path),), path.read_bytes().decode("latin-1")))
                elif path.is_dir() and mode & 0o077:
                    self._look(path)

    def assert_nothing_was_seen(self):
        for words, text in self.words:
            for needle in self.needles:
                assert needle not in text.encode("latin-1", "replace"), words
        for line in self.arguments:
            for needle in self.needles:
                assert needle not in line, line

    def assert_nothing_lies_in(self, *folders):
        found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        assert found
        for path in found:
            if path.name not in self.private:
                data = path.read_bytes()
                assert not [one for one in self.needles if one in data], path


def identity_of(path):
    return path.read_text().split()[-1]


def private_lines(pem):
    """Lines of a private key that are its own."""
    return Path(pem).read_text().splitlines()[1:3]


@pytest.fixture
def watched(tmp_path):
    """An etcd with users and secrets, a bucket, and a home."""
    home = tmp_path / "home"
    home.mkdir()
    with s3.plain(tmp_path / "s3") as server, Etcd.start(tmp_path / "etcd") as etcd:
        with Client(etcd.access) as client:
            for number in range(30):
                client.put(f"{KEY}-{number}".encode(), f"{VALUE}-{number}".encode())
            client.delete(f"{KEY}-3".encode())
        etcd.enable_auth(PASSWORD)
        (home / "password").write_text(f"{PASSWORD}\n")
        variables = etcd_variables(etcd, tmp_path / "pki") | server.environment
        variables["BACKSTAY_REPO"] = "s3://backups/watched"
        cli = Cli(home, variables)
        recipient = cli("keygen", "-o", "identity.txt", "--json").json["recipient"]
        cli("init", "--recipient", recipient, "--allow-http")
        secrets = [
            *(PASSWORD, KEY, VALUE, identity_of(home / "identity.txt"), server.secret_key),
            *private_lines(variables["ETCDCTL_KEY"]),
        ]
        watched = Watched(home, variables, secrets)
        watched.stored = server.root / "backups"
        yield watched


def test_promise_5_every_command_for_an_etcd(watched):
    needs.binary("etcd")
    http, opens = ("--allow-http",), ("--identity", "identity.txt", "--allow-http")
    user = ("--user", "root", "--password-file", "password")
    watched.run("keygen", "-o", "other.txt")
    watched.needles |= forms(identity_of(watched.home / "other.txt"))
    watched.run("preflight", "etcd", "--cluster", "prod", *user, *http)
    watched.run("backup", "etcd", "--cluster", "prod", *user, *http, "--metrics-file", "run.prom")
    watched.run(
        *("backup", "etcd", "--cluster", "prod", "--json", *http),
        ETCDCTL_USER="root",
        ETCDCTL_PASSWORD=PASSWORD,
    )
    watched.run("list", *http)
    watched.run("show", "prod/latest", *http)
    watched.run("verify", "prod/latest", "--read-data", *opens)
    watched.run("drill", "prod/latest", *opens)
    watched.run("metrics", "-o", "all.prom", *http)
    watched.run("export", "prod/latest", "-o", "copy.db", *opens)
    watched.run("restore", "etcd", "prod/latest", "--data-dir", "data", *opens)
    watched.run("status", "./copy.db")
    watched.run("hashkv", "./copy.db")
    watched.run("verify", "./copy.db")
    # Errors, with what they may be tempted to quote.
    watched.run("verify", "prod/latest", "--read-data", "--identity", "other.txt", *http, code=4)
    watched.run("export", "prod/latest", "-o", "x.db", "--identity", "password", *http, code=1)
    watched.run("list", *http, code=1, AWS_SECRET_ACCESS_KEY=f"{PASSWORD}-of-s3")
    watched.assert_nothing_was_seen()
    watched.assert_nothing_lies_in(watched.stored)
    for name in ("run.prom", "all.prom"):
        assert not [one for one in watched.needles if one in (watched.home / name).read_bytes()]
    # It was looked at: what the drill started, and where it worked.
    assert any(b"--listen-client-urls" in line for line in watched.arguments)
    assert any(name.startswith("backstay-") for name in watched.names)


def test_promise_5_every_command_for_a_hosted_control_plane(tmp_path):
    with (
        s3.over_tls(tmp_path / "s3") as server,
        hosted_world(tmp_path / "world") as world,
    ):
        [key] = keys_of("kube-aescbc")
        variables = world.cli.variables | server.environment
        variables["SSL_CERT_FILE"] = server.environment["AWS_CA_BUNDLE"]
        home = tmp_path / "home"
        home.mkdir()
        etcd_key, _ = world.etcd.tls.client.write(tmp_path / "tls")[::-1]
        secrets = [
            *(key, identity_of(world.identity), server.secret_key, "from-github", "ldap-secret"),
            *private_lines(etcd_key),
        ]
        watched = Watched(home, variables, secrets)
        opens = ("--identity", world.identity)
        subject, keys = "clusters.blue/latest", ("--keys-repo", variables["BACKSTAY_KEYS_REPO"])
        watched.run("preflight", "hosted", "blue", "-n", "clusters")
        watched.run("backup", "hosted", "blue", "-n", "clusters", "--dry-run")
        watched.run("backup", "hosted", "blue", "-n", "clusters")
        watched.run("list")
        watched.run("show", subject)
        watched.run("verify", subject, *keys, *opens)
        watched.run("drill", subject, *opens)
        watched.run("metrics")
        staging = "s3://backups/watched"
        restore = ("restore", "hosted", subject, "--from-backup", "--staging", staging, *opens)
        watched.run(*restore, "--dry-run")
        watched.run(*restore, "-o", "restore.yaml")
        watched.run("list", "--staging", staging)
        watched.assert_nothing_was_seen()
        watched.assert_nothing_lies_in(world.folder / "data", world.folder / "keys")
        assert (home / "restore.yaml").stat().st_mode & 0o077 == 0
        # What was asked for in the clear has the key: these needles do find it.
        assert base64.b64encode(key) in (home / "restore.yaml").read_bytes()
