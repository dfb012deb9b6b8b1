"""etcd-init as HyperShift runs it: its shell script, with real curl, etcdutl and etcd.

    fleet = Fleet(tmp_path, members=3)                  # or fixed=False: as before its fix
    fleet.restore(url)                                  # runs the script for each; gives runs
    with fleet.serving() as members: ...                # real etcds over TLS, from what it made

    with EtcdInit(fleet).playing(kube): ...             # the part of the operator, on a KubeServer

The script is the one that is in the StatefulSet; where it runs, just paths and peer addresses are
others: `/var/lib` is a directory of each member, and peers meet at sockets.
"""

import functools
import os
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from kit import needs, s3
from kit.etcd import Etcd

_DOWNLOAD = """\
mkdir -p /var/lib/data
if [ -n "$(ls -A /var/lib/data)" ]; then
  echo "/var/lib/data not empty, not restoring snapshot"
  exit 0
fi
curl -o /tmp/snapshot "${RESTORE_URL_ETCD}"
if [ "$(head -c 5 /tmp/snapshot)" = "<?xml" ]; then
  cat /tmp/snapshot
  exit 1
fi
rm -rf /var/lib/restore
/usr/bin/etcdutl snapshot status -w table /tmp/snapshot
"""
_PEER = "https://${HOSTNAME}.${ETCD_DISCOVERY_SERVICE}.${HCP_NAMESPACE}.svc:2380"
_INTO_PLACE = """\
rm -rf /var/lib/data
mv /var/lib/restore /var/lib/data
"""
#: As it was until the fix: nobody is told of the others.
OLD = f"""{_DOWNLOAD}\
/usr/bin/etcdutl snapshot restore /tmp/snapshot --data-dir=/var/lib/restore
{_INTO_PLACE}"""
#: With the fix; `BUMP` stands for the options that etcdutl has from 3.6 on.
FIXED = f"""{_DOWNLOAD}\
/usr/bin/etcdutl snapshot restore /tmp/snapshot --data-dir=/var/lib/restore \
--name "${{HOSTNAME}}" --initial-advertise-peer-urls "{_PEER}" \
--initial-cluster "${{ETCD_INITIAL_CLUSTER}}" --initial-cluster-token "${{HCP_NAMESPACE}}" BUMP
{_INTO_PLACE}"""
_BUMP = "--bump-revision 1000000000 --mark-compacted"


def init_container(*, fixed: bool, url: str, namespace: str, members: int) -> dict:
    """The container as the control-plane-operator writes it."""
    discovery = f"etcd-discovery.{namespace}.svc"
    peers = (f"etcd-{n}=https://etcd-{n}.{discovery}:2380" for n in range(members))
    given = {"RESTORE_URL_ETCD": url}
    if fixed:
        given |= {
            "HCP_NAMESPACE": namespace,
            "ETCD_INITIAL_CLUSTER": ",".join(peers),
            "ETCD_DISCOVERY_SERVICE": "etcd-discovery",
        }
    env = [{"name": name, "value": value} for name, value in given.items()]
    if fixed:
        field_ref = {"fieldRef": {"fieldPath": "metadata.name"}}
        env.append({"name": "HOSTNAME", "valueFrom": field_ref})
    return {
        "name": "etcd-init",
        "command": ["/bin/sh", "-ce", FIXED.replace("BUMP", _BUMP) if fixed else OLD],
        "env": env,
        "volumeMounts": [{"name": "data", "mountPath": "/var/lib"}],
    }


@dataclass(frozen=True)
class Ran:
    """One run of the script."""

    exit_code: int
    log: str


@dataclass
class Fleet:
    """The members of one etcd that is restored.

    Attributes:
        folder: each member has a directory in it.
        members: how many.
        fixed: which form of the script runs.
        namespace: the control-plane namespace.
        ca: what curl trusts; None: what the system does.
    """

    folder: Path
    members: int = 3
    fixed: bool = True
    namespace: str = "clusters-blue"
    ca: Path | None = None
    _stack: ExitStack = field(default_factory=ExitStack, repr=False)

    @property
    def names(self) -> list[str]:
        """Of the pods."""
        return [f"etcd-{number}" for number in range(self.members)]

    def volume(self, name: str) -> Path:
        """What a pod has as /var/lib."""
        path = self.folder / name / "var"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def occupy(self, name: str) -> None:
        """Leave something in a pod's data directory, as an old volume has it."""
        data = self.volume(name) / "data"
        data.mkdir()
        (data / "lost+found").mkdir()

    def run(self, name: str, url: str) -> Ran:
        """Run the script for one pod."""
        volume = self.volume(name)
        temporary = volume.parent / "tmp"
        temporary.mkdir(exist_ok=True)
        script = (FIXED if self.fixed else OLD).replace("BUMP", _bump())
        places = {
            "/usr/bin/etcdutl": str(needs.binary("etcdutl")),
            "/tmp/snapshot": f"{temporary}/snapshot",
            "/var/lib": str(volume),
            _PEER: "unix://${HOSTNAME}:0",
        }
        for there, here in places.items():
            script = script.replace(there, here)
        needs.binary("curl")
        done = subprocess.run(
            ["/bin/sh", "-ce", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={
                "PATH": os.environ["PATH"],
                "HOSTNAME": name,
                "HCP_NAMESPACE": self.namespace,
                "ETCD_DISCOVERY_SERVICE": "etcd-discovery",
                "ETCD_INITIAL_CLUSTER": ",".join(f"{n}=unix://{n}:0" for n in self.names),
                "RESTORE_URL_ETCD": url,
                **({"CURL_CA_BUNDLE": str(self.ca)} if self.ca else {}),
            },
            check=False,
            timeout=120,
        )
        log = done.stdout.decode(errors="replace")
        for there, here in reversed(places.items()):
            log = log.replace(here, there)
        return Ran(done.returncode, log)

    def restore(self, url: str) -> dict[str, Ran]:
        """Run the script for all pods."""
        return {name: self.run(name, url) for name in self.names}

    def start(self) -> dict[str, Etcd]:
        """Start all members on what is in their volumes; they end with `close`."""
        etcds = {name: self._etcd(name) for name in self.names}
        for etcd in etcds.values():
            self._stack.callback(etcd.kill)
            etcd.begin()
        for etcd in etcds.values():
            etcd.wait()
        return etcds

    def _etcd(self, name: str) -> Etcd:
        # Sockets lie in the working directory, and names of sockets are short.
        peers = ",".join(f"{n}=unix://{n}:0" for n in self.names if self.fixed or n == name)
        etcd = Etcd._new(self.folder / "etcd", name, tls=True, binary=None, flags=(), peers=peers)
        (self.volume(name) / "data").rename(etcd.data_dir)
        return etcd

    @contextmanager
    def serving(self) -> Iterator[dict[str, Etcd]]:
        """Start all members, until the block ends."""
        try:
            yield self.start()
        finally:
            self.close()

    def close(self) -> None:
        """End the members."""
        self._stack.close()


def _bump() -> str:
    """The options of the bump, where this etcdutl has them."""
    told = subprocess.run(
        [needs.binary("etcdutl"), "snapshot", "restore", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    return _BUMP if "--bump-revision" in told.stdout else ""


@dataclass
class EtcdInit:
    """Plays the operators' part in a restore: what comes of a HostedCluster with a URL.

    Attributes:
        fleet: what really runs.
        name: of the HostedCluster.
        namespace: of the HostedCluster.
        attempts: how often a failing etcd-init is started.
        ready: whether the pods come to be ready, and the API available.
        leave: whether etcd-init is taken out of the StatefulSet at the end.
        held: called before a pod's script runs; may wait, or spoil something.
        etcds: the members, once they run.
        failure: what this actor died of.
    """

    fleet: Fleet
    name: str = "blue"
    namespace: str = "clusters"
    attempts: int = 3
    ready: bool = True
    leave: bool = True
    held: Callable[[str], None] = lambda _: None
    etcds: dict[str, Etcd] = field(default_factory=dict)
    failure: BaseException | None = None
    _thread: threading.Thread | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def playing(self, kube) -> Iterator["EtcdInit"]:
        """Act until the block ends."""
        kube.actor(self.act)
        try:
            yield self
        finally:
            with self._lock:
                thread, self._thread = self._thread, threading.current_thread()
            if thread is not None:
                thread.join(60)
            self.fleet.close()
        if self.failure is not None:
            raise self.failure

    def act(self, kube) -> None:
        """Begin once a HostedCluster with a URL is there."""
        from backstay.kubeapi.resource import HOSTED_CLUSTERS

        hosted = kube.get(HOSTED_CLUSTERS, self.name, self.namespace)
        if hosted is None:
            return
        urls = hosted["spec"]["etcd"]["managed"]["storage"].get("restoreSnapshotURL")
        with self._lock:
            if not urls or self._thread is not None:
                return
            self._thread = threading.Thread(target=self._play, args=(kube, urls[0]), daemon=True)
        self._thread.start()

    def _play(self, kube, url: str) -> None:
        try:
            self._scene(kube, url)
        except BaseException as error:  # noqa: BLE001 - raised again where the test sees it
            self.failure = error

    def _scene(self, kube, url: str) -> None:
        space = self.fleet.namespace
        self._put(kube, "hypershift.openshift.io/v1beta1", "HostedControlPlane", self.name, {})
        self._stateful_set(kube, url)
        for name in self.fleet.names:
            self._pod(kube, name, {"state": {"waiting": {"reason": "PodInitializing"}}})
        failed = over = False
        for name in self.fleet.names:
            self.held(name)
            for attempt in range(self.attempts):
                running = {"state": {"running": {}}, "restartCount": attempt}
                self._pod(kube, name, running)
                ran = self.fleet.run(name, url)
                kube.logs[(space, name, "etcd-init")] = ran.log
                ended = {"terminated": {"exitCode": ran.exit_code}}
                if ran.exit_code == 0:
                    self._pod(kube, name, {"state": ended, "restartCount": attempt})
                    break
                failed = True
                waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
                status = {"state": waiting, "lastState": ended, "restartCount": attempt}
                self._pod(kube, name, status)
            else:
                over = True
        if failed:
            self._condition(kube, "False")
        if over or not self.ready:
            return
        self.etcds = self.fleet.start()
        if not failed:
            self._condition(kube, "True")
            if self.leave:
                self._stateful_set(kube, None)
        self._available(kube)

    def _put(self, kube, api_version: str, kind: str, name: str, spec: dict, **more) -> None:
        metadata = {"name": name, "namespace": self.fleet.namespace}
        body = {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}
        kube.put(body | more)

    def _stateful_set(self, kube, url: str | None) -> None:
        fleet = self.fleet
        containers = {"containers": [{"name": "etcd"}]}
        if url is not None:
            init = init_container(
                fixed=fleet.fixed, url=url, namespace=fleet.namespace, members=fleet.members
            )
            containers["initContainers"] = [{"name": "ensure-dns"}, init]
        spec = {"replicas": fleet.members, "template": {"spec": containers}}
        status = {
            "replicas": fleet.members,
            "updatedReplicas": fleet.members,
            "observedGeneration": 1_000_000,
        }
        self._put(kube, "apps/v1", "StatefulSet", "etcd", spec, status=status)

    def _pod(self, kube, name: str, init: dict) -> None:
        spec = {"initContainers": [{"name": "etcd-init"}], "containers": [{"name": "etcd"}]}
        status = {"initContainerStatuses": [{"name": "etcd-init", "restartCount": 0} | init]}
        self._put(kube, "v1", "Pod", name, spec, status=status)

    def _condition(self, kube, status: str) -> None:
        conditions = [{"type": "EtcdSnapshotRestored", "status": status}]
        self._put(
            kube,
            "hypershift.openshift.io/v1beta1",
            "HostedControlPlane",
            self.name,
            {},
            status={"conditions": conditions},
        )

    def _available(self, kube) -> None:
        from backstay.kubeapi.resource import HOSTED_CLUSTERS

        hosted = kube.get(HOSTED_CLUSTERS, self.name, self.namespace)
        conditions = [
            {"type": kind, "status": "True"} for kind in ("KubeAPIServerAvailable", "Available")
        ]
        kube.put(hosted | {"status": {"conditions": conditions}})


@contextmanager
def https_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Serve a directory by https, as a bucket would; gives the URL, and the CA to trust.

    What is not there is answered with 404 and a page as S3 writes it.
    """
    certificates = s3.throw_away_certificate(folder / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    handler = functools.partial(_Bucket, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}", certificates.authority
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Bucket(SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        """Say nothing."""

    def send_error(self, code, message=None, explain=None) -> None:
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code>'
            "<Message>Request has expired</Message><StringToSign>"
            f"{self.path}</StringToSign></Error>"
        ).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
