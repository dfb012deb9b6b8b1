"""Promise 5, looked for with known secrets: in words, in argument lists, in stores, on disks."""

import contextlib
import io
import os
import stat
import threading
from pathlib import Path

import pytest

from backstay.cli.main import main
from backstay.client.etcd import Etcd as Client
from kit import needs, process, s3
from kit.cli import Cli, environment, etcd_variables
from kit.etcd import Etcd

PASSWORD = "correct-horse-battery-staple"
VALUE = "the-value-that-nobody-may-see"
BACKUP = ("backup", "etcd", "--cluster", "prod", "--debug")


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """An etcd with users, and a secret in it."""
    with Etcd.start(tmp_path_factory.mktemp("locked")) as etcd:
        with Client(etcd.access) as client:
            for number in range(20):
                client.put(b"secret/%d" % number, f"{VALUE}-{number}".encode())
        etcd.enable_auth(PASSWORD)
        yield etcd


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real S3 server."""
    with s3.plain(tmp_path_factory.mktemp("s3")) as server:
        yield server


class Place:
    """A user's directory, what they know, and what must be seen nowhere."""

    def __init__(self, tmp_path, etcd, server, kind):
        self.home, self.spool, self.temp = (tmp_path / name for name in ("home", "spool", "temp"))
        for folder in (self.home, self.spool, self.temp):
            folder.mkdir()
        self.stored = tmp_path / "repo" if kind == "file" else server.root / "backups"
        url = f"file://{self.stored}" if kind == "file" else f"s3://backups/{tmp_path.name}"
        (self.home / "password").write_text(f"{PASSWORD}\n")
        self.cli = Cli(
            self.home,
            etcd_variables(etcd, tmp_path / "pki")
            | (server.environment if kind == "s3" else {})
            | {
                "BACKSTAY_REPO": url,
                "BACKSTAY_SPOOL_DIR": str(self.spool),
                "TMPDIR": str(self.temp),
            },
        )
        self.http = ["--allow-http"] if kind == "s3" else []
        recipient = self.cli("keygen", "-o", "identity.txt", "--json").json["recipient"]
        self.cli("init", "--recipient", recipient, *self.http)
        self.cli.variables["BACKSTAY_IDENTITY"] = str(self.home / "identity.txt")
        key = (self.home / "identity.txt").read_text().split()[-1]
        pem = Path(self.cli.variables["ETCDCTL_KEY"]).read_text().splitlines()
        self.secrets = [PASSWORD, VALUE, key, key[20:50], pem[1], pem[2], server.secret_key]
        self.words = []
        self.seen = set()

    def run(self, *words, code=0, **variables):
        """Run a command line; its words and the argument lists of all that it starts are kept."""
        ended = threading.Event()
        watching = threading.Thread(target=self._watch, args=(ended,))
        watching.start()
        out, err = io.StringIO(), io.StringIO()
        try:
            with (
                environment(self.cli.variables | variables),
                contextlib.chdir(self.home),
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
            ):
                found = main([str(word) for word in (*words, *self.http)])
        finally:
            ended.set()
            watching.join()
        assert found == code, err.getvalue()
        self.words += [out.getvalue(), err.getvalue()]

    def _watch(self, ended):
        while not ended.wait(0.005):
            for pid in process.family(os.getpid())[1:]:
                with contextlib.suppress(OSError):
                    self.seen.add(Path(f"/proc/{pid}/cmdline").read_bytes())

    def assert_nothing_is_shown(self):
        for secret in self.secrets:
            for words in self.words:
                assert secret not in words
            for line in self.seen:
                assert secret.encode() not in line

    def assert_nothing_lies_about(self, *folders):
        """No file below these holds a secret, and none can be read by others."""
        found = [path for folder in folders for path in folder.rglob("*")]
        for path in found:
            # An S3 server's files are its own business.
            assert self.http or path.stat().st_mode & 0o077 == 0, path
            if path.is_file():
                data = path.read_bytes()
                for secret in self.secrets:
                    assert secret.encode() not in data, path
        return found


@pytest.fixture(params=["file", "s3"])
def place(request, tmp_path, locked, server):
    return Place(tmp_path, locked, server, request.param)


def test_promise_5_what_is_secret_is_shown_nowhere(place):
    needs.binary("etcd")
    user = ("--user", "root", "--password-file", "password")
    place.run(*BACKUP, *user)
    place.run(*BACKUP, "--user", "root", "--log-format", "json", ETCDCTL_PASSWORD=PASSWORD)
    place.run(*BACKUP, "--json", ETCDCTL_USER=f"root:{PASSWORD}")
    place.run("show", "prod/latest", "--debug")
    place.run("verify", "prod/latest", "--read-data", "--debug")
    place.run("drill", "prod/latest", "--debug")
    place.run("export", "prod/latest", "-o", "copy.db", "--debug")
    place.run("restore", "etcd", "prod/latest", "--data-dir", "data", "--debug")
    assert any(b"etcdutl" in line for line in place.seen)
    assert any(b"--listen-client-urls" in line for line in place.seen)
    place.assert_nothing_is_shown()
    found = place.assert_nothing_lies_about(place.stored)
    assert [path for path in found if path.name == "snapshot.zst.age"]
    assert not list(place.spool.iterdir())
    assert not list(place.temp.iterdir())
    # What was asked for in the clear is for its owner alone.
    for path in (place.home / "copy.db", *(place.home / "data").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    assert stat.S_IMODE((place.home / "identity.txt").stat().st_mode) == 0o600


def test_promise_5_errors_show_nothing_either(tmp_path, locked, server):
    place = Place(tmp_path, locked, server, "file")
    user = ("--user", "root", "--password-file", "wrong")
    (place.home / "wrong").write_text(f"{PASSWORD}-no-more\n")
    place.run(*BACKUP, *user, code=1)
    place.run(*BACKUP, code=1)
    place.run(*BACKUP, "--user", f"root:{PASSWORD}", code=2)
    (place.home / "backstay.toml").write_text(f'user = "root:{PASSWORD}"\n')
    place.run(*BACKUP, code=2)
    (place.home / "backstay.toml").write_text(f'password = "{PASSWORD}"\n')
    place.run(*BACKUP, code=2)
    (place.home / "backstay.toml").unlink()
    key = place.secrets[2]
    place.run(*BACKUP, "--recipient", key, code=2)
    place.run("init", "--repo", f"file://{place.home}/x", "--recipient", key, code=2)
    (place.home / "half.txt").write_text(key[:-1])
    place.run(*BACKUP, "--user", "root", "--password-file", "password")
    place.run("export", "prod/latest", "-o", "x.db", "--identity", "half.txt", "--debug", code=1)
    place.run("export", "prod/latest", "-o", "x.db", "--identity", "password", "--debug", code=1)
    place.assert_nothing_is_shown()


def test_promise_5_what_a_store_says_of_a_request_is_not_repeated(tmp_path, locked, server):
    place = Place(tmp_path, locked, server, "s3")
    wrong = "a-secret-key-that-is-wrong"
    place.secrets += [wrong, server.access_key[4:]]
    place.run("list", "--debug", code=1, AWS_SECRET_ACCESS_KEY=wrong)
    place.run("list", "--debug", code=1, AWS_SESSION_TOKEN=wrong, AWS_ACCESS_KEY_ID="nobody")
    with_user = server.endpoint.replace("http://", f"http://user:{wrong}@")
    place.run("list", "--debug", code=2, AWS_ENDPOINT_URL_S3=with_user)
    place.assert_nothing_is_shown()


def test_promise_5_keys_that_a_backup_does_not_need_are_not_read(tmp_path, locked, server):
    """The writer can't read: a backup works where no identity can be had."""
    place = Place(tmp_path, locked, server, "file")
    del place.cli.variables["BACKSTAY_IDENTITY"]
    (place.home / "identity.txt").unlink()
    place.run(*BACKUP, "--user", "root", "--password-file", "password")
    place.run("verify", "prod/latest")
    place.run("export", "prod/latest", "-o", "x.db", code=1)


def test_promise_5_the_umask_of_the_caller_does_not_matter(tmp_path, locked, server):
    before = os.umask(0)
    try:
        place = Place(tmp_path, locked, server, "file")
        place.run(*BACKUP, "--user", "root", "--password-file", "password")
        place.run("export", "prod/latest", "-o", "copy.db")
        place.run("restore", "etcd", "prod/latest", "--data-dir", "data")
        place.run("keygen", "-o", "key.txt")
    finally:
        os.umask(before)
    place.assert_nothing_lies_about(place.stored)
    for name in ("copy.db", "data", "key.txt", "identity.txt"):
        assert (place.home / name).stat().st_mode & 0o077 == 0, name
    for path in (place.home / "data").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
