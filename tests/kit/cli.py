"""The command line as a user has it: arguments and variables in, exit code and two streams out."""

import contextlib
import io
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from backstay.cli.main import main
from kit import documented


@dataclass(frozen=True)
class Done:
    """How a call ended."""

    code: int
    out: str
    err: str
    words: tuple[str, ...] = ()

    @property
    def json(self):
        """The one document on standard output, which is as docs/json.md says."""
        document = json.loads(self.out)
        documented.hold(self.words, document)
        return document


@dataclass
class Cli:
    """Calls the program in this process, in a directory and with variables of its own."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words, expect: int | None = 0, **variables) -> Done:
        """Run one command line; by default it must end well."""
        out, err = io.StringIO(), io.StringIO()
        with (
            environment({**self.variables, **variables}),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main([str(word) for word in words])
        done = Done(code, out.getvalue(), err.getvalue(), tuple(map(str, words)))
        assert expect is None or code == expect, done
        # Nothing that a user sees is a traceback, or a defect that was caught at the last stop.
        assert "Traceback" not in done.err, done.err
        assert "defect of backstay" not in done.err, done.err
        return done


@contextlib.contextmanager
def environment(variables: dict[str, str]):
    """The environment of a user who has set these variables and no others of ours."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(("BACKSTAY_", "ETCDCTL_", "AWS_", "AZURE_", "GOOGLE_")):
            del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def etcd_variables(etcd, folder: Path) -> dict[str, str]:
    """etcdctl's variables for a test's etcd; certificates go to files."""
    variables = {"ETCDCTL_ENDPOINTS": etcd.endpoint}
    tls = etcd.tls if hasattr(etcd, "tls") else etcd.members[0].tls
    if tls is not None:
        folder.mkdir(exist_ok=True)
        certificate, key = tls.client.write(folder)
        ca = tls.authority.write(folder)
        variables |= {
            "ETCDCTL_CACERT": str(ca),
            "ETCDCTL_CERT": str(certificate),
            "ETCDCTL_KEY": str(key),
        }
    return variables
