"""Options that say how hard a backup is compressed."""

import click

from backstay.cli import options


def sealing(function: options.F) -> options.F:
    """Say how hard to compress."""
    return options.compose(
        click.option(
            "--level",
            type=click.IntRange(1, 19),
            default=3,
            show_default=True,
            help="How hard to compress.",
        ),
        click.option(
            "--threads", type=click.IntRange(1, 64), help="Threads that compress.  [default: cores]"
        ),
    )(function)
