"""What certificates say, in words, and what is wrong with our own before anything is dialled.

A TLS library says "handshake failed"; the reader wants to know that a certificate ran out in
March. Trust itself is decided by the TLS library alone, never here.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from backstay.client.access import Tls
from backstay.client.text import one_line
from backstay.errors import ConnectionFailedError, UsageError


def check_tls(tls: Tls, now: datetime) -> None:
    """Look at what we were given: can it be read, does the key fit, is it in its time?

    Args:
        tls: authorities, certificate and key.
        now: the time of day, aware.

    Raises:
        UsageError: something is no certificate or key, or they don't belong together.
        ConnectionFailedError: something has run out, or begins only later.
    """
    if tls.ca is not None:
        authorities = _parse("the CA file", tls.ca)
        problems = [_out_of_time(a, now) for a in authorities]
        if all(problems):
            raise ConnectionFailedError(
                f"the authority that is to be trusted {problems[0]}",
                "give the one that signs etcd's certificates now, or look at this machine's clock",
            )
    if tls.certificate is None or tls.key is None:
        return
    certificate = _parse("the client certificate", tls.certificate)[0]
    if _public_key(tls.key) != certificate.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    ):
        raise UsageError(
            f"the key does not belong to the client certificate ({name(certificate)})",
            "give the key that was made with it",
        )
    problem = _out_of_time(certificate, now)
    if problem:
        raise ConnectionFailedError(
            f"our client certificate ({name(certificate)}) {problem}",
            "renew it, or look at this machine's clock",
        )


def _parse(what: str, pem: bytes) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise UsageError(f"{what} has no certificate in it", "give a PEM file") from error


def _public_key(pem: bytes) -> bytes:
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise UsageError("the client key is encrypted", "give it decrypted") from error
    except Exception as error:  # the reasons of a bad key have no common class
        # The library's words are left out: they could repeat what is in the file.
        raise UsageError("the client key can't be read", "give a PEM file") from error
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _out_of_time(certificate: x509.Certificate, now: datetime) -> str:
    if now > certificate.not_valid_after_utc:
        return f"ran out on {_date(certificate.not_valid_after_utc)}"
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {_date(certificate.not_valid_before_utc)}"
    return ""


def _date(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def name(certificate: x509.Certificate) -> str:
    """The subject, fit for a message."""
    return one_line(certificate.subject.rfc4514_string()) or "without a name"


def expiry(pem: bytes) -> datetime:
    """When the first certificate of a PEM file runs out.

    Raises:
        UsageError: there is none in it.
    """
    return _parse("the file", pem)[0].not_valid_after_utc


def hosts(der: bytes) -> str:
    """The names and addresses that a server's certificate is for."""
    try:
        names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except (ValueError, x509.ExtensionNotFound):
        return "no name at all"
    found = [str(entry.value) for entry in names.value]
    return one_line(", ".join(found[:20]))


def issuer(der: bytes) -> str:
    """Who signed a server's certificate."""
    try:
        return one_line(x509.load_der_x509_certificate(der).issuer.rfc4514_string())
    except ValueError:
        return "unknown"


def out_of_time(der: bytes, now: datetime) -> str:
    """Whether a server's certificate has run out or begins later, in words; empty where not."""
    try:
        return _out_of_time(x509.load_der_x509_certificate(der), now)
    except ValueError:
        return ""


def for_clients(pem: bytes) -> bool:
    """Whether a certificate may be shown by a client; servers in Go insist on that."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    except ValueError:
        return False
    return bool(
        {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usage)
    )
