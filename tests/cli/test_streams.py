"""Where the program's words go: pipes that close, disks that are full, terminals, completion."""

import json
import os
import pty
import re
from pathlib import Path

import pytest

from kit import fixtures, process

BACKUP = ("backup", "etcd", "--cluster", "prod")


@pytest.fixture
def made(cli, identity):
    """A backup; its manifest."""
    return cli(*BACKUP, "--json").json


def run(cli, *words, **more):
    """A process; gives its exit code and both streams."""
    running = process.start(words, cli.folder, cli.variables, **more)
    out, err = running.communicate(timeout=60)
    assert "Traceback" not in (err or "")
    assert "defect" not in (err or "")
    return running.returncode, out or "", err or ""


def closing(*fds):
    """Closes file descriptors in the new process before the program begins."""
    return lambda: [os.close(fd) for fd in fds]


@pytest.mark.parametrize("words", [["list"], ["list", "--json"], ["-h"]])
def test_a_reader_that_has_read_enough_is_no_error_to_speak_of(cli, made, words):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        code, _, err = run(cli, *words, stdout=writing)
    finally:
        os.close(writing)
    assert code == 1
    assert err == ""


def test_a_log_that_nobody_reads_ends_no_backup(cli, made):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        code, out, _ = run(cli, *BACKUP, "--json", stderr=writing)
    finally:
        os.close(writing)
    assert code == 0
    assert cli("show", "prod/latest", "--json").json == json.loads(out)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["list", "--json"], 1),
        (["keygen"], 1),
        (["verify", "prod/latest"], 0),
    ],
)
def test_an_answer_that_cannot_be_written_is_told(cli, made, words, code):
    with Path("/dev/full").open("w") as full:
        found, _, err = run(cli, *words, stdout=full)
    assert found == code
    assert ("can't be written to standard output" in err) == (code == 1)
    found, _, err = run(cli, *words, preexec_fn=closing(1))
    assert found == code
    assert ("no standard output" in err) == (code == 1)


@pytest.mark.parametrize("closed", [(2,), (0, 1, 2)])
def test_streams_that_are_closed_from_the_start(cli, made, closed):
    code, _, _ = run(cli, *BACKUP, stdin=None, preexec_fn=closing(*closed))
    assert code == 0
    assert len(cli("list", "--json").json) == 2
    # No other file was given the number of a standard stream, and somebody's words in it.
    cli("verify", "prod/latest", "--read-data")


JSON = {
    "list": ["list"],
    "show": ["show", "prod/latest"],
    "verify": ["verify", "prod/latest"],
    "preflight": ["preflight", "etcd"],
    "export": ["export", "prod/latest", "-o", "x.db"],
    "restore": ["restore", "etcd", "prod/latest", "--data-dir", "x"],
    "backup": [*BACKUP],
    "dry-run": [*BACKUP, "--dry-run"],
    "status": ["status", "fixture.db"],
    "hashkv": ["hashkv", "fixture.db"],
    "keygen": ["keygen"],
    "keygen-o": ["keygen", "-o", "key.txt"],
    "init": ["init", "--no-encryption", "--repo", "NEW"],
}


@pytest.mark.parametrize("words", JSON.values(), ids=JSON)
def test_with_json_there_is_one_document_and_nothing_else(cli, made, tmp_path, words):
    fixtures.write("etcd3516-plain", tmp_path).rename(cli.folder / "fixture.db")
    new = f"file://{tmp_path}/new"
    done = cli(*[new if word == "NEW" else word for word in words], "--json")
    assert isinstance(json.loads(done.out), dict | list)
    assert json.JSONDecoder().raw_decode(done.out)[1] == len(done.out.rstrip())


FAILING = {
    "list": (["list", "--repo", "file:///gone"], 1),
    "show": (["show", "prod/nothing"], 2),
    "verify": (["verify", "./gone.db"], 1),
    "export": (["export", "prod/latest", "-o", "gone/x.db"], 1),
    "restore": (["restore", "etcd", "prod/latest", "--data-dir", "gone/x"], 1),
    "backup": ([*BACKUP, "--endpoints", "https://127.0.0.1:1"], 1),
    "status": (["status", "./gone.db"], 1),
    "hashkv": (["hashkv", "./gone.db"], 1),
    "keygen": (["keygen", "-o", "identity.txt"], 5),
    "init": (["init", "--no-encryption"], 5),
    "option": (["list", "--wibble"], 2),
}


@pytest.mark.parametrize(("words", "code"), FAILING.values(), ids=FAILING)
def test_with_json_an_error_is_on_standard_error_alone(cli, made, words, code):
    done = cli(*words, "--json", expect=code)
    assert done.out == ""
    assert [line for line in done.err.splitlines() if line.startswith("backstay: ")]
    if words[-1] != "--wibble":
        done = cli(*words, "--json", "--log-format", "json", expect=code)
        assert json.loads(done.err.splitlines()[-1])["level"] == "error"


def in_terminal(cli, *words, columns=100):
    """Run in a pseudo-terminal; gives the exit code and all that came."""
    master, slave = pty.openpty()
    running = process.start(
        words,
        cli.folder,
        cli.variables | {"COLUMNS": str(columns), "TERM": "xterm"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    came = bytearray()
    try:
        while piece := os.read(master, 1 << 16):
            came += piece
    except OSError:  # the other side has closed
        pass
    finally:
        os.close(master)
    return running.wait(30), came.decode()


def test_on_a_terminal_there_are_bars_and_colours(cli, made):
    code, text = in_terminal(cli, *BACKUP)
    assert code == 0
    assert "\x1b[32mPASS" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert re.search(r"snapshot from https://\S+: \d+.* in ", plain)
    assert "verified: transfer, stored, structure, content" in plain
    assert "Traceback" not in plain
    code, text = in_terminal(cli, *BACKUP, "--quiet")
    assert (code, text) == (0, "")
    code, text = in_terminal(cli, "show", "prod/nothing")
    assert code == 2
    assert len(text.splitlines()) == 1


def test_a_file_named_like_markup_is_shown_as_it_is(cli, made):
    code, text = in_terminal(cli, "export", made["id"], "-o", "[red]x\x1b[31m.db")
    assert code == 0
    assert "[red]x\\x1b[31m.db" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_password_is_asked_for_and_not_shown(cli, file_repo):
    """On a terminal, and nowhere else; it is not echoed."""
    master, slave = pty.openpty()
    running = process.start(
        [*BACKUP, "--user", "root"],
        cli.folder,
        cli.variables,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
    )
    os.close(slave)
    came = b""
    try:
        while b"Password of root" not in came:
            came += os.read(master, 1 << 12)
        os.write(master, b"hunter2\n")
        while piece := os.read(master, 1 << 12):
            came += piece
    except OSError:
        pass
    finally:
        os.close(master)
    assert running.wait(30) == 0, came
    assert b"hunter2" not in came


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(cli, shell):
    cli.variables["_BACKSTAY_COMPLETE"] = f"{shell}_source"
    code, out, _ = run(cli)
    assert code == 0
    assert "backstay" in out


def test_completion_knows_commands_and_options(cli):
    def offered(words, number):
        cli.variables |= {
            "_BACKSTAY_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(number),
        }
        code, out, err = run(cli)
        assert (code, err) == (0, "")
        return {line.partition(",")[2] for line in out.splitlines()}

    assert {"backup", "restore", "verify"} <= offered("backstay ", 1)
    assert offered("backstay ver", 1) == {"verify"}
    assert "etcd" in offered("backstay backup ", 2)
    assert "--read-data" in offered("backstay verify --r", 2)


def test_the_version_takes_no_time(cli):
    code, out, _ = run(cli, "--version")
    assert code == 0
    assert re.fullmatch(r"backstay \d+\.\d+\.\d+\S*\n", out)


def test_the_interpreter_is_not_taken_down_under_the_threads_of_libraries(cli, made, tmp_path):
    """Which has ended in a crash, with the answer written and the exit code of a signal."""
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, sys\natexit.register(lambda: print('taken down', file=sys.stderr))\n"
    )
    variables = cli.variables | {"PYTHONPATH": str(tmp_path)}
    running = process.start(("show", made["id"], "--json"), cli.folder, variables)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (0, "")
    assert json.loads(out) == made
