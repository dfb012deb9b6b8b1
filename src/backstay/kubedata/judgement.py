"""What it means that keys opened so many values of a group: a verdict and its reason.

Pure decisions, apart from the trying in `proof`. What can't be proven with keys alone (kms; API
servers whose configuration was not given) COULD NOT be VERIFIED, and never passes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from backstay.kubedata.cipher import KEY_SIZES
from backstay.kubedata.encryption import IDENTITY, KMS, EncryptionConfiguration, Provider
from backstay.kubedata.inventory import IN_THE_CLEAR, MALFORMED, Group
from backstay.kubedata.outcome import shown
from backstay.kubedata.resource import Resource, api_server
from backstay.report import Verdict

Judgement = tuple[Verdict, str]


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of trying a group's values.

    Attributes:
        tried: how many; 0 where there was no key to try.
        opened: how many of these were objects that lie where they belong.
        failed: the first that was not, and why.
    """

    tried: int = 0
    opened: int = 0
    failed: str = ""


def judge(
    group: Group,
    trial: Trial,
    providers: Sequence[Provider],
    configurations: Sequence[EncryptionConfiguration],
) -> Judgement:
    """Decide on a group of values.

    Args:
        group: which values.
        trial: what came of trying them.
        providers: those that the configurations have for their resource.
        configurations: all that were given.

    Returns:
        the verdict, and the reason in one line.
    """
    if trial.tried == 0:
        return _untried(group, providers, configurations)
    if trial.opened < trial.tried:
        return Verdict.FAIL, _failure(group, trial)
    if group.provider != IN_THE_CLEAR:
        return Verdict.PASS, f"open with the saved key {shown(group.key_name)}"
    if any(provider.kind == IDENTITY for provider in providers):
        return Verdict.PASS, "stored without encryption, though the configuration encrypts them"
    return Verdict.FAIL, (
        "stored without encryption, and the configuration has no identity provider to read them"
    )


def _failure(group: Group, trial: Trial) -> str:
    first = f"first {trial.failed}"
    if group.provider == IN_THE_CLEAR:
        return f"{trial.tried - trial.opened} of {trial.tried} are no Kubernetes objects; {first}"
    name = shown(group.key_name)
    if not trial.opened:
        return (
            f"the saved key {name} opens none of {trial.tried}: a wrong key of that name; {first}"
        )
    return f"the saved key {name} opens only {trial.opened} of {trial.tried}; {first}"


def _untried(
    group: Group,
    providers: Sequence[Provider],
    configurations: Sequence[EncryptionConfiguration],
) -> Judgement:
    if group.provider == MALFORMED:
        return Verdict.FAIL, "they say that they are encrypted, and not how: they are damaged"
    if group.provider == KMS:
        return Verdict.COULD_NOT_VERIFY, (
            f"only the KMS behind {shown(group.key_name)} can open them; record its keys"
        )
    if group.provider not in KEY_SIZES:
        return Verdict.COULD_NOT_VERIFY, f"{group.provider} is a provider that is not known here"
    if providers:
        return Verdict.FAIL, _missing(group, providers)
    return _uncovered(group.prefix, group.resource, configurations)


def _missing(group: Group, providers: Sequence[Provider]) -> str:
    names = [
        shown(key.name)
        for provider in providers
        for key in provider.keys
        if provider.kind == group.provider
    ]
    names = list(dict.fromkeys(names))
    there = f"there is {', '.join(names)}" if names else f"there is no {group.provider} key"
    return f"the key {shown(group.key_name)} is missing; {there}"


def _uncovered(
    prefix: str, resource: Resource, configurations: Sequence[EncryptionConfiguration]
) -> Judgement:
    """No configuration speaks of the resource: is it that of another API server?"""
    server = api_server(resource)
    known = {
        api_server(named)
        for configuration in configurations
        if configuration.prefix in {"", prefix}
        for rule in configuration.rules
        for named in rule.resources
    }
    if server in known:
        return Verdict.FAIL, f"the configuration of {server} has no key for {shown(str(resource))}"
    return Verdict.COULD_NOT_VERIFY, (
        f"{server} has encrypted them, and no configuration of it was given"
    )
