"""backstay.toml: what it may say, and what is refused of it."""

import os

import pytest

from backstay.cli.main import COMMANDS, backstay
from backstay.cli.settings import TOP, find_settings
from backstay.errors import BackstayError, RefusedError, UsageError

BACKUP = ("backup", "etcd", "--cluster", "prod", "--json")


@pytest.fixture
def write(cli, identity):
    """Writes ./backstay.toml; the repository is only named there."""
    url = cli.variables.pop("BACKSTAY_REPO")

    def write(text, place="backstay.toml"):
        path = cli.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("REPO", url))
        return path

    return write


def test_everything_can_be_said_in_the_file(cli, write):
    recipient = (cli.folder / "identity.txt").read_text().split()[6]
    assert recipient.startswith("age1")
    names = {name.removeprefix("ETCDCTL_").lower(): name for name in cli.variables}
    etcd = "".join(
        f'{option} = "{cli.variables.pop(name)}"\n'
        for option, name in names.items()
        if option in {"endpoints", "cacert", "cert", "key"}
    )
    write(
        f'repo = "REPO"\nrecipient = ["{recipient}"]\ncluster = "prod"\nlevel = 1\nthreads = 1\n'
        f'allow-http = true\ndial-timeout = "7s"\n{etcd}'
        "[backup]\nlevel = 2\n[backup.etcd]\nlevel = 3\n[list]\njson = true\n"
    )
    made = cli("backup", "etcd", "--json").json
    assert made["cluster"] == "prod"
    assert [found["id"] for found in cli("list").json] == [made["id"]]


@pytest.mark.parametrize(
    ("top", "table", "kind", "words", "variable", "expected"),
    [
        ("5s", None, None, [], None, 5),
        ("5s", "6s", None, [], None, 6),
        ("5s", "6s", "7s", [], None, 7),
        ("5s", "6s", "7s", [], "8s", 8),
        ("5s", "6s", "7s", ["--dial-timeout", "9s"], "8s", 9),
    ],
)
def test_the_nearest_word_wins(
    cli, write, monkeypatch, top, table, kind, words, variable, expected
):
    text = f'repo = "REPO"\ndial-timeout = "{top}"\n'
    text += f'[backup]\ndial-timeout = "{table}"\n' if table else ""
    text += f'[backup.etcd]\ndial-timeout = "{kind}"\n' if kind else ""
    write(text)
    seen = []

    def stop(options):
        seen.append(options)
        raise UsageError("enough")

    monkeypatch.setattr("backstay.cli.backup.etcd_access", stop)
    variables = {"ETCDCTL_DIAL_TIMEOUT": variable} if variable else {}
    cli(*BACKUP, *words, expect=2, **variables)
    assert seen[0]["dial_timeout"] == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cluster = 5", "cluster must be a text"),
        ('cluster = ["a"]', "cluster must be a text"),
        ('recipient = "age1x"', "recipient must be a list"),
        ("recipient = [1]", "recipient must be a list"),
        ("recipient = {}", "unknown table: 'recipient'"),
        ("[recipient]\nage1x = 1", "unknown table: 'recipient'"),
        ("recipients = []", "did you mean recipient"),
        ('level = "3"', "level must be a whole number"),
        ("level = true", "level must be a whole number"),
        ("level = 3.5", "level must be a whole number"),
        ("level = 99", "--level"),
        ("threads = 2026-11-20", "threads must be a whole number"),
        ('allow-http = "yes"', "allow-http must be true or false"),
        ("allow-http = 1", "allow-http must be true or false"),
        ("dial-timeout = 5", "dial-timeout must be a text"),
        ("dial-timeout = nan", "dial-timeout must be a text"),
        ('dial-timeout = "soon"', "10s or 1h30m"),
        ("wibble = 1", "unknown setting: 'wibble'"),
        ("json = true", "unknown setting: 'json'"),
        ("[bakcup]\nlevel = 5", "did you mean backup"),
        ("[backup]\nlevle = 5", "did you mean level"),
        ("[backup.etcd]\nlevle = 5", "unknown setting in [backup.etcd]: 'levle'"),
        ('[backup.etcd]\nlevel = "5"', "level must be a whole number"),
        ("[backup.etcd]\nhelp = true", "'help'"),
        ("[backup]\netcd = 5", "etcd in [backup] must be a table"),
        ("[[backup]]\nlevel = 5", "unknown setting: 'backup'"),
        ("backup = 5", "unknown setting: 'backup'"),
        ('user = "root:hunter2"', "password"),
        ("a =", "is no TOML"),
        ("a = 1\na = 2", "is no TOML"),
        ("a = " + "[" * 5000, "is no TOML"),
        ("a = '" + "x" * 70_000 + "'", "more than"),
    ],
)
def test_what_makes_no_sense_is_told_by_name(cli, write, text, told):
    write(f'repo = "REPO"\n{text}\n')
    done = cli(*BACKUP, expect=2)
    assert told in done.err
    assert len(done.err.splitlines()) == 1
    assert "hunter2" not in done.err
    assert done.out == ""


def test_promise_5_a_pin_that_is_misspelt_is_no_pin_and_is_told(cli, write, file_repo):
    for text in ('recipent = ["age1x"]', '[backup.etcd]\nrecipient = "age1x"', "[recipient]"):
        write(f'repo = "REPO"\n{text}\n')
        cli(*BACKUP, expect=2)
    assert not (file_repo / "clusters").exists()


def test_bytes_that_are_no_text(cli, write):
    write("").write_bytes(b'user = "\xffhunter2"')
    done = cli("list", expect=2)
    assert "is no TOML" in done.err
    assert "hunter2" not in done.err


def test_places(cli, write, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    named = write('repo = "REPO"\n', "elsewhere/settings.toml")
    assert "--repo" in cli("list", expect=2).err
    cli("--config", named, "list")
    cli("list", BACKSTAY_CONFIG=str(named))
    home = tmp_path / ".config/backstay"
    home.mkdir(parents=True)
    (home / "backstay.toml").write_text(named.read_text())
    cli("list")
    write("wibble = 1\n")
    assert "wibble" in cli("list", expect=2).err
    assert "gone.toml" in cli("--config", "gone.toml", "list", expect=2).err


def test_a_user_without_a_home_has_no_settings_there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    assert find_settings(None) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_settings_that_others_could_have_left_are_not_obeyed(tmp_path, monkeypatch):
    """They name programs to run."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "backstay.toml"
    path.write_text('etcdutl = "/tmp/evil"\n')
    assert find_settings(None) is not None
    os.chown(path, 1234, 1234)
    with pytest.raises(RefusedError, match="--config"):
        find_settings(None)
    assert find_settings(str(path)) is not None


def test_a_link_to_nowhere_is_not_passed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backstay.toml").symlink_to("gone")
    with pytest.raises(BackstayError, match="No such file"):
        find_settings(None)


def test_every_name_at_the_top_is_an_option_of_some_command():
    known = set()
    for name in COMMANDS:
        command = backstay.get_command(None, name)
        for below in getattr(command, "commands", {"": command}).values():
            known |= {word.removeprefix("--") for p in below.params for word in p.opts}
    assert known >= TOP
