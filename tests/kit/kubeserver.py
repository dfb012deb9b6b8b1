"""A Kubernetes API for tests: kmock, with what it lacks, over TLS, in a thread.

    with KubeServer.start(tmp_path) as kube:
        kube.put({"apiVersion": "v1", "kind": "Secret", "metadata": {...}, "data": {...}})
        api = connect(kube.kubeconfig, None)
        kube.deny("get", SECRETS)                 # 403, and "no" to an access review
        kube.actor(operator)                      # called in a thread whenever something changed
        kube.on_request = lambda number, seen: ...   # before each request is served
        kube.streams = Streams()                  # tests/kit/kubestreams.py: exec, port-forward

kmock parses requests and answers discovery. Here are uids, resource versions and the conflicts
that come of them, generations, merge patches, selectors, pages, access reviews, finalizers, logs.
"""

import asyncio
import base64
import copy
import datetime as dt
import itertools
import json
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from kmock import KubernetesScaffold

from backstay.kubeapi import resource as resources
from backstay.kubeapi.resource import Resource
from kit.certificates import Authority
from kit.crd import violations

Object = dict[str, Any]
TOKEN = "sha256~a-token-that-must-never-be-seen"

KNOWN = {
    (it.group, it.plural): it for it in vars(resources).values() if isinstance(it, Resource)
} | {
    ("networking.k8s.io", "networkpolicies"): Resource(
        "networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"
    ),
}
_KINDS = {(it.api_version, it.kind): it for it in KNOWN.values()}
_CLUSTER_WIDE = {"namespaces", "selfsubjectaccessreviews"}
#: A WebSocket is opened by a GET, and is authorized as `get`; SPDY's POST, and clusters since
#: Kubernetes 1.35 for both, as `create`.
_STREAMS = ("exec", "portforward")


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    params: tuple[tuple[str, str], ...] = ()


class RefusedError(Exception):
    """What the API answers where it does not do it."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


class Objects:
    """All objects, and the rules of storing them. Used by several threads."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.changes = 0
        self._found: dict[tuple[Resource, str, str], Object] = {}
        self._versions = itertools.count(1000)

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        with self.lock:
            found = self._found.get((resource, namespace, name))
            if found is None:
                raise RefusedError(404, "NotFound", f'{resource.title} "{name}" not found')
            return copy.deepcopy(found)

    def list(self, resource: Resource, namespace: str) -> list[Object]:
        with self.lock:
            return [
                copy.deepcopy(found)
                for (kind, where, _), found in sorted(self._found.items(), key=lambda i: i[0][1:])
                if kind == resource and namespace in ("", where)
            ]

    def create(self, resource: Resource, namespace: str, document: Object) -> Object:
        name = (document.get("metadata") or {}).get("name")
        if not isinstance(name, str) or not name:
            raise RefusedError(422, "Invalid", "metadata.name: Required value")
        with self.lock:
            if (resource, namespace, name) in self._found:
                raise RefusedError(
                    409, "AlreadyExists", f'{resource.title} "{name}" already exists'
                )
            made = copy.deepcopy(document)
            made.setdefault("apiVersion", resource.api_version)
            made.setdefault("kind", resource.kind)
            metadata = made["metadata"]
            if resource.plural not in _CLUSTER_WIDE:
                metadata["namespace"] = namespace
            if "stringData" in made and resource.kind == "Secret":
                text = made.pop("stringData")
                encoded = {k: base64.b64encode(v.encode()).decode() for k, v in text.items()}
                made["data"] = {**made.get("data", {}), **encoded}
            self._check(made, None)
            now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now, "generation": 1}
            return self._store(resource, namespace, name, made)

    def patch(
        self, resource: Resource, namespace: str, name: str, changes: Object, subresource: str = ""
    ) -> Object:
        with self.lock:
            old = self.get(resource, namespace, name)
            version = (changes.get("metadata") or {}).get("resourceVersion")
            if version is not None and version != old["metadata"]["resourceVersion"]:
                raise RefusedError(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {resource.title} "{name}": the object has'
                    " been modified; please apply your changes to the latest version",
                )
            new = merged(old, changes)
            if subresource == "status":
                new = {**old, "status": new.get("status")}
            for field in ("uid", "creationTimestamp", "name", "namespace", "generation"):
                if field in old["metadata"]:
                    new["metadata"][field] = old["metadata"][field]
            self._check(new, old)
            if new == old:
                return old
            if new.get("spec") != old.get("spec"):
                new["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
            gone = new["metadata"].get("deletionTimestamp") and not new["metadata"].get(
                "finalizers"
            )
            if gone:
                return self._drop(resource, namespace, name)
            return self._store(resource, namespace, name, new)

    def delete(self, resource: Resource, namespace: str, name: str, uid: str = "") -> Object:
        with self.lock:
            old = self.get(resource, namespace, name)
            if uid and uid != old["metadata"]["uid"]:
                raise RefusedError(409, "Conflict", "the UID in the precondition does not match")
            if old["metadata"].get("finalizers"):
                now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                return self._store(
                    resource, namespace, name, merged(old, {"metadata": {"deletionTimestamp": now}})
                )
            return self._drop(resource, namespace, name)

    def put(self, resource: Resource, namespace: str, document: Object) -> Object:
        """Create or replace, status and all, as a test wants it."""
        with self.lock:
            name = document["metadata"]["name"]
            try:
                old = self.get(resource, namespace, name)
            except RefusedError:
                return self.create(resource, namespace, document)
            new = copy.deepcopy(document)
            new["metadata"] = {**old["metadata"], **new["metadata"]}
            return self._store(resource, namespace, name, new)

    def _check(self, new: Object, old: Object | None) -> None:
        wrong = violations(new["kind"], new, old)
        if wrong:
            name = new["metadata"]["name"]
            raise RefusedError(
                422, "Invalid", f'{new["kind"]} "{name}" is invalid: {"; ".join(wrong)}'
            )

    def _store(self, resource: Resource, namespace: str, name: str, made: Object) -> Object:
        made["metadata"]["resourceVersion"] = str(next(self._versions))
        self._found[resource, namespace, name] = made
        self._tell()
        return copy.deepcopy(made)

    def _drop(self, resource: Resource, namespace: str, name: str) -> Object:
        gone = self._found.pop((resource, namespace, name))
        self._tell()
        return gone

    def _tell(self) -> None:
        self.changes += 1
        self.changed.notify_all()


def merged(old: Any, changes: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386)."""
    if not isinstance(changes, dict):
        return copy.deepcopy(changes)
    new = dict(old) if isinstance(old, dict) else {}
    for key, value in changes.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = merged(new.get(key), value)
    return new


class _Handler(KubernetesScaffold):
    """kmock's handler; what it does not know is asked of a KubeServer."""

    async def __call__(self, raw_request):
        kube = self.kube
        seen = seen_of(raw_request)
        if raw_request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return status(401, "Unauthorized", "Unauthorized")
        with kube.lock:
            kube.requests.append(seen)
            number = len(kube.requests)
        if kube.on_request is not None:
            await asyncio.to_thread(kube.on_request, number, seen)
        try:
            return await self._answer(kube, seen, raw_request)
        except RefusedError as error:
            return status(error.code, error.reason, error.message)
        finally:
            if kube.after_request is not None:
                await asyncio.to_thread(kube.after_request, number, seen)

    async def _answer(self, kube, seen, raw_request):
        resource = KNOWN.get((seen.group, seen.resource))
        if resource is None:
            return await super().__call__(raw_request)
        if kube.is_denied(seen.verb, resource, seen.subresource):
            what = f"{seen.resource}/{seen.subresource}" if seen.subresource else seen.resource
            raise RefusedError(
                403,
                "Forbidden",
                f'{what} "{seen.name}" is forbidden: User "backstay" cannot {seen.verb} resource'
                f' "{what}" in API group "{seen.group}" in the namespace "{seen.namespace}"',
            )
        if seen.subresource in _STREAMS:
            if kube.streams is None:
                raise RefusedError(501, "NotImplemented", "no kubelet is here")
            stream = kube.streams.exec if seen.subresource == "exec" else kube.streams.portforward
            return await stream(raw_request)
        if seen.subresource == "log":
            return await kube.log(raw_request, seen)
        data = await raw_request.json() if await raw_request.read() else {}
        done = await asyncio.to_thread(kube.serve, seen, resource, data)
        return web.json_response(done, status=201 if seen.verb == "create" else 200)


def seen_of(request: web.BaseRequest) -> Seen:
    """Take a request apart, as the authorizer of an API server does."""
    parts = request.path.strip("/").split("/")
    group = ""
    if parts[0] == "apis" and len(parts) > 2:
        group, parts = parts[1], parts[3:]
    elif parts[0] == "api" and len(parts) > 1:
        parts = parts[2:]
    else:
        parts = []
    namespace = ""
    if len(parts) > 2 and parts[0] == "namespaces":
        namespace, parts = parts[1], parts[2:]
    resource, name, subresource = (*parts, "", "", "")[:3]
    verbs = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
    verb = verbs.get(request.method, "get" if name else "list")
    params = tuple(request.query.items())
    return Seen(
        request.method, request.path, verb, group, resource, subresource, namespace, name, params
    )


def status(code: int, reason: str, message: str) -> web.Response:
    """An answer that is a failure."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }
    return web.json_response(body, status=code)


class KubeServer:
    """The API of one cluster."""

    def __init__(self, folder: Path) -> None:
        self.objects = Objects()
        self.lock = threading.RLock()
        self.requests: list[Seen] = []
        self.on_request: Callable[[int, Seen], object] | None = None
        self.after_request: Callable[[int, Seen], object] | None = None
        self.streams: Any = None
        self.logs: dict[tuple[str, str, str], str] = {}
        self.url = ""
        self._denied: set[tuple[str, str, str]] = set()
        self._folder = folder
        self._ending = threading.Event()
        self._actors: list[threading.Thread] = []
        self.failures: list[BaseException] = []

    @classmethod
    @contextmanager
    def start(cls, folder: Path) -> Iterator["KubeServer"]:
        """Serve until the block ends; an actor that failed fails the test."""
        folder.mkdir(parents=True, exist_ok=True)
        kube = cls(folder)
        ready: threading.Event = threading.Event()
        loop = asyncio.new_event_loop()
        stop = asyncio.Event()
        thread = threading.Thread(target=kube._run, args=(loop, stop, ready), daemon=True)
        thread.start()
        assert ready.wait(20), "the Kubernetes API did not start"
        try:
            yield kube
        finally:
            kube._end(loop, stop, thread)
        assert not kube.failures, kube.failures

    def _run(self, loop, stop, ready) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._serve(stop, ready))
        finally:
            loop.close()

    async def _serve(self, stop, ready) -> None:
        authority = Authority.make("kubernetes")
        certificate, key = authority.issue("kube-apiserver").write(self._folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        async with _Handler() as handler:
            handler.kube = self
            runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.2)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
            await site.start()
            port = runner.addresses[0][1]
            self.url = f"https://127.0.0.1:{port}"
            self.kubeconfig = kubeconfig(self._folder, self.url, authority.pem)
            ready.set()
            await stop.wait()
            await runner.cleanup()

    def _end(self, loop, stop, thread) -> None:
        self._ending.set()
        with self.objects.lock:
            self.objects.changed.notify_all()
        for actor in self._actors:
            actor.join(20)
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)

    def put(self, document: Object) -> Object:
        """Create or replace an object, with its status, past all rules but the CRDs'."""
        resource = _KINDS[document["apiVersion"], document["kind"]]
        namespace = document["metadata"].get("namespace", "")
        return self.objects.put(resource, namespace, document)

    def get(self, resource: Resource, name: str, namespace: str = "") -> Object | None:
        """Give an object; None where there is none."""
        try:
            return self.objects.get(resource, namespace, name)
        except RefusedError:
            return None

    def list(self, resource: Resource, namespace: str = "") -> list[Object]:
        """Give all objects of a kind."""
        return self.objects.list(resource, namespace)

    def patch(self, resource: Resource, name: str, changes: Object, namespace: str = "") -> Object:
        """Change an object, its status too."""
        return self.objects.patch(resource, namespace, name, changes)

    def remove(self, resource: Resource, name: str, namespace: str = "") -> None:
        """Delete an object at once, where there is one."""
        with self.objects.lock:
            if (resource, namespace, name) in self.objects._found:
                self.objects._drop(resource, namespace, name)

    def deny(self, verb: str, resource: Resource, subresource: str = "") -> None:
        """Forbid something."""
        self._denied.add((verb, resource.title, subresource))

    def allow(self) -> None:
        """Forbid nothing any more."""
        self._denied.clear()

    def is_denied(self, verb: str, resource: Resource, subresource: str = "") -> bool:
        """Whether something is forbidden."""
        return (verb, resource.title, subresource) in self._denied

    def actor(self, act: Callable[["KubeServer"], object], every: float = 0.1) -> None:
        """Call a function whenever an object changed, and every so many seconds."""

        def run() -> None:
            known = -1
            try:
                while not self._ending.is_set():
                    with self.objects.lock:
                        if self.objects.changes == known:
                            self.objects.changed.wait(every)
                        known = self.objects.changes
                    if not self._ending.is_set():
                        act(self)
            except BaseException as error:  # noqa: BLE001 - the test is told at its end
                self.failures.append(error)

        thread = threading.Thread(target=run, daemon=True)
        self._actors.append(thread)
        thread.start()

    def serve(self, seen: Seen, resource: Resource, data: Object) -> Object:
        """Do what a request asks."""
        if resource.plural == "selfsubjectaccessreviews":
            return self._review(data)
        if seen.verb == "list":
            return self._page(seen, resource)
        if seen.verb == "get":
            return self.objects.get(resource, seen.namespace, seen.name)
        if seen.verb == "create":
            return self.objects.create(resource, seen.namespace, data)
        if seen.verb == "patch":
            return self.objects.patch(resource, seen.namespace, seen.name, data, seen.subresource)
        if seen.verb == "delete":
            uid = (data.get("preconditions") or {}).get("uid", "")
            return self.objects.delete(resource, seen.namespace, seen.name, uid)
        raise RefusedError(405, "MethodNotAllowed", "the server does not allow this method")

    def _review(self, data: Object) -> Object:
        asked = data["spec"]["resourceAttributes"]
        resource = KNOWN[asked.get("group", ""), asked["resource"]]
        denied = self.is_denied(asked["verb"], resource, asked.get("subresource", ""))
        return {**data, "status": {"allowed": not denied}}

    def _page(self, seen: Seen, resource: Resource) -> Object:
        params = dict(seen.params)
        wanted = [
            pair.partition("=")[::2]
            for pair in params.get("labelSelector", "").replace("==", "=").split(",")
            if pair
        ]
        found = [
            item
            for item in self.objects.list(resource, seen.namespace)
            if all((item["metadata"].get("labels") or {}).get(k) == v for k, v in wanted)
        ]
        start, limit = int(params.get("continue") or 0), int(params.get("limit") or 0)
        end = start + limit if limit else len(found)
        # In a list a real server leaves these two out of the items.
        items = [{k: v for k, v in it.items() if k not in ("kind", "apiVersion")} for it in found]
        more = {"continue": str(end), "remainingItemCount": len(found) - end}
        return {
            "apiVersion": resource.api_version,
            "kind": f"{resource.kind}List",
            "metadata": {"resourceVersion": "1"} | (more if end < len(found) else {}),
            "items": items[start:end],
        }

    async def log(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        """Answer with a container's log; followed until the pod is gone."""
        await asyncio.to_thread(self.objects.get, KNOWN["", "pods"], seen.namespace, seen.name)
        key = (seen.namespace, seen.name, request.query.get("container", ""))
        if key not in self.logs:
            raise RefusedError(
                400, "BadRequest", f'container "{key[2]}" in pod "{key[1]}" is waiting to start'
            )
        answer = web.StreamResponse()
        await answer.prepare(request)
        sent, follow = 0, request.query.get("follow") == "true"
        while True:
            text = self.logs.get(key, "")
            if len(text) > sent:
                await answer.write(text[sent:].encode())
                sent = len(text)
            there = self.get(KNOWN["", "pods"], seen.name, seen.namespace)
            if not follow or there is None or self._ended(there, key[2]):
                break
            await asyncio.sleep(0.02)
        await answer.write_eof()
        return answer

    def _ended(self, pod: Object, container: str) -> bool:
        """Whether a container has terminated, so that its log grows no more."""
        told = pod.get("status") or {}
        for each in [*told.get("initContainerStatuses", []), *told.get("containerStatuses", [])]:
            if each.get("name") == container:
                return "terminated" in (each.get("state") or {})
        return False


def kubeconfig(folder: Path, server: str, authority: bytes, token: str = TOKEN) -> Path:
    """Write a kubeconfig (0600) with a token."""
    path = folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "management",
        "contexts": [
            {
                "name": "management",
                "context": {"cluster": "management", "user": "backstay", "namespace": "clusters"},
            }
        ],
        "clusters": [
            {
                "name": "management",
                "cluster": {
                    "server": server,
                    "certificate-authority-data": base64.b64encode(authority).decode(),
                },
            }
        ],
        "users": [{"name": "backstay", "user": {"token": token}}],
    }
    path.touch(0o600)
    path.write_text(json.dumps(document))
    return path
