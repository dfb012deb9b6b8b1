"""Why an S3 server, or the way to it, said no: read from obstore's errors, in plain words.

obstore gives most failures one type and a long text: the server's answer and the layers of the
HTTP client, one in the other. What is known is looked for in it. Nothing of the text itself is
handed on but the server's error code and message: the rest can hold signed requests, session
tokens and a proxy's password.

Source: Amazon S3, "Error responses"; the texts of object_store, reqwest and rustls were taken
from failures against real servers (tests/repo/test_store_failures.py keeps them true).
"""

import html
import re
from dataclasses import dataclass

_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,80})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,400})</Message>")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")

_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to valid credentials"
_POLICY = (
    "allow s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject, s3:DeleteObject and"
    " s3:AbortMultipartUpload on its objects"
)
_REGION = "give the bucket's region with --s3-region or AWS_REGION"
_TOKEN = "get new temporary credentials"  # noqa: S105 - advice, not a secret
_LOCK = "set AWS_CHECKSUM_ALGORITHM=SHA256: buckets with object lock want a checksum"


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


#: Where obstore says no more than that.
VAGUE = Reason("no connection, or no answer", "look at the server and the network")

#: By the server's own error code.
_CODES = {
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

#: By words in the text of a failure that has no answer of the server, the first that is found.
_SIGNS = (
    (
        "latest/api/token",
        Reason(
            "there are no credentials for S3",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role is given",
        ),
    ),
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


def reason_of(error: Exception) -> Reason:
    """Say why a request failed.

    Args:
        error: what obstore raised.
    """
    text = str(error)
    code = _CODE.search(text)
    status = _STATUS.search(text)
    if code is None and (status is None or "latest/api/token" in text):
        return _by_sign(text)
    if "x-amz-checksum" in text:
        return Reason("the bucket wants a checksum with each write", _LOCK)
    if code is not None and code[1] in _CODES:
        known = _CODES[code[1]]
        return Reason(known.what + _said(text), known.do, known.full)
    return _by_status(int(status[1]) if status else 0, code[1] if code else "", text)


def is_unknown_request(error: Exception) -> bool:
    """Tell whether a server said that it does not know such a request (501)."""
    status = _STATUS.search(str(error))
    return status is not None and status[1] == "501"


def _by_sign(text: str) -> Reason:
    for sign, reason in _SIGNS:
        if sign in text:
            return reason
    return Reason("the request failed", "look at the endpoint, the server and the network")


def _by_status(status: int, code: str, text: str) -> Reason:
    if "Client sent an HTTP request to an HTTPS server" in text:
        return _by_sign(text)
    if status in {401, 403}:
        return Reason("access is denied", f"{_CREDENTIALS}; {_POLICY}")
    if status == 507:
        return Reason("the server is full", "free some space", full=True)
    answer = " ".join(word for word in (str(status or ""), code) if word)
    return Reason(f"the server answered {answer}{_said(text)}", "look at the server's log")


def _said(text: str) -> str:
    """Give the server's own message: one printable line."""
    message = _MESSAGE.search(text)
    return f" ({_UNPRINTABLE.sub(' ', html.unescape(message[1])).strip()})" if message else ""
