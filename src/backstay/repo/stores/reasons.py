"""Why an object store, or the way to it, said no: read from obstore's errors, in plain words.

obstore gives most failures one type and a long text: the server's answer and the layers of the
HTTP client, one in the other. What is known is looked for in it. Nothing of the text itself is
handed on but the server's error code and message: the rest can hold signed requests, session
tokens and a proxy's password.

Source: Amazon S3, "Error responses"; Azure Blob Storage, "Blob service error codes"; Google Cloud
Storage, "HTTP status and error codes for XML". The texts of object_store, reqwest and rustls were
taken from failures against real servers (tests/repo/test_store_failures.py keeps them true).
"""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass

_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,80})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,400})</Message>")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a request failed.

    Attributes:
        what: the reason, as the end of a sentence.
        do: what to do about it; may be empty.
        full: the store has no room left.
    """

    what: str
    do: str = ""
    full: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A kind of object store, in the words that a user of it knows.

    Attributes:
        name: what it is called.
        container: what it keeps objects in.
        owner: who runs it, where no endpoint is named.
        variables: how the variables with its settings begin.
        no_bucket: its error code for a bucket that is not there.
        credentials: what to do about credentials.
        policy: the rights that are needed.
        metadata: part of the URL that a machine in its cloud asks for credentials.
        codes: reasons by its own error codes.
        residue: what killed uploads leave; see `Store`.
    """

    name: str
    container: str
    owner: str
    variables: str
    no_bucket: str
    credentials: str
    policy: str
    metadata: str
    codes: Mapping[str, Reason]
    residue: str = ""

    @property
    def no_credentials(self) -> Reason:
        """Nothing that a request could be signed with was found."""
        do = f"{self.credentials}, or run where a role is given"
        return Reason(f"there are no credentials for {self.name}", do)


#: Where obstore says no more than that.
VAGUE = Reason("no connection, or no answer", "look at the server and the network")

_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to valid credentials"
_POLICY = (
    "allow s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject, s3:DeleteObject and"
    " s3:AbortMultipartUpload on its objects"
)
_REGION = "give the bucket's region with --s3-region or AWS_REGION"
_TOKEN = "get new temporary credentials"  # noqa: S105 - advice, not a secret
_LOCK = "set AWS_CHECKSUM_ALGORITHM=SHA256: buckets with object lock want a checksum"

_S3_CODES = {
    "InvalidAccessKeyId": Reason("the server does not know the access key", _CREDENTIALS),
    "SignatureDoesNotMatch": Reason("the secret key does not fit the access key", _CREDENTIALS),
    "AccessDenied": Reason("access is denied", _POLICY),
    "AllAccessDisabled": Reason("access is denied", _POLICY),
    "ExpiredToken": Reason("the session token has run out", _TOKEN),
    "InvalidToken": Reason("the session token is not valid", _TOKEN),
    "NoSuchBucket": Reason("there is no such bucket", "make the bucket, or mend the URL"),
    "PermanentRedirect": Reason("the bucket is in another region", _REGION),
    "AuthorizationHeaderMalformed": Reason("the bucket is in another region", _REGION),
    "IllegalLocationConstraintException": Reason("the bucket is in another region", _REGION),
    "RequestTimeTooSkewed": Reason(
        "this machine's clock differs from the server's", "set the clock, by NTP"
    ),
    "SlowDown": Reason("the server is overloaded", "try again later"),
    "ServiceUnavailable": Reason("the server is not available", "try again later"),
    "InvalidObjectState": Reason(
        "the object is in an archive", "restore it from its storage class first"
    ),
    "QuotaExceeded": Reason("the bucket's quota is used up", "raise it", full=True),
    "XMinioStorageFull": Reason("the server's disks are full", "free some space", full=True),
}

S3 = Service(
    name="S3",
    container="bucket",
    owner="Amazon",
    variables="AWS_",
    no_bucket="NoSuchBucket",
    credentials=_CREDENTIALS,
    policy=_POLICY,
    metadata="latest/api/token",
    codes=_S3_CODES,
    residue=(
        "uploads that were killed half-way stay hidden in the bucket and are paid for; only a rule"
        " of the bucket removes them: a lifecycle rule with AbortIncompleteMultipartUpload,"
        " DaysAfterInitiation 1"
    ),
)

_GS_CREDENTIALS = "set GOOGLE_APPLICATION_CREDENTIALS to a service account's file"
_GS_POLICY = (
    "allow storage.objects.list, .get, .create and .delete, and storage.multipartUploads.create"
    " and .abort on the bucket (the role Storage Object User)"
)
_GS_DENIED = Reason("access is denied", _GS_POLICY)
_GS_CODES = {
    "AccessDenied": _GS_DENIED,
    "Forbidden": _GS_DENIED,
    "AuthenticationRequired": Reason("the server wants credentials", _GS_CREDENTIALS),
    "InvalidSecurity": Reason("the server does not accept the credentials", _GS_CREDENTIALS),
    "NoSuchBucket": Reason("there is no such bucket", "make the bucket, or mend the URL"),
    "UserProjectAccountProblem": Reason("the bucket's project can't be used", "see its billing"),
    "SlowDown": Reason("the server is overloaded", "try again later"),
    "ServiceUnavailable": Reason("the server is not available", "try again later"),
    "ObjectUnderActiveHold": Reason("the object is under a hold", "release the hold first"),
    "RetentionPolicyNotMet": Reason("the bucket retains the object", "wait until it does not"),
}
GS = Service(
    name="Google Cloud Storage",
    container="bucket",
    owner="Google",
    variables="GOOGLE_",
    no_bucket="NoSuchBucket",
    credentials=_GS_CREDENTIALS,
    policy=_GS_POLICY,
    metadata="computeMetadata",
    codes=_GS_CODES,
    residue=(
        "uploads that were killed half-way stay hidden in the bucket and are paid for; only a rule"
        " of the bucket removes them: a lifecycle rule with AbortIncompleteMultipartUpload, age 1"
    ),
)

_AZ_CREDENTIALS = (
    "set AZURE_STORAGE_ACCOUNT, and AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN to valid"
    " credentials"
)
_AZ_POLICY = "allow to read, add, write, delete and list blobs (Storage Blob Data Contributor)"
_AZ_UNKNOWN = Reason("the server does not accept the credentials", _AZ_CREDENTIALS)
_AZ_DENIED = Reason("access is denied", _AZ_POLICY)
_AZ_CODES = {
    "AuthenticationFailed": _AZ_UNKNOWN,
    "AuthorizationFailure": _AZ_UNKNOWN,
    "InvalidAuthenticationInfo": _AZ_UNKNOWN,
    "NoAuthenticationInformation": _AZ_UNKNOWN,
    "AuthorizationPermissionMismatch": _AZ_DENIED,
    "AuthorizationProtocolMismatch": Reason("the account takes https only", "write https://"),
    "InsufficientAccountPermissions": _AZ_DENIED,
    "AccountIsDisabled": Reason("the storage account is disabled", "enable it"),
    "ContainerNotFound": Reason("there is no such container", "make it, or mend the URL"),
    "ContainerBeingDeleted": Reason("the container is being deleted", "name another one"),
    "ServerBusy": Reason("the server is overloaded", "try again later"),
    "InternalError": Reason("the server is not available", "try again later"),
    "BlobArchived": Reason("the object is in an archive", "bring it to the hot tier first"),
    "BlobImmutableDueToPolicy": Reason("the container keeps the object", "wait until it does not"),
}
AZ = Service(
    name="Azure Blob Storage",
    container="container",
    owner="Azure",
    variables="AZURE_",
    no_bucket="ContainerNotFound",
    credentials=_AZ_CREDENTIALS,
    policy=_AZ_POLICY,
    metadata="metadata/identity",
    codes=_AZ_CODES,
)

#: By words in the text of a failure that has no answer of the server, the first that is found.
_SIGNS = (
    (
        "UnknownIssuer",
        Reason(
            "the server's TLS certificate is not signed by an authority that is trusted here",
            "give the authority's certificate with --ca-bundle or AWS_CA_BUNDLE",
        ),
    ),
    (
        "NotValidForName",
        Reason(
            "the server's TLS certificate is for another name",
            "write the endpoint with a name that the certificate has",
        ),
    ),
    (
        "Expired",
        Reason("the server's TLS certificate has run out", "renew it, or set this clock"),
    ),
    (
        "InvalidCertificate",
        Reason("the server's TLS certificate is not valid", "look at the certificate"),
    ),
    (
        "InvalidContentType",
        Reason("the server does not speak TLS there", "mend the endpoint's port or scheme"),
    ),
    (
        "Client sent an HTTP request to an HTTPS server",
        Reason("the server speaks TLS only", "write the endpoint with https://"),
    ),
    (
        "ConnectionRefused",
        Reason("nobody listens there", "look whether the server runs, and at the endpoint"),
    ),
    (
        "dns error",
        Reason("its host name has no address", "mend the endpoint, or the name service"),
    ),
    (
        "Unreachable",
        Reason("there is no route to it", "look at the network, or set HTTPS_PROXY"),
    ),
    (
        "proxy",
        Reason("the proxy refused or can't be reached", "look at HTTPS_PROXY and NO_PROXY"),
    ),
    (
        "kind: Timeout",
        Reason("no answer within the time that is allowed", "look at the server and the network"),
    ),
    (
        "incorrectly configured region",
        Reason("the bucket is in another region", _REGION),
    ),
    (
        "kind: Connect",
        Reason("no connection", "look whether the server runs, and at the network"),
    ),
    ("error sending request", VAGUE),
    (
        "response body error",
        Reason("the answer broke off", "look at the server and the network"),
    ),
)


def reason_of(error: Exception, service: Service = S3) -> Reason:
    """Say why a request failed.

    Args:
        error: what obstore raised.
        service: what was asked.
    """
    text = str(error)
    code = _CODE.search(text)
    status = _STATUS.search(text)
    if service.metadata in text:
        return service.no_credentials
    if code is None and status is None:
        return _by_sign(text)
    if "x-amz-checksum" in text:
        return Reason("the bucket wants a checksum with each write", _LOCK)
    if code is not None and code[1] in service.codes:
        known = service.codes[code[1]]
        return Reason(known.what + _said(text), known.do, known.full)
    return _by_status(int(status[1]) if status else 0, code[1] if code else "", text, service)


def is_unknown_request(error: Exception) -> bool:
    """Tell whether a server said that it does not know such a request (501)."""
    status = _STATUS.search(str(error))
    return status is not None and status[1] == "501"


def _by_sign(text: str) -> Reason:
    for sign, reason in _SIGNS:
        if sign in text:
            return reason
    return Reason("the request failed", "look at the endpoint, the server and the network")


def _by_status(status: int, code: str, text: str, service: Service) -> Reason:
    if "Client sent an HTTP request to an HTTPS server" in text:
        return _by_sign(text)
    if status in {401, 403}:
        return Reason("access is denied", f"{service.credentials}; {service.policy}")
    if status == 507:
        return Reason("the server is full", "free some space", full=True)
    answer = " ".join(word for word in (str(status or ""), code) if word)
    return Reason(f"the server answered {answer}{_said(text)}", "look at the server's log")


def _said(text: str) -> str:
    """Give the server's own message: one printable line."""
    message = _MESSAGE.search(text)
    return f" ({_UNPRINTABLE.sub(' ', html.unescape(message[1])).strip()})" if message else ""
