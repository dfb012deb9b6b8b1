"""The units for systemd: taken by its own tool, narrow, and wide enough for what they run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kit import needs
from kit.cli import Cli, etcd_variables
from kit.etcd import Etcd
from kit.words import parsed

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "systemd"
SERVICES = sorted(FOLDER.glob("*.service"))
TIMERS = sorted(FOLDER.glob("*.timer"))
PROGRAM = "/opt/backstay/bin/backstay"
each = pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)


def settings(path):
    """The settings of a unit, each with all its values."""
    found = {}
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def instance(unit):
    return unit.name.replace("@.", "@prod.")


@pytest.fixture
def installed(tmp_path):
    """All units, with a program that is there."""
    for path in (*SERVICES, *TIMERS):
        text = path.read_text().replace(PROGRAM, "/bin/true")
        (tmp_path / path.name).write_text(text)
        (tmp_path / instance(path)).write_text(text)
    return tmp_path


@pytest.mark.parametrize("unit", [*SERVICES, *TIMERS], ids=lambda path: path.name)
def test_systemd_takes_it(installed, unit):
    done = analyze("verify", "--man=no", installed / instance(unit))
    assert (done.returncode, done.stderr) == (0, "")


@each
def test_systemd_finds_little_to_object_to(installed, unit):
    done = analyze("security", "--offline=yes", "--threshold=15", installed / instance(unit))
    assert done.returncode == 0, done.stdout


def analyze(*words):
    return subprocess.run(
        [needs.binary("systemd-analyze"), *words], capture_output=True, text=True, check=False
    )


@each
def test_its_command_line_is_one(unit):
    [line] = settings(unit)["ExecStart"]
    program, *words = shlex.split(line.replace("%i", "prod"))
    assert program == PROGRAM
    found = parsed(words)
    if "@" in unit.name:
        assert (found.get("cluster") or found["subject"]).startswith("prod")


@each
def test_its_variables_are_read_by_the_program(unit):
    text = "".join(path.read_text() for path in (ROOT / "src/backstay/cli").glob("*.py"))
    for line in settings(unit).get("Environment", ()):
        for word in line.split():
            assert f'"{word.partition("=")[0]}"' in text


@each
def test_credentials_are_handed_over_and_used(unit):
    found = settings(unit)
    given = {line.partition(":")[0] for line in found.get("LoadCredential", ())}
    used = set(re.findall(r"%d/(\S+)", " ".join(found.get("Environment", ()))))
    assert given == used


def test_who_writes_backups_has_no_identity():
    for unit in SERVICES:
        assert ("identity" in unit.read_text().lower().partition("[unit]")[2]) == (
            "drill" in unit.name
        )


@pytest.mark.parametrize("timer", TIMERS, ids=lambda path: path.name)
def test_each_timer_has_its_service_and_makes_up_for_what_was_missed(timer):
    assert timer.with_suffix(".service") in SERVICES
    assert settings(timer)["Persistent"] == ["true"]
    assert settings(timer)["WantedBy"] == ["timers.target"]
    done = analyze("calendar", settings(timer)["OnCalendar"][0])
    assert done.returncode == 0, done.stderr


def allowed(unit):
    """The system calls that a unit may make."""
    found = set()
    for value in settings(unit)["SystemCallFilter"]:
        names = {call for word in value.lstrip("~").split() for call in calls(word)}
        found = found - names if value.startswith("~") else found | names
    return found


def calls(word):
    done = analyze("syscall-filter", "--no-pager", word)
    found = set()
    for line in done.stdout.splitlines()[1:]:
        name = line.split("#")[0].strip()
        found |= calls(name) if name.startswith("@") else {name} - {""}
    return found


@pytest.mark.soak
def test_what_is_run_makes_no_system_call_that_is_filtered(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    with Etcd.start(tmp_path / "etcd") as etcd:
        cli = Cli(home, etcd_variables(etcd, tmp_path / "pki"))
        cli.variables["BACKSTAY_REPO"] = f"file://{tmp_path}/repo"
        recipient = cli("keygen", "-o", "identity.txt", "--json").json["recipient"]
        cli("init", "--recipient", recipient)
        backup = traced(cli, "backup", "etcd", "--cluster", "prod")
    drill = traced(cli, "drill", "prod/latest", "--identity", "identity.txt")
    assert {"openat", "sendmsg", "linkat"} <= backup
    assert backup - allowed(FOLDER / "backstay-backup@.service") == set()
    assert drill - allowed(FOLDER / "backstay-drill@.service") == set()


def traced(cli, *words):
    """The system calls that a command and all that it starts make."""
    trace = cli.folder / "trace"
    folders = {needs.binary(name).parent for name in ("etcd", "etcdutl")}
    done = subprocess.run(
        [
            *(needs.binary("strace"), "-f", "--summary-only", "-o", trace),
            *(sys.executable, "-m", "backstay.cli.main", *words),
        ],
        cwd=cli.folder,
        env={"PATH": ":".join(map(str, [*folders, "/usr/bin", "/bin"])), **cli.variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"(\w+)$", trace.read_text(), re.MULTILINE)) - {"syscall", "total"}
