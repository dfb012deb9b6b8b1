"""A real kube-apiserver, with an etcd of its own, where KUBEBUILDER_ASSETS says that there is one.

    with ApiServer.start(folder) as server:
        connect(server.kubeconfig, None)      # may do everything
        connect(server.powerless, None)       # may do nothing

There is no kubelet, no controller and no operator: objects stay as they are written.
"""

import os
import secrets
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kit.certificates import Authority
from kit.crd import definitions
from kit.kubeserver import kubeconfig

VARIABLE = "KUBEBUILDER_ASSETS"
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_PATIENCE = 120.0


class ApiServer:
    """A kube-apiserver that runs.

    Attributes:
        kubeconfig: of someone who may do everything.
        powerless: of someone who may do nothing.
        rules: whether it took the rules of CEL.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kubeconfig = Path()
        self.powerless = Path()
        self.rules = True
        self._running: list[subprocess.Popen[bytes]] = []

    @classmethod
    @contextmanager
    def start(cls, folder: Path) -> Iterator["ApiServer"]:
        """Start both, and make HyperShift's resources known."""
        assets = Path(os.environ[VARIABLE])
        server = cls(folder)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            server._start(assets)
            yield server
        finally:
            server._stop()

    def _start(self, assets: Path) -> None:
        client, peer, port = (_free_port() for _ in range(3))
        self._run(
            "etcd",
            [
                assets / "etcd",
                f"--data-dir={self.folder / 'etcd'}",
                f"--listen-client-urls=http://127.0.0.1:{client}",
                f"--advertise-client-urls=http://127.0.0.1:{client}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-cluster=default=http://127.0.0.1:{peer}",
                "--unsafe-no-fsync",
            ],
        )
        authority = Authority.make("kubernetes")
        certificate, key = authority.issue("kube-apiserver").write(self.folder)
        mighty, powerless = secrets.token_hex(16), secrets.token_hex(16)
        tokens = self.folder / "tokens.csv"
        tokens.touch(0o600)
        tokens.write_text(f'{mighty},admin,1,"system:masters"\n{powerless},nobody,2\n')
        self._run(
            "kube-apiserver",
            [
                assets / "kube-apiserver",
                f"--etcd-servers=http://127.0.0.1:{client}",
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                f"--secure-port={port}",
                f"--tls-cert-file={certificate}",
                f"--tls-private-key-file={key}",
                f"--cert-dir={self.folder / 'certs'}",
                f"--token-auth-file={tokens}",
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--service-account-issuer=https://kubernetes.default.svc",
                *_service_account_key(self.folder),
                # Pods are made here without service accounts, which a controller would make.
                "--disable-admission-plugins=ServiceAccount",
            ],
        )
        url = f"https://127.0.0.1:{port}"
        self.kubeconfig = kubeconfig(self.folder / "admin", url, authority.pem, mighty)
        self.powerless = kubeconfig(self.folder / "nobody", url, authority.pem, powerless)
        ca = authority.write(self.folder)
        with httpx.Client(
            base_url=url,
            verify=ssl.create_default_context(cafile=str(ca)),
            headers={"Authorization": f"Bearer {mighty}"},
            trust_env=False,
        ) as api:
            self._wait(lambda: api.get("/readyz").status_code == 200)
            for number, definition in enumerate(definitions()):
                self._define(api, definition, definitions(rules=False)[number])

    def _define(self, api: httpx.Client, definition: dict, plain: dict) -> None:
        """Make a kind of object known; without the rules of CEL, where they are not taken."""
        if api.post(_CRDS, json=definition).status_code != 201:
            self.rules = False
            api.post(_CRDS, json=plain).raise_for_status()
        path = f"{_CRDS}/{definition['metadata']['name']}"

        def established() -> bool:
            told = api.get(path).json().get("status", {}).get("conditions", [])
            return any(c["type"] == "Established" and c["status"] == "True" for c in told)

        self._wait(established)
        spec = definition["spec"]
        served = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
        self._wait(lambda: api.get(served).status_code == 200)

    def _wait(self, done) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            ended = [process.args[0] for process in self._running if process.poll() is not None]
            assert not ended, f"{ended} ended: look into {self.folder}"
            try:
                if done():
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, f"it does not come up: look into {self.folder}"
            time.sleep(0.1)

    def _run(self, name: str, command: list) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self._running.append(
                subprocess.Popen(
                    [str(word) for word in command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                )
            )

    def _stop(self) -> None:
        for process in reversed(self._running):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _service_account_key(folder: Path) -> list[str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path = folder / "service-account.key"
    path.touch(0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    return [f"--service-account-key-file={path}", f"--service-account-signing-key-file={path}"]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
