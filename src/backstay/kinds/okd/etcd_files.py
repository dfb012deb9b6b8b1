"""How a control plane host enters its etcd: addresses and certificates, as its operator left them.

`etcd.env` is made to be sourced by a shell. Here it is read, never run: a line that is no plain
assignment is refused, for a shell would do with it what nobody sees.

Source: openshift/cluster-etcd-operator, pkg/etcdenvvar (names), bindata/etcd/cluster-backup.sh
(where the certificates are: the paths are those inside etcd's pod, `static-pod-certs`, which on the
host is `static-pod-resources/etcd-certs`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from backstay.client.access import Access, Timeouts, Tls
from backstay.client.endpoint import Endpoint, parse_endpoints
from backstay.errors import BackstayError, FormatError, NotFoundError, UsageError
from backstay.kinds.okd.hosttree import HostTree
from backstay.kinds.okd.static_pods import KUBERNETES, RESOURCES

ENV_FILE = f"{RESOURCES}/etcd-certs/configmaps/etcd-scripts/etcd.env"
#: The certificates inside etcd's pod, and on the host.
_LAYOUTS = (f"{KUBERNETES}/static-pod-certs/", f"{RESOURCES}/etcd-certs/")
_ENV_LIMIT, _PEM_LIMIT = 256 << 10, 4 << 20
_PORT = 2379
_LINE = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_VALUE = re.compile(r"\"([^\"\\$`]*)\"|'([^']*)'|([A-Za-z0-9_./:,@%+=\[\]-]*)")
_CERTIFICATE = re.compile(r"etcd-peer-([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)\.crt")
_CA, _CERT, _KEY = "ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY"
_HINT = "is this a control plane host whose etcd runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEtcd:
    """What a host knows of its etcd.

    Attributes:
        node: the host's name in the cluster.
        access: how to enter; this host's own member comes first.
        ca: where the authorities are on the host.
        certificate: where the client's certificate is.
        key: where its key is.
    """

    node: str
    access: Access = field(repr=False)
    ca: str
    certificate: str
    key: str


def parse_env(data: bytes, name: str) -> dict[str, str]:
    """Read assignments as a shell would, where all a shell would do is to assign.

    Args:
        data: the file.
        name: what messages call it.

    Returns:
        The variables; those whose value a shell would have to work out are left out.

    Raises:
        FormatError: a line is something else than an assignment. No line is quoted.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(_lines(data, name), start=1):
        text = line.strip(" \t\r")
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise FormatError(
                f"{name}: line {number} is no assignment", "find out who changed the file"
            )
        variable, rest = match.groups()
        value = _VALUE.fullmatch(rest)
        found.pop(variable, None)
        if value is not None:
            found[variable] = next((part for part in value.groups() if part is not None), "")
    return found


def _lines(data: bytes, name: str) -> list[str]:
    try:
        return data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"{name} is no text in UTF-8", "find out who changed it") from error


def find_etcd(tree: HostTree, *, endpoints: str = "", timeouts: Timeouts | None = None) -> HostEtcd:
    """Find how to enter the etcd of a host.

    Args:
        tree: the host's files.
        endpoints: others than its own, comma-separated; empty takes those that the host names.
        timeouts: patience.

    Raises:
        NotFoundError: etcd's files are not there.
        FormatError: they don't say what they should.
        BackstayError: they can't be read.
    """
    title = tree.title(ENV_FILE)
    try:
        variables = parse_env(tree.read(ENV_FILE, limit=_ENV_LIMIT), title)
    except NotFoundError as error:
        raise NotFoundError(f"{title} is not there", _HINT) from error
    paths = _paths(tree, {name: _needed(variables, name, title) for name in (_CA, _CERT, _KEY)})
    node = _node(variables, paths[_CERT], title)
    try:
        where = parse_endpoints(endpoints) if endpoints else _endpoints(variables, node, title)
    except UsageError as error:
        if endpoints:
            raise
        raise FormatError(f"{title}: {error.what}", "find out who changed the file") from error
    for endpoint in where:
        if not endpoint.is_tls:
            raise UsageError(f"{endpoint} is without TLS, which etcd on OKD always has")
    ca, certificate, key = (tree.read(paths[name], limit=_PEM_LIMIT) for name in (_CA, _CERT, _KEY))
    return HostEtcd(
        node=node,
        access=Access(
            endpoints=where,
            tls=Tls(ca=ca, certificate=certificate, key=key),
            timeouts=timeouts or Timeouts(),
        ),
        ca=paths[_CA],
        certificate=paths[_CERT],
        key=paths[_KEY],
    )


def _needed(variables: Mapping[str, str], name: str, title: str) -> str:
    value = variables.get(name, "")
    if not value:
        raise FormatError(f"{title} does not say {name}", _HINT)
    return value


def _paths(tree: HostTree, told: Mapping[str, str]) -> dict[str, str]:
    """Choose the layout that has all three files."""
    for layout in _LAYOUTS:
        paths = {name: _moved(path, layout) for name, path in told.items()}
        if all(tree.is_file(path) for path in paths.values()):
            return paths
    missing = [path for path in paths.values() if not tree.is_file(path)]
    raise NotFoundError(
        f"{tree.title(missing[0])} is not there, nor is it below {tree.title(_LAYOUTS[0])}", _HINT
    )


def _moved(path: str, layout: str) -> str:
    for other in _LAYOUTS:
        if path.startswith(other):
            return layout + path.removeprefix(other)
    return path


def _node(variables: Mapping[str, str], certificate: str, title: str) -> str:
    """Tell the host's name: its certificates bear it, and the variables of all hosts lie there."""
    match = _CERTIFICATE.fullmatch(certificate.rpartition("/")[2])
    if match is None:
        raise FormatError(
            f"{title}: {_CERT} does not name a host's certificate, as etcd-peer-HOST.crt", _HINT
        )
    named = variables.get(f"NODE_{_safe(match[1])}_ETCD_NAME", match[1])
    if named != match[1]:
        raise FormatError(
            f"{title} calls this host {match[1]!r} and {named[:253]!r}", "mend the host first"
        )
    return match[1]


def _endpoints(variables: Mapping[str, str], node: str, title: str) -> tuple[Endpoint, ...]:
    """Give this host's own member, then all."""
    own = variables.get(f"NODE_{_safe(node)}_IP", "")
    several = (variables.get(name, "") for name in ("ALL_ETCD_ENDPOINTS", "ETCDCTL_ENDPOINTS"))
    texts = [f"https://{own}:{_PORT}" if own else "", *several]
    found = tuple(dict.fromkeys(one for text in texts if text for one in parse_endpoints(text)))
    if not found:
        raise BackstayError(f"{title} names no endpoint of etcd", "name one with --endpoints")
    return found


def _safe(node: str) -> str:
    """A host's name as it stands in variables."""
    return node.replace("-", "_").replace(".", "_")
