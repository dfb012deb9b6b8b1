"""One configuration out of all that was found of one API server's keys.

The first document with rules is what the API server goes by: it says what is encrypted. Whatever
else there is (older copies, single keys) only adds keys that read, so that nothing is held to be
encrypted, or to be readable in the clear, on the word of a document that no longer counts.
"""

from collections.abc import Sequence

from backstay.kubedata.encryption import IDENTITY, Provider, Rule
from backstay.kubedata.openshift import Document
from backstay.kubedata.resource import ANY, Resource, api_server, everything_of

_ALL = Resource(ANY, ANY)


def rules_for(server: str, rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Give the part of some rules that is about what an API server stores.

    Args:
        server: as `resource.api_server` names it.
        rules: of a configuration; what they say of other API servers' resources is left out.
    """
    found = []
    for rule in rules:
        resources = tuple(
            own
            for named in rule.resources
            for own in (everything_of(server) if named == _ALL else (named,))
            if api_server(own) == server
        )
        if resources:
            found.append(Rule(resources, rule.providers))
    return tuple(found)


def combine(server: str, documents: Sequence[Document]) -> tuple[Rule, ...]:
    """Make the rules of an API server.

    Args:
        server: which.
        documents: what was read of it, what counts most first.
    """
    rules: list[Rule] = []
    for document in documents:
        stated = rules_for(server, document.rules)
        rules += [more for rule in stated for more in _added(rule, rules)] if rules else stated
    everything = everything_of(server)
    keys = tuple(provider for document in documents for provider in document.keys)
    resources = dict.fromkeys((*_named(rules), *everything))
    return (*rules, *_added(Rule(tuple(resources), keys), rules))


def _named(rules: Sequence[Rule]) -> list[Resource]:
    return list(dict.fromkeys(resource for rule in rules for resource in rule.resources))


def _added(rule: Rule, rules: Sequence[Rule]) -> list[Rule]:
    """Give rules that make keys read, and change nothing else.

    A resource's own rules go before those of its group, so keys are added to each of the names
    under which the configuration has it; where it has none, identity in front says that nothing
    is encrypted.
    """
    keyed = tuple(provider for provider in rule.providers if provider.keys)
    if not keyed:
        return []
    named = _named(rules)
    known: dict[Resource, None] = {}
    new: dict[Resource, None] = {}
    for resource in rule.resources:
        under = [name for name in named if _overlap(name, resource)]
        known.update(dict.fromkeys(under))
        if resource not in named and (not under or resource.plural == ANY):
            new[resource] = None
    added = [Rule(tuple(known), keyed)] if known else []
    if new:
        added.append(Rule(tuple(new), (Provider(IDENTITY), *keyed)))
    return added


def _overlap(one: Resource, other: Resource) -> bool:
    return one.group == other.group and (ANY in {one.plural, other.plural} or one == other)
