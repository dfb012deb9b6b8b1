"""Keys that a snapshot brings along: OpenShift's other API servers have theirs in Secrets.

With kube-apiserver's keys at hand those Secrets open, and what is in them opens routes and OAuth
tokens: a restored cluster reads them in that way too. kube-apiserver's own keys can lie there as
well. They help to open more of the Secrets, but prove nothing of what kube-apiserver has stored,
for it has its keys from elsewhere when it starts.

What can't be read is kept, and `Discovery.explain` names it where it would have counted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from backstay.kubedata.cipher import KEY_SIZES
from backstay.kubedata.encryption import EncryptionConfiguration
from backstay.kubedata.inventory import IN_THE_CLEAR, Inventory
from backstay.kubedata.keypool import combine, rules_for
from backstay.kubedata.openshift import Document, Form, Source
from backstay.kubedata.outcome import GroupProof, KeyProof
from backstay.kubedata.resource import (
    KUBE_APISERVER,
    OAUTH_APISERVER,
    OPENSHIFT_APISERVER,
    Resource,
    api_server,
)
from backstay.kubedata.secretsearch import Search, Unread
from backstay.mvcc.snapshot import Snapshot
from backstay.report import Verdict

#: Secrets that one reason names.
_NAMED = 3
#: OpenShift's other API servers share a prefix of their own.
_BESIDE = {"/kubernetes.io": "/openshift.io"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKeys:
    """What was found of one API server's keys.

    Attributes:
        server: its name.
        prefix: the etcd prefix under which it stores objects; empty where that can't be told.
        configuration: what its keys are for; None where nothing could be read.
        read: the Secrets that this comes from, what counts most first.
        unread: those that could not be read.
    """

    server: str
    prefix: str
    configuration: EncryptionConfiguration | None = None
    read: tuple[Source, ...] = ()
    unread: tuple[Unread, ...] = ()

    @property
    def settled(self) -> bool:
        """Whether the configuration that the operator made was read: it has all keys in use."""
        return any(source.form is Form.CONFIGURATION for source in self.read)


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a snapshot has of keys.

    Attributes:
        servers: API servers of which keys, or Secrets that should have some, were found; none of
            those whose configuration was given, and not kube-apiserver.
        given: the API servers whose configuration was given.
        own: the keys of kube-apiserver that were found: provider, name, and the Secret.
    """

    servers: tuple[ServerKeys, ...] = ()
    given: frozenset[str] = frozenset()
    own: tuple[tuple[str, str, Source], ...] = ()

    @property
    def configurations(self) -> tuple[EncryptionConfiguration, ...]:
        """Give what was found, to be used beside what was given."""
        found = (keys.configuration for keys in self.servers)
        return tuple(configuration for configuration in found if configuration is not None)

    @property
    def summary(self) -> str:
        """Say in one line what was found; empty where nothing was."""
        parts = [
            f"of {keys.server} in {_named(source.name for source in keys.read)}"
            for keys in self.servers
            if keys.configuration is not None
        ]
        return f"found in the snapshot: keys {'; '.join(parts)}" if parts else ""

    def explain(self, proof: KeyProof) -> KeyProof:
        """Add to the reasons of a proof what was found, and what could not be read.

        Where a key is missing, and the configuration that should have it could not be read,
        nothing is proven: such a group is COULD NOT VERIFY.

        Args:
            proof: made with the configurations that were given, and those that were found.
        """
        return KeyProof(tuple(self._explained(group) for group in proof.groups))

    def _explained(self, group: GroupProof) -> GroupProof:
        if group.verdict is Verdict.PASS or group.provider not in KEY_SIZES:
            return group
        server = api_server(Resource.parse(group.resource))
        if server in self.given or server == KUBE_APISERVER:
            return _with(group, self._lying_inside(group) if server == KUBE_APISERVER else [])
        found = [
            keys
            for keys in self.servers
            if keys.server == server and keys.prefix in {"", group.prefix}
        ]
        if not found:
            return _with(group, ["none was found in the snapshot"] if group.tried == 0 else [])
        read = [source.name for keys in found for source in keys.read]
        unread = [one.reason for keys in found for one in keys.unread]
        more = [f"its keys are those in {_named(read)}"] if read else []
        explained = _with(group, [*more, *_shortened(unread)])
        if group.tried == 0 and unread and not any(keys.settled for keys in found):
            return replace(explained, verdict=Verdict.COULD_NOT_VERIFY)
        return explained

    def _lying_inside(self, group: GroupProof) -> list[str]:
        """A key that is missing can lie behind another one: that is worth to know."""
        found = [
            source.name
            for kind, name, source in self.own
            if (kind, name, source.prefix) == (group.provider, group.key_name, group.prefix)
        ]
        return [f"one of that name lies in {_named(found)}"] if found and not group.tried else []


def _with(group: GroupProof, more: Sequence[str]) -> GroupProof:
    return replace(group, reason="; ".join([group.reason, *more]))


def _named(names: Iterable[str]) -> str:
    return ", ".join(_shortened(list(dict.fromkeys(names))))


def _shortened(texts: Sequence[str]) -> list[str]:
    rest = len(texts) - _NAMED
    return [*texts[:_NAMED], f"and {rest} more"] if rest > 0 else list(texts)


def discover(snapshot: Snapshot, configurations: Sequence[EncryptionConfiguration]) -> Discovery:
    """Look for keys in the Secrets of a snapshot, at its revision.

    Args:
        snapshot: an open snapshot.
        configurations: what is known of keys. For an API server that they speak of, nothing is
            looked for.

    Raises:
        DamagedError: the snapshot's bucket `key` is damaged.
    """
    search = Search.of(snapshot, configurations)
    given = frozenset(
        api_server(named)
        for configuration in configurations
        for rule in configuration.rules
        for named in rule.resources
    )
    servers = tuple(
        _server(server, prefix, search)
        for prefix in sorted({source.prefix for source in search.sources()})
        for server in (OPENSHIFT_APISERVER, OAUTH_APISERVER)
        if server not in given
    )
    own = dict.fromkeys(
        (provider.kind, key.name, document.source)
        for document in search.documents
        if document.source.server == KUBE_APISERVER
        for provider in document.providers()
        for key in provider.keys
    )
    return Discovery(tuple(keys for keys in servers if keys.read or keys.unread), given, tuple(own))


def _server(server: str, prefix: str, search: Search) -> ServerKeys:
    """Put together what was read of one API server."""
    documents = [one for one in search.documents if _is_of(one.source, server, prefix)]
    unread = [one for one in search.unread if _is_of(one.source, server, prefix)]
    if server == OAUTH_APISERVER and not _has_configuration(search, server, prefix):
        # They were openshift-apiserver's before OAuth tokens had an API server of their own.
        former = OPENSHIFT_APISERVER
        documents += [
            one
            for one in search.documents
            if _is_of(one.source, former, prefix) and rules_for(server, one.rules)
        ]
        unread += [
            one
            for one in search.unread
            if _is_of(one.source, former, prefix) and one.source.form is not Form.KEY
        ]
    telling = [one for one in documents if one.keys or rules_for(server, one.rules)]
    unread += [_silent(one, server) for one in documents if one.rules and one not in telling]
    bound = _bound_to(prefix, server, search.inventory)
    rules = combine(server, telling)
    return ServerKeys(
        server=server,
        prefix=bound,
        configuration=EncryptionConfiguration(rules, bound) if rules else None,
        read=tuple(one.source for one in telling),
        unread=tuple(unread),
    )


def _is_of(source: Source, server: str, prefix: str) -> bool:
    return (source.server, source.prefix) == (server, prefix)


def _has_configuration(search: Search, server: str, prefix: str) -> bool:
    return any(
        _is_of(source, server, prefix) and source.form is not Form.KEY
        for source in search.sources()
    )


def _silent(document: Document, server: str) -> Unread:
    source = document.source
    return Unread(source, f"{source.name} says nothing of what {server} stores")


def _bound_to(prefix: str, server: str, inventory: Inventory) -> str:
    """Tell under which prefix an API server stores objects: where there are encrypted ones."""
    seen = {
        group.prefix
        for group in inventory.groups
        if group.provider != IN_THE_CLEAR and api_server(group.resource) == server
    }
    likely = _BESIDE.get(prefix, prefix)
    if likely in seen or not seen:
        return likely
    return seen.pop() if len(seen) == 1 else ""
