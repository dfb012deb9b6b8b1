"""A real Azure Blob Storage server for tests: azurite, over TLS with a throw-away CA, or plain.

    with azurite.running(tmp_path) as server: ...

It comes from npm: `azurite-blob` on PATH, or `npm install --prefix .cache/azurite azurite`, as CI
has it done. It keeps everything in memory.
"""

import base64
import hashlib
import hmac
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import pytest

from kit import needs, s3

ACCOUNT = "devstoreaccount1"
#: The account's key, as azurite's documentation has it: everybody knows it.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
CONTAINER = "backups"
_CACHED = Path(__file__).parents[2] / ".cache" / "azurite" / "node_modules" / ".bin"
_VERSION = "2021-08-06"
_PATIENCE = 60


@dataclass(frozen=True)
class AzureServer:
    """A server that runs.

    Attributes:
        endpoint: the URL of the account on it.
        authority: the CA of its certificate; None where it speaks plain http.
    """

    endpoint: str
    authority: Path | None

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {
            "AZURE_STORAGE_ACCOUNT": ACCOUNT,
            "AZURE_STORAGE_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": self.endpoint,
        } | ({"AWS_CA_BUNDLE": str(self.authority)} if self.authority else {})


def program() -> Path:
    """Find azurite, or skip the test; under CI it must be there where npm is."""
    found = shutil.which("azurite-blob", path=f"{_CACHED}:{os.environ.get('PATH', '')}")
    if not found and shutil.which("npm") is None:
        pytest.skip("azurite is not installed, and there is no npm to install it")
    return Path(found) if found else needs.binary("azurite-blob")


@contextmanager
def running(folder: Path, *, tls: bool = True) -> Iterator[AzureServer]:
    """Start a server with an empty container."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [program(), "--inMemoryPersistence", "--silent", "--disableTelemetry"]
    certificate = s3.throw_away_certificate(folder / "tls") if tls else None
    if certificate is not None:
        command += ["--cert", certificate.certificate, "--key", certificate.key]
    # Another API version than azurite knows is what the next obstore may ask for.
    port = _free_port()
    command += ["--skipApiVersionCheck", "--blobHost", "127.0.0.1", "--blobPort", port]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [str(word) for word in command], cwd=folder, stdout=log, stderr=subprocess.STDOUT
        ) as server,
    ):
        try:
            scheme = "https" if tls else "http"
            endpoint = f"{scheme}://127.0.0.1:{port}/{ACCOUNT}"
            made = AzureServer(endpoint, certificate.authority if certificate else None)
            _wait(server, port, folder / "log")
            _make_container(made)
            yield made
        finally:
            server.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _wait(server: subprocess.Popen, port: int, log: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, "azurite does not start"
            time.sleep(0.05)
        else:
            return


def _make_container(server: AzureServer) -> None:
    """Shared key authorization, in the one request that obstore has not."""
    date = formatdate(usegmt=True)
    words = ["PUT", *[""] * 11, f"x-ms-date:{date}", f"x-ms-version:{_VERSION}"]
    words += [f"/{ACCOUNT}/{ACCOUNT}/{CONTAINER}", "restype:container"]
    signed = hmac.new(base64.b64decode(KEY), "\n".join(words).encode(), hashlib.sha256).digest()
    request = urllib.request.Request(
        f"{server.endpoint}/{CONTAINER}?restype=container",
        method="PUT",
        headers={
            "x-ms-date": date,
            "x-ms-version": _VERSION,
            "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(signed).decode()}",
            "Content-Length": "0",
        },
    )
    context = ssl.create_default_context(cafile=server.authority) if server.authority else None
    # It listens a little before it answers.
    for attempt in range(40):
        try:
            urllib.request.urlopen(request, timeout=5, context=context).close()
        except urllib.error.URLError:
            if attempt == 39:
                raise
            time.sleep(0.25)
        else:
            return
