"""Kubernetes quantities, as `8Gi`: read strictly, exactly.

Source: k8s.io/apimachinery, pkg/api/resource (quantity.go, suffix.go): a signed decimal number and
a suffix (binary, decimal, or a decimal exponent). More than the API server takes is not taken here.
"""

import re
from decimal import ROUND_CEILING, Decimal

from backstay.errors import FormatError

_QUANTITY = re.compile(
    r"([+-]?)(\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d{1,2}|)",
    re.ASCII,
)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = "KMGTPE"
#: What a signed number of 64 bits can say.
_MOST = (1 << 63) - 1


def parse_quantity(value: object) -> int:
    """Read an amount of bytes, rounded up.

    Args:
        value: a text, or a number.

    Raises:
        FormatError: it is no quantity.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise FormatError("it is no quantity, as 8Gi is")
    # A number of YAML or JSON is read by its text, `1e+10` for one.
    text = value if isinstance(value, str) else repr(value + 0)
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise FormatError(f"{text[:40]!r} is no quantity, as 8Gi is")
    sign, digits, suffix = found.groups()
    if suffix.endswith("i"):
        factor = Decimal(1024) ** (_BINARY.index(suffix[0]) + 1)
    elif suffix in _DECIMAL:
        factor = Decimal(10) ** _DECIMAL[suffix]
    else:
        factor = Decimal(10) ** int(suffix[1:])
    number = int((Decimal(digits) * factor).to_integral_value(ROUND_CEILING))
    if number > _MOST:
        raise FormatError(f"{text[:40]!r} is more than a quantity can be")
    return -number if sign == "-" else number
