"""How long certificates are good for: of each in a file of PEM, whose it is and when it ends."""

import re
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

#: A certificate of more bytes than this is none of a cluster's.
_BLOCK = re.compile(
    rb"-----BEGIN CERTIFICATE-----[\sA-Za-z0-9+/=]{1,65536}-----END CERTIFICATE-----"
)
_NAME = 200


@dataclass(frozen=True, slots=True)
class Dates:
    """When a certificate is good.

    Attributes:
        subject: whose it is, fit for a terminal.
        begins: not before; aware.
        ends: not after; aware.
    """

    subject: str
    begins: datetime
    ends: datetime


def read_dates(data: bytes) -> tuple[Dates, ...]:
    """Read the certificates in a file; what is none of them is passed over.

    Args:
        data: the file.
    """
    found = []
    for block in _BLOCK.findall(data):
        try:
            certificate = x509.load_pem_x509_certificate(block)
            found.append(
                Dates(
                    _subject(certificate),
                    certificate.not_valid_before_utc,
                    certificate.not_valid_after_utc,
                )
            )
        except ValueError:
            # Also dates, and names, that no calendar or alphabet has.
            continue
    return tuple(found)


def _subject(certificate: x509.Certificate) -> str:
    text = certificate.subject.rfc4514_string()[:_NAME]
    return text if text.isprintable() else text.encode("unicode_escape").decode()
