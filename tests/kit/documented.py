"""What docs/json.md says that --json prints, held against what is printed."""

import re
from functools import cache
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "json.md"
_ROW = re.compile(r"\| `([a-z ]+)` \| .* \| (.*) \|")


@cache
def rows() -> dict[str, tuple[set[str], set[str]]]:
    """Of each command: the fields that are always there, and those that may be."""
    found = {}
    for match in filter(None, map(_ROW.fullmatch, DOCS.read_text().splitlines())):
        name, fields = match.groups()
        always, _, sometimes = re.sub(r"\([^)]*\)", "", fields).partition(";")
        found[name] = (set(re.findall(r"`(\w+)`", always)), set(re.findall(r"`(\w+)`", sometimes)))
    return found


def hold(words: tuple[str, ...], document) -> None:
    """Hold a document to its row; those whose fields stand elsewhere have none there."""
    name = next((name for name in (" ".join(words[:2]), words[0]) if name in rows()), None)
    # The steps of a restore that is only shown are told in the words of the row.
    if name is None or (words[0] == "restore" and "--dry-run" in words):
        return
    always, sometimes = rows()[name]
    for one in document if isinstance(document, list) else [document]:
        if always:
            assert always <= one.keys(), (name, always - one.keys())
            assert one.keys() - always <= sometimes, (name, one.keys() - always - sometimes)
