"""The namespaces that saved objects lie in: `oc apply` of a file makes them first."""

from backstay.kinds.hosted.belongings.clean import dump
from backstay.kinds.hosted.manifests.documents import parse_documents


def with_namespaces(text: str) -> str:
    """Put the Namespaces of some manifests in front of them.

    Args:
        text: manifests, with one HostedCluster among them.

    Raises:
        FormatError: they can't be read.
    """
    documents = parse_documents(text, "what was saved")
    names = dict.fromkeys(manifest.namespace for manifest in documents.manifests)
    made = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        for name in names
        if name
    ]
    return dump(made) + text
