"""What `preflight` asks of an etcd: can members be reached, and are they fit?"""

from backstay.checks.question import Answer, failed, passed, unknown
from backstay.client.health import Choice

#: A file that fills so much of its quota is soon in trouble.
_FULL = 0.8


def members(choice: Choice, do: str = "name others with --endpoints, or mend these") -> Answer:
    """Is there a member to take a snapshot from, and can all be reached?

    Args:
        choice: what was heard of the members.
        do: what to do where none is fit.
    """
    if not choice.order:
        reasons = "; ".join(f"{o.member.title} {o.reason}" for o in choice.opinions)
        return failed(f"no member is fit: {reasons}; {do}")
    out = [o for o in choice.opinions if not o.usable]
    fit = f"{choice.order[0].endpoint} will be asked, {len(choice.order)} are fit"
    if out:
        reasons = "; ".join(f"{o.member.title} {o.reason}" for o in out)
        return unknown(f"{fit}, but {reasons}")
    return passed(fit)


def alarms(choice: Choice) -> Answer:
    """Does an alarm stand?"""
    standing = [(o.member.title, sorted(o.member.alarms)) for o in choice.opinions]
    told = [f"{title}: {', '.join(kinds)}" for title, kinds in standing if kinds]
    if told:
        return failed(
            f"{'; '.join(told)}; free space (compact, defragment), then `etcdctl alarm disarm`"
        )
    return passed("none stands")


def quota(choice: Choice, assumed: int | None) -> Answer:
    """Is there room below the quota, and how much of each file is free pages?

    Args:
        choice: what was heard of the members.
        assumed: bytes; the quota of members before 3.6, which don't tell it.
    """
    full, lines = False, []
    for opinion in choice.opinions:
        status = opinion.member.status
        limit = status and (status.quota or assumed)
        if status is None or not limit:
            continue
        share = status.db_size / limit
        free = 1 - status.db_size_in_use / status.db_size if status.db_size else 0.0
        full = full or share > _FULL
        lines.append(
            f"{opinion.member.title}: {status.db_size} bytes, {share:.0%} of its quota,"
            f" {free:.0%} free pages"
        )
    if not lines:
        return unknown("no member told its quota; give it with --quota")
    text = "; ".join(lines)
    if full:
        return failed(f"{text}; compact and defragment, or raise --quota-backend-bytes")
    return passed(text)
