"""Connecting to the API of a cluster, as kubectl would."""

from pathlib import Path

from backstay.kubeapi.api import Api
from backstay.kubeapi.credentials import Login
from backstay.kubeapi.http import HttpTransport


def connect(kubeconfig: Path | None, context: str | None) -> Api:
    """Open the API of a cluster; nothing is asked of it yet.

    Args:
        kubeconfig: the file to read; None looks where kubectl looks, then for a service account.
        context: its context; None takes the current one.

    Raises:
        UsageError: nothing says which cluster is meant, or it makes no sense.
        KubeError: a credential plugin failed.
    """
    return Api(HttpTransport(Login(kubeconfig, context)))
