"""The hosted cluster's own API, entered with the administrator's kubeconfig that HyperShift keeps.

That kubeconfig comes out of a Secret: it may carry certificates and tokens, and may name neither
programs to run nor files of this machine.

Source: hypershift, api/hypershift/v1beta1 (status.kubeconfig names a Secret; its data key is
`kubeconfig`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from backstay.client.member import scratch
from backstay.errors import BackstayError, FormatError, KubeError
from backstay.files import new_file
from backstay.kinds.hosted.cluster import Hosted, at, secret_value
from backstay.kubeapi.api import Api
from backstay.kubeapi.connect import connect
from backstay.kubeapi.resource import SECRETS
from backstay.kubedata.document import load_document

_KEY = "kubeconfig"
#: What users and clusters may have: no `exec`, no `auth-provider`, no name of a file.
_ALLOWED = {
    "users": {"client-certificate-data", "client-key-data", "token"},
    "clusters": {"server", "certificate-authority-data", "tls-server-name"},
}
_INNER = {"users": "user", "clusters": "cluster"}


@contextmanager
def open_guest(api: Api, hosted: Hosted) -> Iterator[Api]:
    """Open the API of a hosted cluster until the block ends.

    Args:
        api: of the management cluster.
        hosted: the cluster, as it is by now: its status names the Secret.

    Raises:
        KubeError: there is no kubeconfig, it is none that is used here, or it leads nowhere.
    """
    data = read_kubeconfig(api, hosted)
    # HTTP libraries take certificates from files alone.
    with scratch() as place:
        path = place / _KEY
        with new_file(path) as file:
            file.write(data)
        try:
            guest = connect(path, None)
        except KubeError:
            raise
        except BackstayError as error:
            raise KubeError(
                f"the kubeconfig of {hosted.title} is unusable: {error.what}"
            ) from error
        with guest:
            yield guest


def read_kubeconfig(api: Api, hosted: Hosted) -> bytes:
    """Read the administrator's kubeconfig of a hosted cluster.

    Raises:
        KubeError: there is none, or it names programs or files.
    """
    name = at(hosted.status, "kubeconfig.name", "") or f"{hosted.name}-admin-kubeconfig"
    where = f"Secret {hosted.namespace}/{name}"
    data = secret_value(api.get(SECRETS, name, hosted.namespace), _KEY)
    if not data:
        raise KubeError(f"{where} has no kubeconfig")
    try:
        document = load_document(data, where)
    except FormatError as error:
        raise KubeError(f"{where}: its kubeconfig can't be read: {error.what}") from error
    odd = _odd(document)
    if odd:
        raise KubeError(f"{where}: its kubeconfig has `{odd}`, which is not used here")
    return data


def _odd(document: object) -> str:
    """Name the first thing that such a kubeconfig may not have; empty where there is none."""
    nothing: list[Any] = []
    more: dict[str, Any] = {}
    for plural, allowed in _ALLOWED.items():
        for entry in at(document, plural, nothing):
            for name in at(entry, _INNER[plural], more):
                if name not in allowed:
                    return "".join(c if c.isprintable() else " " for c in str(name)[:100])
    return ""
