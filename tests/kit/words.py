"""Command lines as the program's own parser takes them, without running them."""

from collections.abc import Iterable
from typing import Any

import click

from backstay.cli.main import backstay


def parsed(words: Iterable[str]) -> dict[str, Any]:
    """What the real command line makes of some words; raw values by the names of parameters."""
    rest = list(words)
    context = click.Context(backstay, info_name="backstay")
    while isinstance(context.command, click.Group):
        name = rest.pop(0)
        command = context.command.get_command(context, name)
        assert command is not None, name
        context = click.Context(command, info_name=name, parent=context)
    found, left, _ = context.command.make_parser(context).parse_args(rest)
    assert not left, left
    return dict(found)
