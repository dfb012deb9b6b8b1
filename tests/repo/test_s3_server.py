"""The S3 server that tests and the demonstration use: private, and gone when it should be."""

import contextlib
import http.client
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backstay.demo.s3 import S3Server, s3_server
from backstay.errors import ToolError
from kit import needs, s3


def test_plain_server_answers_and_wants_credentials(tmp_path):
    with s3.plain(tmp_path / "s3") as server:
        assert _status(server) in {400, 403}
        assert server.endpoint.startswith("http://127.0.0.1:")
        assert (tmp_path / "s3").stat().st_mode & 0o77 == 0
        assert server.secret_key not in repr(server)
        arguments = Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert server.secret_key.encode() not in arguments
    assert not Path(f"/proc/{server.pid}").exists()


def test_tls_server_is_trusted_by_its_own_authority_alone(tmp_path):
    with s3.over_tls(tmp_path / "s3") as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            _status(server, ssl.create_default_context())
        assert _status(server, ssl.create_default_context(cafile=server.authority)) in {400, 403}


def test_server_is_gone_when_its_caller_is_killed(tmp_path):
    needs.binary("setpriv")
    script = (
        "import os, pathlib, sys\n"
        "from backstay.demo.s3 import S3Server, s3_server\n"
        "with s3_server(pathlib.Path(sys.argv[1])) as server:\n"
        "    print(server.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "s3")],
        capture_output=True,
        timeout=60,
        check=False,
    )
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(pid)


def _status(server: S3Server, context: ssl.SSLContext | None = None) -> int:
    """Ask for an object without credentials."""
    address = server.endpoint.partition("://")[2]
    connection = (
        http.client.HTTPSConnection(address, timeout=5, context=context)
        if context
        else http.client.HTTPConnection(address, timeout=5)
    )
    with contextlib.closing(connection):
        connection.request("GET", f"/{s3.BUCKET}/x")
        return connection.getresponse().status


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_a_server_that_cannot_start_says_so(tmp_path):
    with (
        pytest.raises(ToolError, match="ended at once"),
        s3_server(tmp_path / "s3", rclone=Path("/bin/false")),
    ):
        pytest.fail("a server that does not run was handed out")
