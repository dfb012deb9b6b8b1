"""The image: read as its builder reads it, and held to what the program and the schedules need."""

import fnmatch
import re
import tomllib
from pathlib import Path

from backstay.flows.restore import needed

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Containerfile").read_text()


def instructions():
    """Each instruction with its words; ARGs are put in."""
    lines = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()
    values, found = {}, []
    for line in filter(None, map(str.strip, lines)):
        name, _, rest = line.partition(" ")
        for key, value in values.items():
            rest = rest.replace(f"${{{key}}}", value)
        if name == "ARG":
            key, _, value = rest.partition("=")
            values[key] = value
        else:
            found.append((name, rest))
    return found


def stages():
    found = []
    for name, rest in instructions():
        if name == "FROM":
            image, _, alias = rest.partition(" AS ")
            found.append((image, alias, []))
        else:
            found[-1][2].append((name, rest))
    return found


def last():
    return stages()[-1][2]


def test_what_it_was_built_with_is_not_in_it():
    build, etcd, (image, alias, _) = stages()
    assert (build[1], etcd[1], alias) == ("build", "etcd", "")
    # The interpreter of the environment is that of the image that it is copied to.
    assert build[0] == image
    assert image.endswith("-slim")
    assert all(rest.startswith("--from=") for name, rest in last() if name == "COPY")
    assert not [rest for name, rest in last() if name == "RUN"]


def test_it_runs_the_program_as_nobody():
    words = dict(last())
    assert words["USER"] == "65532:65532"
    [script] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert words["ENTRYPOINT"] == f'["{script}"]'
    path = re.search(r"PATH=(\S+)", words["ENV"])[1].split(":")
    assert "/opt/backstay/bin" in path
    assert "org.opencontainers.image.licenses" in words["LABEL"]


def test_the_python_is_one_that_the_package_takes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = re.search(r"python:3\.(\d+)-", stages()[-1][0])[1]
    assert int(version) >= int(project["requires-python"].removeprefix(">=3."))


def test_etcds_programs_are_in_it_and_fit_for_drills():
    image = stages()[1][0]
    version = tuple(map(int, image.rpartition(":v")[2].split(".")))
    assert version >= needed("3.5.0")
    copied = " ".join(rest for name, rest in last() if name == "COPY")
    assert "/usr/local/bin/etcd /usr/local/bin/etcdutl /usr/local/bin/" in copied


def test_what_the_package_is_built_from_gets_into_the_build():
    ignored = (ROOT / ".containerignore").read_text().split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for needed_one in ("src", "pyproject.toml", project["readme"], *project["license-files"]):
        assert (ROOT / needed_one).exists()
        assert not any(fnmatch.fnmatch(needed_one, pattern) for pattern in ignored)
    for unwanted in (".git", ".venv", "tests"):
        assert unwanted in ignored
