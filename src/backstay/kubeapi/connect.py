"""Connecting to the API of a cluster, as kubectl would."""

from pathlib import Path

from backstay.kubeapi.api import Api
from backstay.kubeapi.credentials import Login
from backstay.kubeapi.http import HttpTransport
from backstay.kubeapi.kubeconfig import ReadFile


def connect(kubeconfig: Path | None, context: str | None, *, read: ReadFile | None = None) -> Api:
    """Open the API of a cluster; nothing is asked of it yet.

    Args:
        kubeconfig: the file to read; None looks where kubectl looks, then for a service account.
        context: its context; None takes the current one.
        read: reads the kubeconfig and what it names, where these are not files of this machine.

    Raises:
        UsageError: nothing says which cluster is meant, or it makes no sense.
        KubeError: a credential plugin failed.
    """
    return Api(HttpTransport(Login(kubeconfig, context, read_file=read)))
