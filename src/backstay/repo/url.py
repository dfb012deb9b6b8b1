"""Where a repository is: its URL and the settings that go with it, made into a store.

    file:///dir                 a directory of this machine
    s3://bucket/prefix          an S3 bucket; the prefix may be left out
    gs://bucket/prefix          a bucket of Google Cloud Storage
    az://container/prefix       a container of Azure Blob Storage

Settings that are not given come from the variables that each service's own tools have too. A URL
never holds credentials: it stands in argument lists, logs and error messages.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from backstay.client.proxy import Proxies
from backstay.errors import UsageError
from backstay.files import read_private
from backstay.repo.store import Store
from backstay.repo.stores.file import FileStore

if TYPE_CHECKING:
    from backstay.repo.stores.az import AzStore
    from backstay.repo.stores.gs import GsStore
    from backstay.repo.stores.s3 import S3Store

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_PREFIX = re.compile(r"[A-Za-z0-9!_*'()=+,$;&-][A-Za-z0-9!_.*'()=+,$;& -]{0,199}")
#: How a bucket is named, and what to set instead of credentials in the URL.
_REMOTE = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT, and AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN",
}
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CA_LIMIT = 16 << 20
_SYNTAX = "write file:///dir, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach an object store, where the caller says so; None and False leave it open.

    Attributes:
        endpoint: URL of an S3 server other than Amazon's (else AWS_ENDPOINT_URL_S3,
            AWS_ENDPOINT_URL).
        region: of the bucket (else AWS_REGION, AWS_DEFAULT_REGION, us-east-1).
        virtual_hosted: the bucket's name goes into the host; else into the path.
        allow_http: the endpoint may be plain http.
        ca_bundle: PEM file of authorities to trust beside the system's (else AWS_CA_BUNDLE).
        proxies: that lead there; without any those of the environment (HTTPS_PROXY and so on).
    """

    endpoint: str | None = None
    region: str | None = None
    virtual_hosted: bool = False
    allow_http: bool = False
    ca_bundle: Path | None = None
    proxies: Proxies = field(default_factory=Proxies)


@dataclass(frozen=True, slots=True)
class Location:
    """A repository's URL, taken apart.

    Attributes:
        scheme: `file`, `s3`, `gs` or `az`.
        bucket: or the container; empty for a directory.
        path: the directory, or the prefix in the bucket.
    """

    scheme: str
    bucket: str
    path: str


def parse_url(url: str) -> Location:
    """Take a repository's URL apart.

    Raises:
        UsageError: it is none, or of a kind that is not supported. Credentials in it are not
            shown.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise UsageError(f"{_shown(url)} is no URL of a repository", _SYNTAX)
    # A secret key may have slashes in it: not just the part before the first is looked at.
    if "@" in rest.partition("/")[0] or (scheme != "file" and "@" in rest):
        raise UsageError(
            f"the repository's URL ({scheme[:10]}://...) has a user or credentials in it",
            f"leave them out, and set {_REMOTE.get(scheme, _REMOTE['s3'])}",
        )
    if scheme == "file":
        return Location("file", "", _directory(url, rest))
    if scheme in _REMOTE:
        bucket, _, prefix = rest.partition("/")
        return Location(scheme, _bucket(url, bucket, scheme), _prefix(url, prefix))
    raise UsageError(f"{_shown(url)}: {scheme[:20]} is no kind of repository", _SYNTAX)


def _shown(url: str) -> str:
    """Give a URL for a message; what may be credentials is left out."""
    scheme, separator, rest = url.partition("://")
    if set(rest or scheme) & set("@:"):
        return f"'{scheme[:10]}://...'" if separator else "what was given"
    return repr(url[:200])


def _directory(url: str, rest: str) -> str:
    path = unquote(rest.removeprefix("localhost"))
    if not path.startswith("/") or "\0" in path:
        raise UsageError(f"{_shown(url)} names no directory of this machine", "write file:///dir")
    normal = os.path.normpath(path)
    if not normal.strip("/"):
        raise UsageError(f"{_shown(url)} is the root of this machine", "name a directory below")
    return "/" + normal.lstrip("/")


def _bucket(url: str, bucket: str, scheme: str) -> str:
    if not _BUCKET.fullmatch(bucket):
        what = "container" if scheme == "az" else "bucket"
        raise UsageError(f"{_shown(url)} names no {what}", f"write {scheme}://{what}/prefix")
    return bucket


def _prefix(url: str, prefix: str) -> str:
    parts = prefix.strip("/").split("/") if prefix.strip("/") else []
    if len(prefix) > 500 or not all(_PREFIX.fullmatch(part) for part in parts):
        raise UsageError(
            f"{_shown(url)} has a prefix that not every store can keep",
            "use letters, digits, dashes, dots (not first), and single slashes",
        )
    return "/".join(parts)


def open_store(
    url: str, access: Access | None = None, environment: Mapping[str, str] = os.environ
) -> Store:
    """Make the store that a URL names; nothing is asked of it yet.

    Args:
        url: the repository's.
        access: how to reach it.
        environment: where settings come from that `access` leaves open.

    Raises:
        UsageError: the URL or a setting makes no sense.
        BackstayError: the CA bundle can't be read.
    """
    location = parse_url(url)
    if location.scheme == "file":
        return FileStore(Path(location.path))
    return _remote(location, access or Access(), environment)


def server_of(
    url: str, access: Access | None = None, environment: Mapping[str, str] = os.environ
) -> str:
    """Name the server that a repository is on, as a URL; empty for a directory.

    Args:
        url: the repository's.
        access: how to reach it.
        environment: where settings come from that `access` leaves open.

    Raises:
        UsageError: the URL or a setting makes no sense.
        BackstayError: the CA bundle can't be read.
    """
    location = parse_url(url)
    if location.scheme == "file":
        return ""
    return _remote(location, access or Access(), environment).bucket.address


def _remote(
    location: Location, access: Access, environment: Mapping[str, str]
) -> "S3Store | GsStore | AzStore":
    if location.scheme == "gs":
        return _google(location, access, environment)
    if location.scheme == "az":
        return _azure(location, access, environment)
    return _s3(location, access, environment)


# obstore takes 30 ms to import: not for a repository in a directory.


def _s3(location: Location, access: Access, environment: Mapping[str, str]) -> "S3Store":
    from backstay.repo.stores.s3 import Bucket, S3Store  # noqa: PLC0415

    bundle = access.ca_bundle or _path(environment.get("AWS_CA_BUNDLE"))
    return S3Store(
        Bucket(
            name=location.bucket,
            prefix=location.path,
            endpoint=_endpoint(
                access.endpoint
                or environment.get("AWS_ENDPOINT_URL_S3")
                or environment.get("AWS_ENDPOINT_URL"),
                "S3",
                access,
            ),
            region=access.region
            or environment.get("AWS_REGION")
            or environment.get("AWS_DEFAULT_REGION")
            or "us-east-1",
            virtual_hosted=access.virtual_hosted,
            allow_http=access.allow_http,
            authorities=_authorities(bundle) if bundle else b"",
            proxies=access.proxies,
        )
    )


def _google(location: Location, access: Access, environment: Mapping[str, str]) -> "GsStore":
    from backstay.repo.stores.gs import Bucket, GsStore  # noqa: PLC0415

    return GsStore(
        Bucket(
            name=location.bucket,
            prefix=location.path,
            endpoint=_endpoint(environment.get("GOOGLE_BASE_URL"), "Google", access),
            allow_http=access.allow_http,
            authorities=_authorities(access.ca_bundle) if access.ca_bundle else b"",
            proxies=access.proxies,
        )
    )


def _azure(location: Location, access: Access, environment: Mapping[str, str]) -> "AzStore":
    from backstay.repo.stores.az import AzStore, Container  # noqa: PLC0415

    account = environment.get("AZURE_STORAGE_ACCOUNT") or environment.get(
        "AZURE_STORAGE_ACCOUNT_NAME", ""
    )
    if not _ACCOUNT.fullmatch(account):
        raise UsageError(
            f"az://{location.bucket} is in a storage account, and none is named",
            "set AZURE_STORAGE_ACCOUNT to its name: 3 to 24 characters a-z and 0-9",
        )
    return AzStore(
        Container(
            name=location.bucket,
            prefix=location.path,
            account=account,
            endpoint=_endpoint(environment.get("AZURE_STORAGE_ENDPOINT"), "Azure", access),
            allow_http=access.allow_http,
            authorities=_authorities(access.ca_bundle) if access.ca_bundle else b"",
            proxies=access.proxies,
        )
    )


def _endpoint(endpoint: str | None, service: str, access: Access) -> str | None:
    if not endpoint:
        return None
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        raise UsageError(f"the {service} endpoint is no URL", "write https://host:port") from None
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"the {service} endpoint has a user or password in it", "leave them out")
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise UsageError(f"{endpoint[:200]!r} is no {service} endpoint", "write https://host:port")
    if parts.query or parts.fragment:
        raise UsageError(f"the {service} endpoint has a query in it", "write https://host:port")
    if parts.scheme == "http" and not access.allow_http:
        raise UsageError(
            f"the {service} endpoint {endpoint} is plain http: anyone on the way sees what is"
            " listed",
            "write https://, or allow it with --allow-http",
        )
    return endpoint.rstrip("/")


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _authorities(bundle: Path) -> bytes:
    data = read_private(bundle, limit=_CA_LIMIT)
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise UsageError(f"{bundle} holds no certificate", "name a file of PEM certificates")
    return data
