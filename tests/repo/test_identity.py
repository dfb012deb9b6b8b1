import re
import stat
from datetime import UTC, datetime

import pytest

from backstay.errors import AlreadyExistsError, BackstayError, FormatError, UsageError
from backstay.repo.identity import (
    Identities,
    check_recipient,
    check_recipients,
    generate,
    write_identity,
)

NOW = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)


def secret_of(text):
    return next(line for line in text.splitlines() if line.startswith("AGE-SECRET-KEY-"))


def test_the_file_is_like_the_one_of_age_keygen(tmp_path):
    text, recipient = generate(NOW)
    assert re.fullmatch(
        r"# created: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)\n"
        r"# public key: age1[a-z0-9]{58}\n"
        r"AGE-SECRET-KEY-1[A-Z0-9]{58}\n",
        text,
    )
    write_identity(tmp_path / "identity.txt", text)
    assert stat.S_IMODE((tmp_path / "identity.txt").stat().st_mode) == 0o600
    assert Identities.read(tmp_path / "identity.txt").recipients == (recipient,)


def test_promise_6_an_identity_is_never_overwritten(tmp_path):
    path = tmp_path / "identity.txt"
    path.write_text("the only key to everything")
    with pytest.raises(AlreadyExistsError):
        write_identity(path, generate(NOW)[0])
    assert path.read_text() == "the only key to everything"


def test_several_identities_and_comments():
    (one, first), (two, second) = generate(NOW), generate(NOW)
    found = Identities.parse(f"# mine\n\n{one}  \n{two}".encode(), "f")
    assert found.recipients == (first, second)


@pytest.mark.parametrize("data", [b"", b"# nothing\n", b"hello\n", b"\xff\xfe\n", b"AGE-SECRET-"])
def test_what_is_no_identity(data):
    with pytest.raises(FormatError, match="f"):
        Identities.parse(data, "f")


def test_promise_5_no_secret_is_shown(tmp_path):
    text, _ = generate(NOW)
    secret = secret_of(text)
    assert secret not in repr(Identities.parse(text.encode(), "f"))
    broken = secret[:-1] + ("A" if secret[-1] != "A" else "Q")
    with pytest.raises(FormatError) as caught:
        Identities.parse(broken.encode(), "f")
    assert broken[20:40] not in str(caught.value)
    with pytest.raises(UsageError) as caught:
        check_recipient(secret)
    assert secret[16:40] not in str(caught.value)
    assert "new pair" in str(caught.value)
    with pytest.raises(UsageError) as caught:
        check_recipient(secret.lower())
    assert secret[16:40].lower() not in str(caught.value)
    (tmp_path / "large").write_bytes(b"#" * (2 << 20))
    with pytest.raises(BackstayError, match="more than"):
        Identities.read(tmp_path / "large")


def test_recipients_have_one_order_and_no_doubles():
    found = sorted(generate(NOW)[1] for _ in range(3))
    assert check_recipients([found[2], f" {found[0]} ", found[1], found[2]]) == tuple(found)


@pytest.mark.parametrize("text", ["", "age1", "age1qqqq", "ssh-ed25519 AAAA"])
def test_what_is_no_recipient(text):
    with pytest.raises(UsageError, match="no age recipient"):
        check_recipient(text)
