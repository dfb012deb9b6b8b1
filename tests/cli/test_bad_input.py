"""What users, disks and strangers hand to the program: one line says what is wrong, at once."""

import os
import signal
import socket
from contextlib import contextmanager

import pytest

from kit import fixtures, process
from kit.certificates import Authority, days
from kit.cli import etcd_variables
from kit.etcd import Etcd, ServerTls, free_port, mutual_tls

BACKUP = ("backup", "etcd", "--cluster", "prod")


def one_error(done):
    """The one line of a call that failed; nothing is on standard output."""
    errors = [line for line in done.err.splitlines() if line.startswith("backstay: ")]
    assert len(errors) == 1, done
    assert done.out == ""
    return errors[0]


@pytest.fixture
def made(cli, identity):
    """A backup; its manifest."""
    return cli(*BACKUP, "--json").json


@contextmanager
def at_once(seconds=10):
    """The block takes no longer than this; one that hangs is ended."""

    def too_long(*_):
        raise AssertionError(f"it took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class TestEtcd:
    """Whom we can't enter, and why."""

    def back_up(self, cli, words, told, file_repo, code=1):
        with at_once(20):
            error = one_error(cli(*BACKUP, "--dial-timeout", "1s", *words, expect=code))
        for word in [told] if isinstance(told, str) else told:
            assert word in error
        assert not (file_repo / "clusters").exists()
        assert not list((cli.folder / "spool").iterdir())

    @pytest.fixture(autouse=True)
    def spool(self, cli):
        (cli.folder / "spool").mkdir()
        cli.variables["BACKSTAY_SPOOL_DIR"] = str(cli.folder / "spool")

    def files(self, cli, issued, name="other"):
        """Options that show another certificate."""
        certificate, key = issued.write(cli.folder / name)
        return ["--cert", certificate, "--key", key]

    def test_nobody_listens(self, cli, file_repo):
        port = free_port()
        words = ["--endpoints", f"https://127.0.0.1:{port}"]
        self.back_up(cli, words, [f"127.0.0.1:{port}", "nobody listens"], file_repo)

    def test_somebody_listens_and_says_nothing(self, cli, file_repo):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            words = ["--endpoints", f"https://127.0.0.1:{port}"]
            self.back_up(cli, words, f"127.0.0.1:{port}", file_repo)

    def test_it_speaks_tls_and_we_do_not(self, cli, file_repo, etcd):
        for name in ("ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY"):
            del cli.variables[name]
        words = ["--endpoints", etcd.endpoint.replace("https", "http")]
        self.back_up(cli, words, "https://", file_repo)

    def test_a_name_without_an_address(self, cli, file_repo):
        words = ["--endpoints", "https://etcd.invalid:2379"]
        self.back_up(cli, words, "etcd.invalid", file_repo)

    def test_a_client_certificate_that_ran_out(self, cli, file_repo):
        old = mutual_tls().authority.issue("old", start=days(-9), end=days(-2))
        self.back_up(cli, self.files(cli, old), ["client certificate", "ran out on"], file_repo)

    def test_a_client_certificate_of_tomorrow(self, cli, file_repo):
        new = mutual_tls().authority.issue("new", start=days(1))
        self.back_up(cli, self.files(cli, new), "is not valid before", file_repo)

    def test_a_client_certificate_of_strangers(self, cli, file_repo):
        strange = Authority.make("strangers").issue("client")
        self.back_up(cli, self.files(cli, strange), "refuses our client certificate", file_repo)

    def test_no_client_certificate(self, cli, file_repo):
        del cli.variables["ETCDCTL_CERT"], cli.variables["ETCDCTL_KEY"]
        self.back_up(cli, [], "wants a client certificate: give --cert", file_repo)

    def test_a_certificate_without_its_key(self, cli, file_repo):
        del cli.variables["ETCDCTL_KEY"]
        self.back_up(cli, [], ["key is missing", "--key"], file_repo, code=2)

    def test_a_key_of_another_certificate(self, cli, file_repo):
        other = mutual_tls().authority.issue("other")
        words = self.files(cli, other)[2:]
        self.back_up(cli, words, "the key does not belong to the client certificate", file_repo, 2)

    def test_an_authority_that_did_not_sign_the_server(self, cli, file_repo):
        ca = Authority.make("strangers").write(cli.folder / "strange")
        self.back_up(cli, ["--cacert", ca], "not among the authorities", file_repo)

    def test_an_authority_that_ran_out(self, cli, file_repo):
        ca = Authority.make(start=days(-9), end=days(-2)).write(cli.folder / "old")
        self.back_up(cli, ["--cacert", ca], ["authority", "ran out on"], file_repo)

    def test_a_server_by_another_name(self, cli, file_repo):
        words = ["--server-name", "etcd.example"]
        self.back_up(cli, words, ["not for etcd.example", "--server-name"], file_repo)

    def test_a_server_whose_certificate_ran_out(self, cli, file_repo, tmp_path):
        ours = mutual_tls()
        old = ours.authority.issue("old-server", start=days(-9), end=days(-2))
        with Etcd.start(tmp_path / "old", tls=ServerTls(ours.authority, old)) as server:
            words = ["--endpoints", server.endpoint]
            self.back_up(cli, words, ["127.0.0.1", "ran out on"], file_repo)

    def test_a_wrong_password(self, cli, file_repo, tmp_path):
        with Etcd.start(tmp_path / "auth") as server:
            server.enable_auth()
            cli.variables |= etcd_variables(server, tmp_path / "auth-pki")
            (cli.folder / "password").write_text("no such password\n")
            words = ["--user", "root", "--password-file", "password"]
            self.back_up(cli, words, "--user", file_repo)
            self.back_up(cli, [], "user", file_repo)


class TestNames:
    """Arguments that nobody means."""

    @pytest.mark.parametrize(
        "name",
        ["..", "a..b", ".a", "-a", "A", "a/b", "a b", "", "a\n", "\u00e4", "\udcff", "a" * 201],
    )
    def test_clusters(self, cli, file_repo, name):
        done = cli("backup", "etcd", "--cluster", name, expect=2)
        assert "no name for a cluster" in one_error(done)
        assert "no name for a cluster" in one_error(cli("list", "--cluster", name, expect=2))
        assert not (file_repo / "clusters").exists()

    def test_the_longest_name_works(self, cli, identity):
        name = "a" * 200
        made = cli("backup", "etcd", "--cluster", name, "--json").json
        assert made["cluster"] == name
        cli("verify", f"{name}/latest", "--read-data")

    @pytest.mark.parametrize(
        "name",
        [
            "prod",
            "prod/",
            "/prod/latest",
            "prod/newest",
            "prod/../prod/latest",
            "prod/20261120T231000Z-r1-aaa",
            "prod/20261320T231000Z-r1-aaaa",
            "prod/20261120T231000Z-r01-aaaa",
            "prod/00010101T000000Z-r1-aaaa",
            "prod/\u0662\u0660261120T231000Z-r1-aaaa",
            "prod/20261120T231000Z-r1-aaaa\n",
            "prod/\x1b[31m",
            "prod/\udcff",
            "prod/" + "a" * 5000,
            "a" * 5000,
            "a" * 5000 + "/latest",
        ],
    )
    def test_backups(self, cli, file_repo, name):
        words = one_error(cli("show", name, expect=2))
        assert "is no " in words
        assert words.isprintable()
        if not name.startswith("/"):
            for command in (
                ["verify"],
                ["export", "-o", "x.db"],
                ["restore", "etcd", "--data-dir", "x"],
            ):
                one_error(cli(*command, name, expect=2))
        assert sorted(os.listdir(cli.folder)) == ["identity.txt"]

    def test_a_backup_that_is_not_there(self, cli, file_repo):
        for name in ("prod/latest", "prod/latest-verified", "prod/20261120T231000Z-r1-aaaa"):
            assert "backstay list" in one_error(cli("show", name, expect=1))

    @pytest.mark.parametrize(
        ("words", "code", "told"),
        [
            (["export", "FILE", "-o", "."], 2, "directory"),
            (["export", "FILE", "-o", ""], 2, "name is empty"),
            (["export", "FILE", "-o", "gone/x"], 1, "gone"),
            (["export", "FILE", "-o", "file.txt/x"], 1, "file.txt"),
            (["export", "FILE", "-o", "x" * 300], 1, "too long"),
            (["export", "FILE", "-o", "FILE"], 5, "exists already"),
            (["export", "FILE", "-o", "x", "--mark-compacted"], 2, "bump"),
            (["export", "FILE", "-o", "x", "--bump-revision", "9" * 30], 2, "bump"),
            (["export", "FILE", "-o", "x", "--bump-revision", "-1"], 2, "--bump-revision"),
            (["restore", "etcd", "FILE", "--data-dir", ""], 2, "name is empty"),
            (["restore", "etcd", "FILE", "--data-dir", "gone/x"], 1, "make it first"),
            (["restore", "etcd", "FILE", "--data-dir", "file.txt/x"], 1, "file.txt"),
            (["restore", "etcd", "FILE", "--data-dir", "x" * 300], 1, "too long"),
            (["restore", "etcd", "FILE", "--data-dir", "x", "--initial-cluster", "none"], 1, "URL"),
            (["restore", "etcd", "FILE", "--data-dir", "x", "--etcdutl", "/dev/null"], 1, "null"),
            (["hashkv", "FILE", "--rev", "9" * 30], 2, "revision"),
            (["hashkv", "FILE", "--rev", "x"], 2, "--rev"),
            (["status", "FILE", "-w", "xml"], 2, "xml"),
            (["keygen", "-o", "."], 2, "directory"),
            (["keygen", "-o", "file.txt"], 5, "exists already"),
            ([*BACKUP, "--spool-dir", ""], 2, "name is empty"),
            ([*BACKUP, "--spool-dir", "file.txt"], 2, "--spool-dir"),
            ([*BACKUP, "--dial-timeout", "9" * 30 + "h"], 2, "--dial-timeout"),
            ([*BACKUP, "--dial-timeout", "0s"], 2, "timeout"),
            ([*BACKUP, "--dial-timeout", "soon"], 2, "10s or 1h30m"),
            ([*BACKUP, "--endpoints", ","], 2, "endpoint"),
            ([*BACKUP, "--endpoints", "https://u:secret@h:1"], 2, "password"),
            ([*BACKUP, "--endpoints", "https://\udcff:1"], 2, "endpoint"),
            ([*BACKUP, "--server-name", "\udcff"], 2, "--server-name"),
            ([*BACKUP, "--cacert", "/dev/zero"], 1, "more than"),
            ([*BACKUP, "--cacert", "file.txt"], 2, "no certificate"),
            ([*BACKUP, "--repo", ""], 2, "no URL"),
            ([*BACKUP, "--repo", "file:///"], 2, "root"),
            ([*BACKUP, "--repo", "file://file.txt"], 2, "directory"),
            ([*BACKUP, "--recipient", "AGE-SECRET-KEY-1QQ"], 2, "private key"),
            ([*BACKUP, "--recipient", "age1x"], 2, "no age recipient"),
        ],
        ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
    )  # fmt: skip
    def test_options(self, cli, file_repo, words, code, told):
        file = fixtures.write("etcd3516-plain", cli.folder)
        (cli.folder / "file.txt").write_text("mine")
        before = sorted(os.listdir(cli.folder))
        with at_once():
            done = cli(*[str(file) if w == "FILE" else w for w in words], expect=code)
        assert told in one_error(done)
        assert "secret" not in done.err
        assert sorted(os.listdir(cli.folder)) == before
        assert (cli.folder / "file.txt").read_text() == "mine"
        assert not (file_repo / "clusters").exists()

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["lst"], "did you mean list?"),
            (["frobnicate"], "backup"),
            (["backup", "etdc"], "etdc"),
            (["list", "--clutser", "x"], "--clutser"),
            (["--wibble"], "--wibble"),
            (["list", "more"], "more"),
            (["show"], "ID"),
            (["export", "x"], "--output"),
        ],
    )
    def test_commands_that_are_not(self, cli, file_repo, words, told):
        assert told in one_error(cli(*words, expect=2))

    @pytest.mark.parametrize("words", [[], ["backup"], ["restore"]])
    def test_without_a_command_there_is_help(self, cli, words):
        done = cli(*words, expect=2)
        assert "Usage: backstay" in done.err
        assert "Usage: backstay" in cli(*words, "-h").out


class TestFiles:
    """What is named as a snapshot, or as a file of ours, and is none."""

    @pytest.fixture(params=["directory", "pipe", "zero", "null", "sparse", "closed", "link"])
    def odd(self, request, tmp_path):
        """Something in the file system that is no snapshot."""
        path = tmp_path / "odd"
        if request.param == "directory":
            path.mkdir()
        elif request.param == "pipe":
            os.mkfifo(path)
        elif request.param == "sparse":
            path.touch()
            os.truncate(path, 1 << 40)
        elif request.param == "closed":
            path.symlink_to("/proc/self/mem")
        elif request.param == "link":
            path.symlink_to(path)
        else:
            path.symlink_to(f"/dev/{request.param}")
        return path

    @pytest.mark.parametrize(
        "words",
        [
            ["status"],
            ["hashkv"],
            ["verify"],
            ["export", "-o", "x.db"],
            ["restore", "etcd", "--data-dir", "x"],
        ],
        ids=lambda words: words[0],
    )
    def test_snapshots(self, cli, odd, words):
        with at_once():
            done = cli(*words, odd, expect=None)
        assert done.code in {1, 3}
        assert "odd" in done.err
        assert os.listdir(cli.folder) == []

    @pytest.mark.parametrize("what", ["identity", "password", "settings", "certificate"])
    def test_small_files(self, cli, made, odd, what, monkeypatch):
        monkeypatch.setattr("backstay.files.PATIENCE", 0.2)
        words = {
            "identity": ["verify", "prod/latest", "--read-data", "--identity", odd],
            "password": [*BACKUP, "--user", "root", "--password-file", odd],
            "settings": ["--config", odd, "list"],
            "certificate": [*BACKUP, "--cacert", odd],
        }[what]
        with at_once():
            done = cli(*words, expect=None)
        if os.path.realpath(odd) == "/dev/null" and what in {"settings", "password"}:
            return  # nothing is set, and there is no password: both make sense
        assert done.code in {1, 2}
        one_error(done)

    def test_names_that_are_no_text(self, cli, made):
        odd = os.fsdecode(b"\xff\xfe.db")
        cli("export", made["id"], "-o", odd)
        assert b"\xff\xfe.db" in os.listdir(os.fsencode(cli.folder))
        assert cli("status", f"./{odd}").out
        assert cli("verify", odd, "--json").json["subject"] == odd
        done = cli("restore", "etcd", odd, "--data-dir", os.fsdecode(b"\xff"))
        assert "\\udcff is restored" in done.err

    def test_a_name_with_a_pattern_in_it(self, cli, made):
        """A data directory named like a pattern sweeps what is its own, and nothing else."""
        other = cli.folder / ".abc.backstay-left"
        own = cli.folder / ".a[b]c.backstay-left"
        for folder in (other, own):
            folder.mkdir()
        cli("restore", "etcd", made["id"], "--data-dir", "a[b]c")
        assert other.is_dir()
        assert not own.exists()


class TestIdentities:
    """What is given as a private key."""

    @pytest.mark.parametrize(
        ("data", "told"),
        [
            (b"", "no age identity"),
            (b"# only a comment\n", "no age identity"),
            (b"\0" * 1000, "line 1"),
            (b"\xff\xfe", "line 1"),
            (b"AGE-SECRET-KEY-1QQQQ\n", "line 1"),
            (b"hunter2\n", "line 1"),
            (b"age-encryption.org/v1\n-> scrypt x 18\n", "line 1"),
            (b"x" * (1 << 21), "more than"),
        ],
    )
    def test_what_is_none(self, cli, made, data, told):
        (cli.folder / "bad.txt").write_bytes(data)
        done = cli("export", made["id"], "-o", "x.db", "--identity", "bad.txt", expect=1)
        assert told in one_error(done)
        for secret in ("hunter2", "1QQQQ", "scrypt"):
            assert secret not in done.err
        assert not (cli.folder / "x.db").exists()

    def test_a_damaged_one(self, cli, made, identity):
        text = identity.read_text()
        key = text.splitlines()[-1]
        broken = key[:30] + ("Q" if key[30] != "Q" else "P") + key[31:]
        (cli.folder / "bad.txt").write_text(text.replace(key, broken))
        done = cli("export", made["id"], "-o", "x.db", "--identity", "bad.txt", expect=1)
        assert "line 3" in one_error(done)
        assert broken[20:40] not in done.err

    def test_the_wrong_one(self, cli, made):
        cli("keygen", "-o", "other.txt")
        words = ["--identity", "other.txt"]
        done = cli("export", made["id"], "-o", "x.db", *words, expect=1)
        assert "other.txt holds the key of none of them" in one_error(done)
        done = cli("verify", made["id"], "--read-data", *words, "--json", expect=4)
        verdicts = {check["name"]: check["verdict"] for check in done.json["checks"]}
        assert verdicts == {"stored": "PASS", "sealed": "COULD NOT VERIFY"}
        assert cli("show", "prod/latest-verified", "--json").json["id"] == made["id"]

    def test_one_among_others_opens_it(self, cli, made, identity):
        cli("keygen", "-o", "other.txt")
        (cli.folder / "both.txt").write_text(
            (cli.folder / "other.txt").read_text() + identity.read_text()
        )
        cli("verify", made["id"], "--read-data", "--identity", "both.txt")

    def test_one_from_a_pipe_opens_it(self, cli, made, identity):
        """A shell's `<(...)`: the key is never on a disk."""
        reading, writing = os.pipe()
        os.write(writing, identity.read_bytes())
        os.close(writing)
        try:
            cli("verify", made["id"], "--read-data", "--identity", f"/dev/fd/{reading}")
        finally:
            os.close(reading)


class TestPasswords:
    """How a password is given."""

    def test_what_is_no_text(self, cli, file_repo):
        (cli.folder / "password").write_bytes(b"\xff\xfe")
        done = cli(*BACKUP, "--user", "root", "--password-file", "password", expect=2)
        assert "no text" in one_error(done)
        done = cli(*BACKUP, "--user", "root", expect=2, ETCDCTL_PASSWORD="a\udcff")
        assert "ETCDCTL_PASSWORD holds bytes" in one_error(done)

    def test_nobody_is_there_to_be_asked(self, cli, file_repo):
        running = process.start([*BACKUP, "--user", "root"], cli.folder, cli.variables)
        _, err = running.communicate(timeout=20)
        assert running.returncode == 2
        assert "--password-file or ETCDCTL_PASSWORD" in err
        assert len(err.splitlines()) == 1
