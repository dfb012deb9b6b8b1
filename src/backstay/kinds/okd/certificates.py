"""Certificates of a control plane host, by their dates: was there a rotation since?"""

from collections.abc import Iterable

from cryptography import x509

from backstay.kinds.okd.guards import Dated

_BEGIN = b"-----BEGIN CERTIFICATE-----"


def dated(files: Iterable[tuple[str, bytes]]) -> tuple[Dated, ...]:
    """Read the dates of leaf certificates; what is none is left out.

    Authorities are left out: the installer makes some that live for ten years.

    Args:
        files: name and content (PEM) of each; of several in one file the first counts, as it is
            the one that is shown.
    """
    return tuple(found for name, pem in files if (found := _dated(name, pem)) is not None)


def _dated(name: str, pem: bytes) -> Dated | None:
    begin = pem.find(_BEGIN)
    if begin < 0:
        return None
    try:
        certificate = x509.load_pem_x509_certificate(pem[begin:])
        if _is_authority(certificate):
            return None
        return Dated(name, certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    except ValueError:
        return None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
