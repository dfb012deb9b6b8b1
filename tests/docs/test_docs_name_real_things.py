"""What the pages call a command, an option, a file or a test is one."""

import re
import subprocess
from pathlib import Path

import click
import pytest

from backstay.cli.main import COMMANDS, backstay

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
CODE = re.compile(r"```\w*\n(.*?)```|`([^`\n]+)`", re.DOTALL)


def commands(page):
    for block, span in CODE.findall(page.read_text()):
        for line in (block or span).replace("\\\n", " ").splitlines():
            found = re.search(r"(?:^|[\s(|])(backstay [a-z].*)$", line.strip())
            if found:
                yield re.split(r" [|;&]", re.sub(r"\$\([^)]*\)", "X", found[1]))[0].strip()


def command_of(words):
    command, rest = backstay, words
    context = click.Context(backstay)
    while isinstance(command, click.Group) and rest:
        found = command.get_command(context, rest[0])
        if found is None:
            break
        command, rest = found, rest[1:]
    return command, rest


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page):
    for line in commands(page):
        words = line.split()[1:]
        assert words[0] in COMMANDS, line
        command, rest = command_of(words)
        known = {option for parameter in command.params for option in parameter.opts}
        known |= {"--help"}
        asked = {word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        assert isinstance(command, click.Group) or asked <= known, (line, asked - known)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page):
    for target in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.MULTILINE):
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_every_command_is_in_the_docs():
    text = "".join(page.read_text() for page in PAGES)
    assert [name for name in COMMANDS if f"backstay {name}" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_anchors_are_headings(page):
    for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", page.read_text()):
        if not target.startswith("https://"):
            text = ((page.parent / target) if target else page).read_text()
            titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, (target, anchor)


def names_of_tests():
    for page in PAGES:
        for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text()):
            yield page.name, path, name


@pytest.mark.parametrize(("page", "path", "name"), sorted(set(names_of_tests())))
def test_tests_that_are_named_exist(page, path, name):
    assert f"def {name}(" in (ROOT / path).read_text()


def test_each_guarantee_names_tests():
    text = (ROOT / "docs/security.md").read_text()
    [part] = re.findall(r"^## Guarantees\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    guarantees = re.split(r"^\d+\. ", part, flags=re.MULTILINE)[1:]
    assert len(guarantees) > 9
    for guarantee in guarantees:
        assert re.search(r"`tests/\S+::test_\w+`", guarantee), guarantee
