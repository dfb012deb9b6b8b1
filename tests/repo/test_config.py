import json
from datetime import UTC, datetime

import pytest

from backstay.errors import FormatError, RefusedError, UsageError
from backstay.repo.config import Encryption, Role, check_pins, new_config, parse_config
from backstay.repo.document import encode
from backstay.repo.identity import generate

NOW = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)
ONE, TWO = sorted(generate(NOW)[1] for _ in range(2))


def test_a_configuration_comes_back():
    config = new_config(Role.DATA, [TWO, ONE], {"create_only": True}, NOW)
    assert config.recipients == (ONE, TWO)
    assert config.encryption is Encryption.AGE
    assert parse_config(encode(config), "c") == config


def test_promise_5_keys_never_lie_unencrypted():
    with pytest.raises(UsageError, match="always encrypted"):
        new_config(Role.KEYS, [], {}, NOW)
    assert new_config(Role.DATA, [], {}, NOW).encryption is Encryption.NONE


@pytest.mark.parametrize(
    "fields",
    [
        {"recipients": []},
        {"encryption": "none"},
        {"recipients": ["age1nobody"]},
        {"repository": "../x"},
        {"role": "both"},
    ],
    ids=str,
)
def test_promise_5_encryption_cannot_be_turned_off_by_changing_a_field(fields):
    document = json.loads(encode(new_config(Role.DATA, [ONE], {}, NOW))) | fields
    with pytest.raises(FormatError):
        parse_config(json.dumps(document).encode(), "c")


def test_promise_5_pinned_recipients_are_held():
    config = new_config(Role.DATA, [ONE], {}, NOW)
    check_pins(config, [], "r")
    check_pins(config, [ONE], "r")
    for pinned in ([TWO], [ONE, TWO]):
        with pytest.raises(RefusedError) as caught:
            check_pins(config, pinned, "r")
        assert ONE in str(caught.value)
        assert TWO in str(caught.value)
    open_one = new_config(Role.DATA, [], {}, NOW)
    with pytest.raises(RefusedError, match="nobody"):
        check_pins(open_one, [ONE], "r")
