"""`backstay demo`: see the main job on real servers."""

from dataclasses import asdict
from pathlib import Path

import click

from backstay.cli import options
from backstay.cli.session import Session
from backstay.cli.values import FilePath


@click.command()
@click.option("--etcd", type=FilePath(path_type=Path), help="The etcd to use.")
@click.option("--etcdutl", type=FilePath(path_type=Path), help="The etcdutl to use.")
@options.talk
@click.pass_obj
def command(session: Session, /, *, etcd: Path | None, etcdutl: Path | None) -> None:
    """See the main job on a real etcd and a real S3 server, in a minute.

    All that it makes is in a private directory, which is gone at the end.
    """
    from backstay.demo.play import play

    acts = play(session.tell, etcd=etcd, etcdutl=etcdutl)
    if session.json:
        session.answer([asdict(act) for act in acts])
    else:
        seconds = sum(act.seconds for act in acts)
        session.tell()
        session.tell(f"That was all, in {seconds:.0f} s. Next: README.md, `backstay --help`.")
