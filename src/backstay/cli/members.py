"""What --members and --max-stall mean."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backstay.client.hashing import Budget


def budget(values: dict[str, Any]) -> "Budget | None":
    """Say how much may be asked of members; None: nothing.

    Args:
        values: of the command's options.
    """
    from backstay.client.hashing import Budget

    if values["members"] == "never":
        return None
    return Budget(stall=None if values["members"] == "always" else values["max_stall"])
