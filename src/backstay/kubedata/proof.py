"""The key proof: do these keys open what this snapshot has encrypted?

Values are grouped by etcd prefix, resource, provider and key name. Of each group some values, or
all, are opened; a value counts as opened when what comes out is a Kubernetes object that lies
where it belongs. That matters with aescbc, which has no seal of its own. What the counts mean is
decided in `judgement`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from backstay.errors import CheckFailedError
from backstay.kubedata.encryption import IDENTITY, EncryptionConfiguration
from backstay.kubedata.inventory import (
    IN_THE_CLEAR,
    Group,
    Place,
    read_value,
    take_inventory,
)
from backstay.kubedata.judgement import Trial, judge
from backstay.kubedata.opening import colon_names, keys_named, open_value
from backstay.kubedata.outcome import GroupProof, KeyProof, shown
from backstay.kubedata.resource import ANY, path_segment
from backstay.mvcc.snapshot import Snapshot

#: Values that are tried in each group, unless all are.
SAMPLE = 64


def prove_keys(
    snapshot: Snapshot,
    configurations: Sequence[EncryptionConfiguration],
    *,
    prove_all: bool = False,
    sample: int = SAMPLE,
) -> KeyProof:
    """Try keys on the encrypted values that a snapshot holds at its revision.

    Args:
        snapshot: an open snapshot.
        configurations: what is known of each API server's keys.
        prove_all: try every value.
        sample: else at most so many of each group, spread evenly over the order in which they
            were written, the first and the last among them; at least 1.

    Raises:
        DamagedError: the snapshot's bucket `key` is damaged.
    """
    colons = colon_names(configurations)
    inventory = take_inventory(
        snapshot,
        lambda prefix, resource: any(
            configuration.encrypts(prefix, resource) for configuration in configurations
        ),
        words=_words(configurations),
        colon_names=colons,
    )
    prover = _Prover(snapshot, configurations, colons)
    return KeyProof(
        tuple(
            prover.prove(group, stored, len(stored) if prove_all else max(sample, 1))
            for group, stored in sorted(inventory.groups.items())
        )
    )


def _words(configurations: Sequence[EncryptionConfiguration]) -> set[bytes] | None:
    """What the etcd keys of encrypted resources have in them; None where they can be any."""
    resources = {
        resource
        for configuration in configurations
        for rule in configuration.rules
        for resource in rule.resources
        if rule.providers[0].kind != IDENTITY
    }
    if any(resource.plural == ANY for resource in resources):
        return None
    return {path_segment(resource) for resource in resources}


def spread(count: int, sample: int) -> list[int]:
    """Choose indices below `count`: at most `sample`, evenly, the first and the last included."""
    if count <= sample:
        return list(range(count))
    if sample < 2:
        return [count - 1][:sample]
    return [index * (count - 1) // (sample - 1) for index in range(sample)]


@dataclass(frozen=True, slots=True)
class _Prover:
    snapshot: Snapshot
    configurations: Sequence[EncryptionConfiguration]
    colons: tuple[str, ...]

    def prove(self, group: Group, stored: Sequence[tuple[bytes, Place]], sample: int) -> GroupProof:
        providers = [
            provider
            for configuration in self.configurations
            for provider in configuration.providers(group.prefix, group.resource)
        ]
        secrets = keys_named(providers, group.provider, group.key_name)
        trial = Trial()
        if secrets or group.provider == IN_THE_CLEAR:
            chosen = [stored[index] for index in spread(len(stored), sample)]
            trial = self._try_all(secrets, chosen)
        verdict, reason = judge(group, trial, providers, self.configurations)
        return GroupProof(
            prefix=group.prefix,
            resource=str(group.resource),
            provider=group.provider,
            key_name=group.key_name,
            values=len(stored),
            tried=trial.tried,
            opened=trial.opened,
            verdict=verdict,
            reason=reason,
        )

    def _try_all(self, secrets: Sequence[bytes], stored: Sequence[tuple[bytes, Place]]) -> Trial:
        opened = 0
        failed = ""
        for key, place in stored:
            reason = self._try(secrets, key, read_value(self.snapshot, place))
            opened += not reason
            if reason and not failed:
                failed = f"{shown(key.decode('utf-8', 'backslashreplace'))}: {reason}"
        return Trial(len(stored), opened, failed)

    def _try(self, secrets: Sequence[bytes], key: bytes, value: bytes) -> str:
        """Open one value; why it can't be, or nothing where it can."""
        try:
            open_value(value, key, secrets, self.colons)
        except CheckFailedError as error:
            return error.what
        return ""
