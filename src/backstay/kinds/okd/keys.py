"""What a host tells of encryption at rest, and whether it opens what is in the snapshot.

kube-apiserver's configuration is a file among its static pod resources. Those of the other API
servers are Secrets, so they lie in the snapshot, and open with the first one's keys. Each numbers
its own keys: a key is one of a prefix, a resource, a provider and a name.
"""

from backstay.checks.question import Answer
from backstay.errors import FormatError
from backstay.flows.keyring import Known, prove
from backstay.kinds.okd.archive import Archived
from backstay.kubedata.configuration import parse_configuration
from backstay.kubedata.encryption import IDENTITY, EncryptionConfiguration
from backstay.kubedata.resource import Resource
from backstay.mvcc.snapshot import Snapshot

#: Under which OpenShift's kube-apiserver keeps its objects.
PREFIX = "/kubernetes.io"


def configuration(archived: Archived) -> EncryptionConfiguration | None:
    """Read the configuration that lies in a tar; None where there is none.

    Raises:
        FormatError: it can't be read, so that nobody knows how to read what it encrypted.
    """
    if archived.encryption is None:
        return None
    return parse_configuration(archived.encryption, name=archived.encryption_name)


def prove_with(archived: Archived, snapshot: Snapshot, *, prove_all: bool = False) -> Answer:
    """Do the keys in a tar, and those that they open, open what is encrypted in a snapshot?

    Args:
        archived: the tar.
        snapshot: an open snapshot.
        prove_all: try every value, not samples.

    Raises:
        FormatError: the configuration can't be read.
        DamagedError: bucket `key` is damaged.
    """
    known = Known.of_configuration(configuration(archived))
    return prove(snapshot, known.discovering(snapshot), prove_all=prove_all)[1]


def encryption(archived: Archived) -> str:
    """Name what kube-apiserver encrypts Secrets with, as `aescbc`; `identity` where it does not.

    Empty where its configuration can't be read.
    """
    try:
        found = configuration(archived)
    except FormatError:
        return ""
    providers = () if found is None else found.providers(PREFIX, Resource("secrets"))
    return providers[0].kind if providers else IDENTITY
