"""A server that speaks as much of Google Cloud Storage's XML API as a store needs, in memory.

    with gcs.running() as server: ...

It is a stand-in, written from Google's reference ("XML API": PUT, GET, HEAD and DELETE of objects,
list-type=2, multipart uploads, x-goog-if-generation-match): no emulator that a package index has
speaks the XML API's writes, which are what obstore sends. It shows that our side does what it
should with answers of that form, and proves nothing of Google's.
"""

import hashlib
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

BUCKET = "backups"
TOKEN = "ya29.a-token"


@dataclass
class _Stored:
    data: bytes
    generation: int
    at: float


@dataclass
class GoogleServer:
    """A server that runs.

    Attributes:
        endpoint: its URL.
        deny: answer everything with this status and error code.
    """

    endpoint: str = ""
    deny: tuple[int, str] | None = None
    objects: dict[str, _Stored] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {"GOOGLE_BASE_URL": self.endpoint, "GOOGLE_BEARER_TOKEN": TOKEN}

    def keep(self, name: str, data: bytes) -> _Stored:
        stored = self.objects[name] = _Stored(data, next(self.numbers), time.time())
        return stored


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def log_message(self, *words):
        """Nothing."""

    def _answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _no(self, status, code):
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>No.</Message></Error>"
        self._answer(status, text.encode())

    def _about(self, stored):
        return {
            "ETag": f'"{hashlib.md5(stored.data).hexdigest()}"',
            "Last_Modified": formatdate(stored.at, usegmt=True),
            "x_goog_generation": str(stored.generation),
        }

    def _serve(self):
        parts = urlsplit(self.path)
        bucket, _, name = unquote(parts.path).removeprefix("/").partition("/")
        query = {key: value[0] for key, value in parse_qs(parts.query, True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        state = self.server.state
        with state.lock:
            if state.deny is not None:
                self._no(*state.deny)
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._no(401, "AuthenticationRequired")
            elif bucket != BUCKET:
                self._no(404, "NoSuchBucket")
            else:
                getattr(self, f"_{self.command.lower()}")(state, name, query, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - http.server's names

    def _get(self, state, name, query, body):
        if not name:
            self._list(state, query)
        elif name not in state.objects:
            self._no(404, "NoSuchKey")
        else:
            stored = state.objects[name]
            self._answer(200, stored.data, **self._about(stored))

    _head = _get

    def _put(self, state, name, query, body):
        if "uploadId" in query:
            if query["uploadId"] not in state.uploads:
                self._no(404, "NoSuchUpload")
                return
            state.uploads[query["uploadId"]][int(query["partNumber"])] = body
            self._answer(200, ETag=f'"{hashlib.md5(body).hexdigest()}"')
        elif self.headers.get("x-goog-if-generation-match") == "0" and name in state.objects:
            self._no(412, "PreconditionFailed")
        else:
            self._answer(200, **self._about(state.keep(name, body)))

    def _post(self, state, name, query, body):
        if "uploads" in query:
            upload = f"upload-{next(state.numbers)}"
            state.uploads[upload] = {}
            text = (
                "<InitiateMultipartUploadResult>"
                f"<Bucket>{BUCKET}</Bucket><Key>{escape(name)}</Key><UploadId>{upload}</UploadId>"
                "</InitiateMultipartUploadResult>"
            )
            self._answer(200, text.encode())
            return
        parts = state.uploads.pop(query["uploadId"])
        tree = ET.fromstring(body)
        numbers = [int(one.text) for one in tree.iter() if one.tag.endswith("PartNumber")]
        assert numbers == sorted(parts)
        stored = state.keep(name, b"".join(parts[number] for number in numbers))
        about = self._about(stored)
        text = (
            f"<CompleteMultipartUploadResult><ETag>{escape(about['ETag'])}</ETag>"
            "</CompleteMultipartUploadResult>"
        )
        self._answer(200, text.encode(), **about)

    def _delete(self, state, name, query, body):
        if "uploadId" in query:
            state.uploads.pop(query["uploadId"], None)
            self._answer(204)
        elif state.objects.pop(name, None) is None:
            self._no(404, "NoSuchKey")
        else:
            self._answer(204)

    def _list(self, state, query):
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
        names = sorted(name for name in state.objects if name.startswith(prefix) and name > after)
        page, more = names[:50], names[50:]
        rows = []
        for name in page:
            stored = state.objects[name]
            when = formatdate(stored.at, usegmt=True)
            rows.append(
                f"<Contents><Key>{escape(name)}</Key><Size>{len(stored.data)}</Size>"
                f"<LastModified>{parsedate_to_datetime(when):%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
                f"<ETag>{escape(self._about(stored)['ETag'])}</ETag></Contents>"
            )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        text = f"<ListBucketResult>{''.join(rows)}{token}</ListBucketResult>"
        self._answer(200, text.encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, state: GoogleServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state = state


@contextmanager
def running() -> Iterator[GoogleServer]:
    """Start a server with the bucket `backups`."""
    state = GoogleServer()
    server = _Server(state)
    state.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
