"""The option that says how a hosted etcd is reached."""

import click

from backstay.cli import options


def transport(function: options.F) -> options.F:
    """Say how etcd is reached."""
    return click.option(
        "--transport",
        type=click.Choice(["auto", "direct", "port-forward", "exec"]),
        default="auto",
        show_default=True,
        help="How etcd is reached: its Service, a port-forward, or etcdctl in its pod.",
    )(function)


def watching(function: options.F) -> options.F:
    """Say how etcd is reached to be watched."""
    return click.option(
        "--transport",
        type=click.Choice(["auto", "direct", "port-forward"]),
        default="auto",
        show_default=True,
        help="How etcd is reached: its Service, or a port-forward.",
    )(function)
