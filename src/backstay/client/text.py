"""What a server said, made fit for one line of an error: short, printable, without secrets.

A server's words are its own: they may hold line ends, terminal codes, or our password.
"""

from collections.abc import Iterable

from backstay.client.secret import Secret

LIMIT = 300


def one_line(text: str, secrets: Iterable[Secret | None] = ()) -> str:
    """Replace secrets by stars and what is not printable by blanks; cut at `LIMIT` characters."""
    for secret in secrets:
        if secret is not None and secret.reveal():
            text = text.replace(secret.reveal(), "***")
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * LIMIT])
    words = " ".join(printable.split())
    return words if len(words) <= LIMIT else f"{words[:LIMIT]}..."
