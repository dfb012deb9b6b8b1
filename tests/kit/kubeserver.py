"""A Kubernetes API for tests: kmock, with what it lacks, over TLS, in a thread.

    with KubeServer.start(tmp_path) as kube:
        kube.put({"apiVersion": "v1", "kind": "Secret", "metadata": {...}, "data": {...}})
        api = connect(kube.kubeconfig, None)
        kube.deny("get", SECRETS)                 # 403, and "no" to an access review
        kube.actor(operator)                      # called in a thread whenever something changed
        kube.only([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}])   # RBAC
    kube.fail(503, verb="get", times=2)       # instead of an answer
    kube.on_request = lambda number, seen: ...   # before each request is served; what it raises is
                                              # the answer (HangUpError: none, and nothing is done)
        kube.streams = Streams()                  # tests/kit/kubestreams.py: exec, port-forward

kmock answers discovery and whatever is no object. Here are uids, resource versions and the
conflicts that come of them, generations, merge patches, selectors, pages, access reviews,
finalizers, logs. Not here: watches, defaults, strategic merge patches, the collection of garbage.
"""

import asyncio
import base64
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from kmock import KubernetesScaffold

from backstay.kubeapi.resource import Resource
from kit.certificates import Authority
from kit.kubeobjects import CLUSTER_WIDE, KNOWN, WITH_STATUS, Object, Objects, RefusedError

__all__ = ["HangUpError", "KubeServer", "RefusedError", "Seen"]
TOKEN = "sha256~a-token-that-must-never-be-seen"

_KINDS = {(it.api_version, it.kind): it for it in KNOWN.values()}
#: A WebSocket is opened by a GET, and is authorized as `get`; SPDY's POST, and clusters since
#: Kubernetes 1.35 for both, as `create`. So the roles that are shipped have both verbs.
_STREAMS = ("exec", "portforward")
#: Requests that end when a client or a container does.
_LASTING = (*_STREAMS, "log")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_SELECTOR = re.compile(r"\s*(!?[\w./-]+)\s*(?:(==?|!=)\s*([\w.-]*)|(in|notin)\s*\(([^)]*)\))?\s*")
_MAX_BODY = 3 << 20
MERGE_PATCH = "application/merge-patch+json"


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

    def namespace_of(self, resource: Resource) -> str:
        """Where its object lies."""
        return "" if resource.plural in CLUSTER_WIDE else self.namespace


class HangUpError(Exception):
    """Raised by `on_request` or `after_request`: the connection breaks, and there is no answer."""


class _Handler(KubernetesScaffold):
    """kmock's handler; what it does not know is asked of a KubeServer."""

    async def __call__(self, raw_request):
        kube = self.kube
        seen = seen_of(raw_request)
        if raw_request.headers.get("Authorization") != f"Bearer {kube.token}":
            kube.strangers += 1
            return status(401, "Unauthorized", "Unauthorized")
        # A request that has come is served, whatever becomes of who sent it.
        with suppress(web.HTTPRequestEntityTooLarge):
            await raw_request.read()
        with kube.lock:
            kube.requests.append(seen)
            number = len(kube.requests)
            kube.serving += seen.subresource not in _LASTING
        try:
            if kube.on_request is not None:
                await asyncio.to_thread(kube.on_request, number, seen)
            try:
                return await self._answer(kube, seen, raw_request)
            except RefusedError as error:
                return status(error.code, error.reason, error.message)
            finally:
                if kube.after_request is not None:
                    await asyncio.to_thread(kube.after_request, number, seen)
        except HangUpError:
            if raw_request.transport is not None:
                raw_request.transport.abort()
            raise asyncio.CancelledError from None
        finally:
            with kube.lock:
                kube.serving -= seen.subresource not in _LASTING

    async def _answer(self, kube, seen, raw_request):
        failure = kube._failure(seen)
        if failure is not None:
            return failure
        resource = KNOWN.get((seen.group, seen.resource))
        if resource is None:
            return await super().__call__(raw_request)
        if kube.is_denied(seen.verb, resource, seen.subresource, seen.namespace, seen.name):
            raise _forbidden(seen)
        if seen.subresource in _STREAMS:
            if kube.streams is None:
                raise RefusedError(501, "NotImplemented", "no kubelet is here")
            stream = kube.streams.exec if seen.subresource == "exec" else kube.streams.portforward
            return await stream(raw_request)
        if seen.subresource == "log":
            return await kube.log(raw_request, seen)
        data = await _document(raw_request)
        done = await asyncio.to_thread(kube.serve, seen, resource, data)
        return web.json_response(done, status=201 if seen.verb == "create" else 200)


def _forbidden(seen: Seen) -> RefusedError:
    what = f"{seen.resource}/{seen.subresource}" if seen.subresource else seen.resource
    title = f"{seen.resource}.{seen.group}" if seen.group else seen.resource
    where = f' in the namespace "{seen.namespace}"' if seen.namespace else " at the cluster scope"
    return RefusedError(
        403,
        "Forbidden",
        f'{title} "{seen.name}" is forbidden: User "backstay" cannot {seen.verb} resource "{what}"'
        f' in API group "{seen.group}"{where}',
    )


async def _document(request: web.BaseRequest) -> Object:
    """Read the object that a request brings."""
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise RefusedError(413, "RequestEntityTooLarge", "limit is 3145728") from None
    if not body:
        return {}
    wanted = MERGE_PATCH if request.method == "PATCH" else "application/json"
    if request.content_type != wanted:
        raise RefusedError(
            415,
            "UnsupportedMediaType",
            f"the body of the request was in an unknown format: {wanted}",
        )
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise RefusedError(400, "BadRequest", "the object provided is unrecognized")
    return document


def seen_of(request: web.BaseRequest) -> Seen:
    """Take a request apart, as the authorizer of an API server does."""
    # As a real server: taken apart after `%2F` is undone, so that a name may become two.
    path = unquote(request.raw_path.partition("?")[0])
    parts = path.strip("/").split("/")
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
    if verb in ("get", "list") and request.query.get("watch") in ("true", "1"):
        verb = "watch"
    params = tuple(request.query.items())
    return Seen(request.method, path, verb, group, resource, subresource, namespace, name, params)


def _matches(labels: Object, selector: str) -> bool:
    """Whether labels are what a selector asks for."""
    for part in re.split(r",(?![^(]*\))", selector):
        if not part.strip():
            continue
        found = _SELECTOR.fullmatch(part)
        if found is None:
            raise RefusedError(400, "BadRequest", f"unable to parse requirement: {part}")
        key, sign, value, word, listed = found.groups()
        values = {each.strip() for each in (listed or "").split(",")}
        has = labels.get(key.removeprefix("!"))
        right = {
            None: (has is None) if key.startswith("!") else has is not None,
            "=": has == value,
            "==": has == value,
            "!=": has != value,
            "in": has in values,
            "notin": has not in values,
        }[sign or word]
        if not right:
            return False
    return True


def status(code: int, reason: str, message: str, headers: Any = None) -> web.Response:
    """An answer that is a failure."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }
    return web.json_response(body, status=code, headers=headers)


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
        #: Change it, and who has the old one is a stranger.
        self.token = TOKEN
        self.strangers = 0
        #: From now on no page can be continued, as after five minutes on a real server.
        self.pages_expired = False
        self._denied: set[tuple[str, str, str]] = set()
        self._granted: list[tuple[str, Object]] | None = None
        self._faults: list[dict[str, Any]] = []
        self._folder = folder
        self._ending = threading.Event()
        self._actors: list[threading.Thread] = []
        self.failures: list[BaseException] = []
        #: Requests that have come and are not served yet; those that last are not counted.
        self.serving = 0

    def settle(self, seconds: float = 20.0) -> None:
        """Wait until all that has come is served: who asked may be dead by then."""
        end = time.monotonic() + seconds
        while self.serving:
            assert time.monotonic() < end, f"{self.serving} requests are still being served"
            time.sleep(0.005)

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
        # A runner ends the tasks that are left, of clients that hung up and of killed ones.
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._serve(stop, ready))

    async def _serve(self, stop, ready) -> None:
        authority = Authority.make("kubernetes")
        certificate, key = authority.issue("kube-apiserver").write(self._folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        async with _Handler() as handler:
            handler.kube = self
            runner = web.ServerRunner(
                web.Server(handler, request_factory=_request), shutdown_timeout=0.2
            )
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
        if namespace and self.get(KNOWN["", "namespaces"], namespace) is None:
            self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
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
        self._granted = None

    def only(self, rules: Iterable[Object], namespace: str = "") -> None:
        """Allow nothing but what RBAC rules grant, in a namespace or everywhere; adds to others."""
        self._granted = (self._granted or []) + [(namespace, rule) for rule in rules]

    def is_denied(
        self,
        verb: str,
        resource: Resource,
        subresource: str = "",
        namespace: str = "",
        name: str = "",
    ) -> bool:
        """Whether something is forbidden."""
        if (verb, resource.title, subresource) in self._denied:
            return True
        if self._granted is None or resource.plural == "selfsubjectaccessreviews":
            return False
        plural = f"{resource.plural}/{subresource}" if subresource else resource.plural
        if resource.plural == "namespaces":
            namespace = name  # to the authorizer a namespace lies in itself
        return not any(
            where in ("", namespace)
            and verb in rule["verbs"]
            and resource.group in rule["apiGroups"]
            and plural in rule["resources"]
            and (not rule.get("resourceNames") or name in rule["resourceNames"])
            for where, rule in self._granted
        )

    def fail(
        self,
        code: int,
        *,
        times: int = 1,
        verb: str = "",
        resource: Resource | None = None,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        request: Seen | None = None,
    ) -> None:
        """Answer so many requests with a failure, or with any body, and do nothing of theirs.

        With `request` only that one is, which has come and is not answered yet.
        """
        self._faults.append(
            {
                "code": code,
                "left": times,
                "verb": verb,
                "resource": resource,
                "headers": headers,
                "body": body,
                "request": request,
            }
        )

    def _failure(self, seen: Seen) -> web.Response | None:
        for fault in self._faults:
            about = fault["resource"]
            if (
                fault["left"]
                and (fault["request"] is None or fault["request"] is seen)
                and fault["verb"] in ("", seen.verb)
                and (about is None or (about.group, about.plural) == (seen.group, seen.resource))
            ):
                fault["left"] -= 1
                if fault["body"] is not None:
                    return web.Response(
                        status=fault["code"], headers=fault["headers"], body=fault["body"]
                    )
                return status(fault["code"], "Fault", "so it was told", fault["headers"])
        return None

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
        if seen.verb == "list":
            return self._page(seen, resource)
        if seen.subresource == "scale":
            return self._scale(seen, resource, data)
        if seen.verb == "get":
            return self.objects.get(resource, seen.namespace_of(resource), seen.name)
        if seen.verb == "create":
            return self._create(seen, resource, data)
        if seen.verb in ("patch", "update"):
            return self._change(seen, resource, data)
        if seen.verb == "delete" and seen.name:
            uid = (data.get("preconditions") or {}).get("uid", "")
            return self.objects.delete(resource, seen.namespace_of(resource), seen.name, uid)
        raise RefusedError(405, "MethodNotAllowed", "the server does not allow this method")

    def _change(self, seen: Seen, resource: Resource, data: Object) -> Object:
        if seen.subresource not in ("", "status"):
            raise RefusedError(404, "NotFound", "the server could not find that subresource")
        if not seen.subresource and resource.plural in WITH_STATUS:
            data = {key: value for key, value in data.items() if key != "status"}
        change = self.objects.patch if seen.verb == "patch" else self.objects.replace
        more = (seen.subresource,) if seen.verb == "patch" else ()
        return change(resource, seen.namespace_of(resource), seen.name, data, *more)

    def _scale(self, seen: Seen, resource: Resource, data: Object) -> Object:
        if seen.verb not in ("get", "patch"):
            raise RefusedError(405, "MethodNotAllowed", "the server does not allow this method")
        changes = data if seen.verb == "patch" else None
        return self.objects.scale(resource, seen.namespace_of(resource), seen.name, changes)

    def _create(self, seen: Seen, resource: Resource, data: Object) -> Object:
        if resource.plural == "selfsubjectaccessreviews":
            return self._review(data)
        namespace, metadata = seen.namespace_of(resource), data.get("metadata") or {}
        if (data.get("apiVersion"), data.get("kind")) != (resource.api_version, resource.kind):
            raise RefusedError(
                400, "BadRequest", f"the object provided is not a {resource.kind}, as the path says"
            )
        if resource.plural not in CLUSTER_WIDE:
            if metadata.get("namespace") not in (None, "", namespace):
                raise RefusedError(
                    400,
                    "BadRequest",
                    "the namespace of the provided object does not match the namespace sent on"
                    " the request",
                )
            self.objects.get(KNOWN["", "namespaces"], "", namespace)
        name = metadata.get("name")
        if isinstance(name, str) and name and not _NAME.fullmatch(name):
            raise RefusedError(
                422,
                "Invalid",
                f'{resource.kind} "{name}" is invalid: metadata.name: Invalid value: "{name}": a'
                " lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters",
            )
        if metadata.get("resourceVersion"):
            raise RefusedError(
                500,
                "InternalError",
                "resourceVersion should not be set on objects to be created",
            )
        if resource.plural == "secrets":
            _check_secret(data)
            data = {"type": "Opaque"} | data
        if resource.plural in WITH_STATUS:
            data = {key: value for key, value in data.items() if key != "status"}
        return self.objects.create(resource, namespace, data)

    def _review(self, data: Object) -> Object:
        asked = (data.get("spec") or {}).get("resourceAttributes") or {}
        resource = KNOWN.get((asked.get("group", ""), asked.get("resource", "")))
        denied = resource is None or self.is_denied(
            asked.get("verb", ""),
            resource,
            asked.get("subresource", ""),
            asked.get("namespace", ""),
            asked.get("name", ""),
        )
        return {**data, "status": {"allowed": not denied}}

    def _page(self, seen: Seen, resource: Resource) -> Object:
        params = dict(seen.params)
        _matches({}, params.get("labelSelector", ""))  # refused where there is no object too
        found = [
            item
            for item in self.objects.list(resource, seen.namespace_of(resource))
            if _matches(item["metadata"].get("labels") or {}, params.get("labelSelector", ""))
        ]
        token = params.get("continue", "")
        if token and self.pages_expired:
            raise RefusedError(
                410, "Expired", "The provided continue parameter is too old to display a list"
            )
        start, limit = int(token or 0), int(params.get("limit") or 0)
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


def _check_secret(data: Object) -> None:
    for key, value in (data.get("data") or {}).items():
        try:
            base64.b64decode(value, validate=True)
        except (ValueError, TypeError):
            raise RefusedError(
                400, "BadRequest", f"Secret in version v1 cannot be handled: illegal base64: {key}"
            ) from None


def _request(*parts: Any) -> web.BaseRequest:
    message, payload, protocol, writer, task = parts
    return web.BaseRequest(
        message, payload, protocol, writer, task, protocol._loop, client_max_size=_MAX_BODY
    )


def kubeconfig(folder: Path, server: str, authority: bytes, token: str = TOKEN) -> Path:
    """Write a kubeconfig (0600) with a token."""
    folder.mkdir(parents=True, exist_ok=True)
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
