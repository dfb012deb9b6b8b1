"""How steps look: numbered, each with the commands that it equals."""

from typing import TYPE_CHECKING

from backstay.cli.session import Session

if TYPE_CHECKING:
    from backstay.kinds.step import Step


def tell_steps(session: Session, steps: "tuple[Step, ...]") -> None:
    """Print what would be done; the commands can be copied."""
    for number, step in enumerate(steps, start=1):
        session.print(f"{number}. {step.title}")
        for command in step.commands:
            session.print(f"     {command}")


def answer_steps(steps: "tuple[Step, ...]") -> list[dict[str, object]]:
    """Give steps as JSON has them."""
    return [{"step": step.title, "commands": list(step.commands)} for step in steps]
