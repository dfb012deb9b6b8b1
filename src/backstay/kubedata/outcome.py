"""What a key proof came to, for programs (JSON) and for people (one line).

Key names and etcd keys come from the snapshot; what can't be printed in them is escaped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from backstay.kubedata.cipher import KEY_SIZES
from backstay.kubedata.inventory import IN_THE_CLEAR, MALFORMED
from backstay.report import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupProof:
    """What is known of the values that one key should open.

    Attributes:
        prefix: etcd prefix, as `/kubernetes.io`.
        resource: the resource, as a configuration names it.
        provider: `aescbc`, `aesgcm`, `secretbox`, `kms`; `identity` for values in the clear.
        key_name: name of the key, or of the kms provider; empty where there is none.
        values: how many there are.
        tried: how many were opened on trial.
        opened: how many of these were Kubernetes objects that lie where they belong.
        verdict: PASS, FAIL or COULD NOT VERIFY.
        reason: why, in one line.
    """

    prefix: str
    resource: str
    provider: str
    key_name: str
    values: int
    tried: int
    opened: int
    verdict: Verdict
    reason: str

    def to_json(self) -> dict[str, str | int]:
        """Give all fields as JSON has them."""
        return {
            "prefix": self.prefix,
            "resource": self.resource,
            "provider": self.provider,
            "key_name": self.key_name,
            "values": self.values,
            "tried": self.tried,
            "opened": self.opened,
            "verdict": str(self.verdict),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class KeyProof:
    """A key proof.

    Attributes:
        groups: what came of each group of values, by prefix, resource and key.
    """

    groups: tuple[GroupProof, ...]

    @property
    def verdict(self) -> Verdict:
        """FAIL where one group failed; PASS only where all passed and there was one."""
        verdicts = {group.verdict for group in self.groups}
        if Verdict.FAIL in verdicts:
            return Verdict.FAIL
        if verdicts == {Verdict.PASS}:
            return Verdict.PASS
        return Verdict.COULD_NOT_VERIFY

    @property
    def summary(self) -> str:
        """One line: what there is, under which keys, and what came of trying them."""
        if not self.groups:
            return "no value is encrypted or should be, so there was nothing to try the keys on"
        resources: dict[tuple[str, str], list[GroupProof]] = {}
        for group in self.groups:
            resources.setdefault((group.prefix, group.resource), []).append(group)
        names = [resource for _, resource in resources]
        return "; ".join(
            _resource_line(groups, with_prefix=names.count(resource) > 1)
            for (_, resource), groups in resources.items()
        )

    def to_json(self) -> list[dict[str, str | int]]:
        """Give the groups as JSON has them."""
        return [group.to_json() for group in self.groups]


def _resource_line(groups: Sequence[GroupProof], *, with_prefix: bool) -> str:
    values = sum(group.values for group in groups)
    line = f"{values} {shown(groups[0].resource) or 'other keys'}"
    if with_prefix:
        line += f" below {shown(groups[0].prefix)}"
    # One name can be that of several providers' keys.
    full = len({group.provider for group in groups} - {IN_THE_CLEAR}) > 1
    if len(groups) == 1:
        line += f", all {_under(groups[0], full=full)}"
    else:
        line += ": " + ", ".join(f"{group.values} {_under(group, full=full)}" for group in groups)
    line += _tried(groups)
    reasons = [group.reason for group in groups if group.verdict is not Verdict.PASS]
    return "; ".join(dict.fromkeys([line, *reasons]))


def _under(group: GroupProof, *, full: bool) -> str:
    if group.provider == IN_THE_CLEAR:
        return "stored without encryption"
    if group.provider == MALFORMED:
        return "encrypted in an unknown way"
    provider = "" if group.provider in KEY_SIZES and not full else f"{group.provider} "
    return f"under {provider}{shown(group.key_name)}"


def _tried(groups: Sequence[GroupProof]) -> str:
    """The part about trying, which never says more than was tried."""
    sealed = [group for group in groups if group.provider != IN_THE_CLEAR]
    chosen = sealed or groups
    tried = sum(group.tried for group in chosen)
    opened = sum(group.opened for group in chosen)
    if not tried:
        return ""
    begin = "; of the encrypted ones " if 0 < len(sealed) < len(groups) else ", "
    how = "are readable"
    if sealed:
        how = "open with the saved keys" if len(sealed) > 1 else "open with the saved key"
    if opened < tried:
        return f"{begin}{opened} of {tried} tried {how}"
    every = tried == sum(group.values for group in chosen)
    return f"{begin}all {how}" if every else f"{begin}{tried} tried, all {how}"


def shown(name: str) -> str:
    """Make a name from a snapshot fit for a terminal."""
    return name if name.isprintable() else name.encode("unicode_escape").decode()
