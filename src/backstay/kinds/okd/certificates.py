"""Certificates of a control plane host, by their dates: was there a rotation since?"""

import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from cryptography import x509

from backstay.errors import NotFoundError
from backstay.kinds.okd.guards import Dated
from backstay.kinds.okd.hosttree import HostTree
from backstay.kinds.okd.static_pods import PODS, RESOURCES, StaticPod

_BEGIN = b"-----BEGIN CERTIFICATE-----"
#: Bytes of a file of certificates, and files that are read of one host.
_LIMIT, _MANY = 1 << 20, 2000


def host_certificates(tree: HostTree, pods: Sequence[StaticPod]) -> tuple[Dated, ...]:
    """Read the dates of the certificates that the static pods of a host run with.

    Those of a revision lie in its directory, those that are changed without a rollout in
    `static-pod-resources/NAME-certs`.

    Args:
        tree: the host's files.
        pods: that run there.

    Raises:
        BackstayError: a directory can't be read.
    """
    folders = [*(pod.folder for pod in pods), *(f"{RESOURCES}/{name}-certs" for name in PODS)]
    return dated(_files(tree, folders))


def _files(tree: HostTree, folders: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    count = 0
    for folder in folders:
        with suppress(NotFoundError):
            for item in tree.walk(folder):
                small = item.facts.st_size <= _LIMIT and stat.S_ISREG(item.facts.st_mode)
                if item.name.endswith(".crt") and small and count < _MANY:
                    count += 1
                    yield tree.title(item.path), b"".join(tree.pieces(item))


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
