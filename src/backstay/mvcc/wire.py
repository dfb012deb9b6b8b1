"""The protobuf wire format, as far as etcd's stored messages use it.

etcd keeps a handful of flat messages in its file (KeyValue, Lease, AlarmMember). They are read by
hand here, with a bound on every number; generated classes would bring protobuf's runtime into
commands that only look at a file. What the fields mean is the callers' business.

Source: protobuf's encoding guide. Groups, which etcd does not use, are refused.
"""

from collections.abc import Iterator

VARINT = 0
FIXED64 = 1
BYTES = 2
FIXED32 = 5

_MAX_VARINT_BYTES = 10
#: Of a tag, and of a length: both have less than 32 bits.
_MAX_SIZE_BYTES = 5
_MAX_UINT64 = (1 << 64) - 1


class MalformedError(ValueError):
    """A message breaks the wire format; callers turn it into an error that names the place."""


def read_varint(data: bytes, offset: int) -> tuple[int, int]:
    """Read an unsigned 64-bit number; the number, and the offset after it.

    Raises:
        MalformedError: it is cut off, or too large.
    """
    value = shift = 0
    for index in range(offset, min(offset + _MAX_VARINT_BYTES, len(data))):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > _MAX_UINT64:
                raise MalformedError(f"the number at byte {offset} has more than 64 bits")
            return value, index + 1
        shift += 7
    raise MalformedError(f"the number at byte {offset} does not end")


def varint(value: int) -> bytes:
    """Write an unsigned 64-bit number; a negative one as the unsigned one with its bits."""
    value %= 1 << 64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def signed(value: int) -> int:
    """Take an unsigned 64-bit number as the signed one that has the same bits."""
    return value - (1 << 64) if value >> 63 else value


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Read the fields of a message in order: number, wire type, value.

    Raises:
        MalformedError: the bytes are no message.
    """
    offset = 0
    while offset < len(data):
        begin = offset
        tag, offset = read_varint(data, offset)
        number, kind = tag >> 3, tag & 7
        # Nobody writes a tag with zeros behind it, and not every reader takes it.
        if not 0 < number < 1 << 29 or offset - begin > _MAX_SIZE_BYTES:
            raise MalformedError(f"there is no field number {number}")
        value: int | bytes
        if kind == VARINT:
            value, offset = read_varint(data, offset)
        else:
            length, offset = _length(data, offset, kind)
            if length > len(data) - offset:
                raise MalformedError(
                    f"field {number} claims {length} bytes, and {len(data) - offset} are left"
                )
            value = data[offset : offset + length]
            offset += length
        yield number, kind, value


def _length(data: bytes, offset: int, kind: int) -> tuple[int, int]:
    if kind == BYTES:
        length, end = read_varint(data, offset)
        if end - offset > _MAX_SIZE_BYTES:
            raise MalformedError(f"the length at byte {offset} has zeros behind it")
        return length, end
    if kind == FIXED64:
        return 8, offset
    if kind == FIXED32:
        return 4, offset
    raise MalformedError(f"there is no wire type {kind}")


def numbers(data: bytes, names: dict[int, str]) -> dict[str, int]:
    """Read a message all of whose known fields are integers; those that are missing are 0.

    Args:
        data: the message.
        names: what to call each known field; others are passed over.

    Raises:
        MalformedError: the bytes are no such message.
    """
    found = dict.fromkeys(names.values(), 0)
    for number, kind, value in fields(data):
        if number in names:
            if kind != VARINT or not isinstance(value, int):
                raise MalformedError(f"field {number} has wire type {kind}, not {VARINT}")
            found[names[number]] = value
    return found
