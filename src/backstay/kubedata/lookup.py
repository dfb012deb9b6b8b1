"""The newest value of a few keys that are known by name: found without reading all the others."""

from collections.abc import Collection

from backstay.mvcc.keyvalue import parse_keyvalue
from backstay.mvcc.revision import parse_revision
from backstay.mvcc.snapshot import Snapshot
from backstay.mvcc.wire import MalformedError

#: Bytes; etcd takes no larger values, unless told to.
_LIMIT = 2 << 20


def look_up(snapshot: Snapshot, keys: Collection[bytes]) -> dict[bytes, bytes]:
    """Read keys at the snapshot's revision; those that are not there are left out.

    Args:
        snapshot: an open snapshot.
        keys: a few.

    Raises:
        DamagedError: bucket `key` is damaged.
    """
    bucket = snapshot.bucket(b"key")
    found: dict[bytes, bytes] = {}
    if bucket is None:
        return found
    image = snapshot.bolt.image
    data = image.data
    for page in bucket.leaves():
        if not any(data.find(key, page.data, page.end) >= 0 for key in keys):
            continue
        for element in image.elements(page, bucket.owner):
            if element.end - element.value > _LIMIT:
                continue
            stored = data[element.value : element.end]
            if not any(key in stored for key in keys):
                continue
            revision = parse_revision(data[element.key : element.value])
            try:
                pair = parse_keyvalue(stored)
            except MalformedError as error:
                raise snapshot.damaged(
                    f"an element of bucket key is no KeyValue: {error}"
                ) from error
            if revision is None or pair.key not in keys:
                continue
            found.pop(pair.key, None)
            if not revision.tombstone:
                found[pair.key] = pair.value
    return found
