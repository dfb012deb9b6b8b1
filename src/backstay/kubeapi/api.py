"""Objects of the Kubernetes API: got, listed, created, patched, deleted.

One call is one request. Nothing is retried that was not idempotent, nothing is cached, and no
more is asked for than the RBAC that is shipped allows: `get` is a GET of one object, never a list.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from backstay.closing import Closing
from backstay.errors import (
    KubeConflictError,
    KubeError,
    KubeForbiddenError,
    KubeLoginError,
    KubeNotFoundError,
)
from backstay.kubeapi.resource import ACCESS_REVIEWS, PODS, Resource
from backstay.kubeapi.transport import MERGE_PATCH, Answer, Request, Transport

Object = dict[str, Any]
Objects = list[Object]

#: Objects on one page of a list.
PAGE = 250
#: Pages that are read of one list: a server that never ends a list is not followed for ever.
_MAX_PAGES = 400
#: Characters of a server's words that go into a message.
_WORDS = 300


class Api(Closing):
    """The API of one cluster.

    Args:
        transport: carries the calls; closed with this.
    """

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def close(self) -> None:
        """Give back the connection."""
        self.transport.close()

    def get(self, resource: Resource, name: str, namespace: str = "") -> Object:
        """Get one object.

        Raises:
            KubeNotFoundError: there is none.
            KubeForbiddenError: we may not.
            KubeError: anything else.
        """
        return self._object("GET", resource, resource.path(namespace, name), title=name)

    def find(self, resource: Resource, name: str, namespace: str = "") -> Object | None:
        """Get one object; None where there is none.

        Raises:
            KubeForbiddenError: we may not.
            KubeError: anything else.
        """
        try:
            return self.get(resource, name, namespace)
        except KubeNotFoundError:
            return None

    def list(self, resource: Resource, namespace: str = "", *, selector: str = "") -> list[Object]:
        """List objects of a namespace, or of all.

        Args:
            resource: their kind.
            namespace: where; empty is everywhere.
            selector: of labels, as `app=etcd`.
        """
        try:
            return self._pages(resource, namespace, selector)
        except KubeConflictError:
            # What the pages were cut from is gone (410): objects change, so it begins anew.
            return self._pages(resource, namespace, selector)

    def _pages(self, resource: Resource, namespace: str, selector: str) -> Objects:
        found: list[Object] = []
        token = ""
        for _ in range(_MAX_PAGES):
            params = [("limit", str(PAGE))]
            params += [("labelSelector", selector)] if selector else []
            params += [("continue", token)] if token else []
            path = resource.path(namespace)
            page = self._object("GET", resource, path, params=tuple(params))
            items = page.get("items")
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise KubeError(
                    f"{self.transport.server} answered a list of {resource.title}"
                    " with something else"
                )
            # In a list the server leaves both out of the items.
            known = {"apiVersion": resource.api_version, "kind": resource.kind}
            found += [known | item for item in items]
            token = _text(page.get("metadata"), "continue")
            if not token:
                return found
        raise KubeError(f"{self.transport.server} does not end its list of {resource.title}")

    def create(self, resource: Resource, body: Mapping[str, Any], namespace: str = "") -> Object:
        """Create an object; gives it as the server has it.

        Raises:
            KubeConflictError: it exists.
        """
        title = _text(body.get("metadata"), "name")
        return self._object("POST", resource, resource.path(namespace), title=title, body=body)

    def patch(
        self,
        resource: Resource,
        name: str,
        changes: Mapping[str, Any],
        namespace: str = "",
        *,
        subresource: str = "",
    ) -> Object:
        """Change an object by a JSON merge patch; gives it as the server has it.

        Where `changes` has `metadata.resourceVersion`, the patch only takes on that very version.

        Raises:
            KubeConflictError: it is another version by now.
            KubeNotFoundError: there is none.
        """
        path = resource.path(namespace, name, subresource)
        return self._object(
            "PATCH", resource, path, title=name, body=changes, content_type=MERGE_PATCH
        )

    def delete(self, resource: Resource, name: str, namespace: str = "", *, uid: str = "") -> None:
        """Delete an object; nothing happens where there is none.

        Args:
            resource: its kind.
            name: its name.
            namespace: its namespace.
            uid: only where it still is this very object.
        """
        body = {"kind": "DeleteOptions", "apiVersion": "v1"}
        options: Object = {**body, "preconditions": {"uid": uid}} if uid else dict(body)
        try:
            path = resource.path(namespace, name)
            self._object("DELETE", resource, path, title=name, body=options)
        except KubeNotFoundError:
            return

    def may(
        self,
        verb: str,
        resource: Resource,
        namespace: str = "",
        *,
        name: str = "",
        subresource: str = "",
    ) -> bool:
        """Ask whether we may do something (a SelfSubjectAccessReview).

        Raises:
            KubeError: the server does not say.
        """
        attributes = {
            "verb": verb,
            "group": resource.group,
            "version": resource.version,
            "resource": resource.plural,
            "namespace": namespace,
            "name": name,
            "subresource": subresource,
        }
        asked = {"resourceAttributes": {key: text for key, text in attributes.items() if text}}
        review = {
            "apiVersion": ACCESS_REVIEWS.api_version,
            "kind": ACCESS_REVIEWS.kind,
            "spec": asked,
        }
        answer = self.create(ACCESS_REVIEWS, review)
        status = answer.get("status")
        if not isinstance(status, dict) or not isinstance(status.get("allowed"), bool):
            raise KubeError(f"{self.transport.server} does not say what we may do")
        return bool(status["allowed"])

    @contextmanager
    def log(
        self, pod: str, namespace: str, container: str, *, follow: bool = False
    ) -> Iterator[Iterator[bytes]]:
        """Read a container's log, line by line.

        Raises:
            KubeError: there is none yet, or the server can't give it.
        """
        params = (("container", container), ("follow", "true" if follow else "false"))
        path = PODS.path(namespace, pod, "log")
        with self.transport.lines(Request(method="GET", path=path, params=params)) as lines:
            yield lines

    def _object(
        self,
        method: str,
        resource: Resource,
        path: str,
        *,
        title: str = "",
        params: tuple[tuple[str, str], ...] = (),
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """Make one call and read the object that it answers with."""
        request = Request(
            method=method,
            path=path,
            params=params,
            body=None if body is None else json.dumps(body).encode(),
            content_type=content_type,
        )
        answer = self.transport.call(request)
        subject = f"{resource.title} {title}".strip()
        if not 200 <= answer.status < 300:
            raise refusal(answer, f"{method} {subject}", self.transport.server)
        document = _document(answer, subject, self.transport.server)
        # What is taken for the object that was asked for decides what is put back, and what is not.
        if title and method != "DELETE" and _text(document.get("metadata"), "name") != title:
            raise KubeError(
                f"{self.transport.server} answered {subject} with another object",
                "look at what stands between here and the API",
            )
        return document


def refusal(answer: Answer, what: str, server: str) -> KubeError:
    """Make an error of an answer that is none of success.

    Args:
        answer: status and body; the body's `message` is quoted in part.
        what: what was asked, for the message.
        server: who answered.
    """
    words = _words(answer.body)
    text = f"{server}: {what}: {answer.status}{f', {words}' if words else ''}"
    if answer.status == 401:
        return KubeLoginError(text, "log in again, or name another --kubeconfig or --context")
    if answer.status == 403:
        return KubeForbiddenError(
            text, "ask for that right: docs/hosted.md and docs/okd.md have the roles"
        )
    if answer.status == 404:
        return KubeNotFoundError(text)
    if answer.status in {409, 410}:
        return KubeConflictError(text, "run it again")
    return KubeError(text)


def _document(answer: Answer, subject: str, server: str) -> Object:
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise KubeError(f"{server} answered {subject} with something that is no object")
    return document


def _words(body: bytes) -> str:
    """What a server said, in one short line: it may say anything."""
    try:
        document = json.loads(body[:65536])
    except (ValueError, RecursionError):
        return ""
    text = _text(document, "message")
    return " ".join("".join(c if c.isprintable() else " " for c in text[:_WORDS]).split())


def _text(document: object, name: str) -> str:
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, str) else ""
