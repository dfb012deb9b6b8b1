"""A step of what is done for a kind of cluster, with the commands that it equals."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        title: what is done.
        commands: what a person would type for it.
    """

    title: str
    commands: tuple[str, ...] = ()
