"""Rolls: what many deltas together cover, so that a timeline of months is a few requests.

    rolls/CLUSTER/LINEAGE/BEGIN-END-FIRST-LAST-COUNT-BYTES-RAND.json

A recorder that seals every ten seconds makes 8,640 deltas a day, and a LIST names a thousand. A
roll stands for a run of them without a hole; its name says all that a timeline wants to know, its
content names them. So a month is one LIST of rolls, and one of the deltas after the last of them.

Rolls are made from what is listed, by whoever records: `roll_up` at the start and now and then. A
roll decides nothing: what is restored is planned from the deltas themselves. Whoever deletes a
delta deletes the rolls that name it first. Source: docs/formats.md.
"""

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from backstay import __version__
from backstay.errors import FormatError, NotFoundError
from backstay.mvcc.delta import Position
from backstay.repo.catalogue import Repository
from backstay.repo.delta import StoredDelta, list_from
from backstay.repo.deltaname import LINEAGE, delta_of, deltas_of, parse_file, position
from backstay.repo.document import FORMAT, MAX_SIZE, decode, encode
from backstay.repo.manifest import Short, Text
from backstay.repo.name import check_cluster

#: So many deltas make a roll.
ROLL = 1000
_POSITION = r"([0-7][0-9a-f]{15})\.([0-9a-f]{8})"
_NAME = re.compile(
    rf"{_POSITION}-{_POSITION}-([0-9a-f]{{9}})-([0-9a-f]{{9}})-([0-9a-f]{{1,8}})-([0-9a-f]{{1,15}})"
    r"-[0-9a-f]{8}\.json"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A range of a lineage's history that is recorded without a hole.

    Attributes:
        lineage: of which life.
        begin: the position of the first change.
        end: the position after the last.
        first: no time of it is before this second since 1970.
        last: none is after this one.
        deltas: how many it is in.
        stored_size: bytes that these take.
    """

    lineage: str
    begin: Position
    end: Position
    first: int
    last: int
    deltas: int = 1
    stored_size: int = 0

    def joined(self, other: "Stretch") -> "Stretch":
        """Give both as one; `other` begins no earlier, and no later than this one ends."""
        return Stretch(
            lineage=self.lineage,
            begin=self.begin,
            end=max(self.end, other.end),
            first=min(self.first, other.first),
            last=max(self.last, other.last),
            deltas=self.deltas + other.deltas,
            stored_size=self.stored_size + other.stored_size,
        )


class Roll(msgspec.Struct, frozen=True, kw_only=True):
    """What a roll names, and how many bytes each takes in the store."""

    format: Annotated[int, Meta(ge=1)] = FORMAT
    requires: tuple[Short, ...] = ()
    cluster: Short
    lineage: Short
    deltas: Annotated[tuple[tuple[Text, int], ...], Meta(min_length=1, max_length=1 << 16)]
    backstay_version: Short = __version__


def rolls_of(cluster: str, lineage: str = "") -> str:
    """Prefix of the rolls of a cluster, or of one of its lineages."""
    return f"rolls/{check_cluster(cluster)}/" + (f"{lineage}/" if lineage else "")


def stretch_of(stored: StoredDelta) -> Stretch:
    """Give what one delta covers."""
    name = stored.name
    return Stretch(
        lineage=stored.lineage,
        begin=name.begin,
        end=name.end,
        first=name.first,
        last=name.last,
        stored_size=stored.stored_size,
    )


def join(stretches: Iterable[Stretch]) -> Iterator[Stretch]:
    """Join what touches or overlaps; stretches of one lineage, in the order of where they begin."""
    whole: Stretch | None = None
    for stretch in stretches:
        if whole is not None and stretch.begin <= whole.end:
            whole = whole.joined(stretch)
            continue
        if whole is not None:
            yield whole
        whole = stretch
    if whole is not None:
        yield whole


def recorded(
    repository: Repository, cluster: str, lineages: Iterable[str] = ()
) -> dict[str, tuple[Stretch, ...]]:
    """Say what is recorded of a cluster, without reading any delta.

    It takes one LIST for a thousand rolls, and for each lineage one for the deltas that no roll
    names yet.

    Args:
        repository: where it lies.
        cluster: whose.
        lineages: lives that may have deltas without any roll: those that the manifests name.

    Returns:
        For each lineage what it has, in order, without overlaps.

    Raises:
        StoreError: the store refuses.
    """
    found: dict[str, list[Stretch]] = {lineage: [] for lineage in lineages}
    for stretch in _rolls(repository, cluster):
        found.setdefault(stretch.lineage, []).append(stretch)
    whole = {}
    for lineage, rolled in found.items():
        fresh = map(stretch_of, _fresh(repository, cluster, lineage, rolled))
        ordered = sorted([*rolled, *fresh], key=lambda one: (one.begin, one.end))
        whole[lineage] = tuple(join(ordered))
    return whole


def begin_before(repository: Repository, cluster: str, lineage: str, second: float) -> Position:
    """Give a position before which no delta matters for a time; from one LIST of rolls.

    Args:
        repository: where they lie.
        cluster: whose.
        lineage: of which life.
        second: the time, in seconds since 1970.
    """
    rolls = _rolls(repository, cluster, lineage)
    return max((one.begin for one in rolls if one.first <= second), default=Position(0))


def _rolls(repository: Repository, cluster: str, lineage: str = "") -> Iterator[Stretch]:
    for info in repository.store.list(rolls_of(cluster, lineage)):
        *_, life, last = info.path.split("/")
        name = _NAME.fullmatch(last)
        if name is None or not LINEAGE.fullmatch(life):
            continue
        numbers = [int(word, 16) for word in name.groups()]
        begin, end = Position(*numbers[:2]), Position(*numbers[2:4])
        first, final, deltas, size = numbers[4:]
        yield Stretch(
            lineage=life,
            begin=begin,
            end=end,
            first=first,
            last=final,
            deltas=deltas,
            stored_size=size,
        )


def roll_up(repository: Repository, cluster: str, lineage: str, *, least: int = ROLL) -> int:
    """Make rolls of deltas that none names yet.

    Args:
        repository: where they lie.
        cluster: whose.
        lineage: of which life.
        least: how many deltas without a hole are worth a roll. What a hole ends is rolled anyhow:
            no more comes to it.

    Returns:
        How many rolls were made.

    Raises:
        StoreError: the store refuses.
    """
    made = 0
    run: list[StoredDelta] = []
    reach = Position(0)
    for stored in _fresh(repository, cluster, lineage, _rolls(repository, cluster, lineage)):
        if run and (stored.begin > reach or len(run) >= ROLL):
            _write(repository, run)
            made += 1
            run = []
        run.append(stored)
        reach = max(reach, stored.end)
    if len(run) >= least:
        _write(repository, run)
        made += 1
    return made


def _fresh(
    repository: Repository, cluster: str, lineage: str, rolled: Iterable[Stretch]
) -> Iterator[StoredDelta]:
    """List the deltas after the last roll: later ones, and those that say that nothing came."""
    end, last, begin = max(
        ((one.end, one.last, one.begin) for one in rolled),
        default=(Position(0), -1, Position(0)),
    )
    for stored in list_from(repository, cluster, lineage, begin):
        if (stored.end, stored.name.last) > (end, last):
            yield stored


def take_out(
    repository: Repository,
    cluster: str,
    lineage: str,
    going: Sequence[StoredDelta],
    staying: Sequence[StoredDelta],
) -> None:
    """Delete the rolls that name deltas which are about to go.

    What else such a roll names gets a roll of its own first: later rolls begin after the last.

    Args:
        repository: where they lie.
        cluster: whose.
        lineage: of which life.
        going: the deltas that are about to go, at least one.
        staying: all others of the lineage, in the order of where they begin.

    Raises:
        FormatError: a roll can't be read, so what it names is not known.
        StoreError: the store refuses.
    """
    store = repository.store
    # By the delta, not by the file: it may have been sealed anew since it was rolled.
    gone = {str(delta.name) for delta in going}
    reach = max(delta.end for delta in going)
    paths = [info.path for info in store.list(rolls_of(cluster, lineage))]
    for path in paths:
        name = _NAME.fullmatch(_last(path))
        if name is None or Position(int(name[1], 16), int(name[2], 16)) > reach:
            continue
        try:
            named = {delta_of(name) for name, _ in read_roll(repository, path).deltas}
        except NotFoundError:  # another prune was faster
            continue
        if named & gone:
            _replace(repository, path, [one for one in staying if str(one.name) in named], paths)


def suspects(
    repository: Repository,
    cluster: str | None,
    listed: Mapping[tuple[str, str], Sequence[StoredDelta]],
) -> list[str]:
    """Find rolls that say more than is listed; from one LIST of rolls.

    A list that left a roll out, while what it names was removed, leaves such a one behind.

    Args:
        repository: where they lie.
        cluster: whose; None: of all.
        listed: all deltas that are listed, by cluster and lineage.
    """
    found = []
    for info in repository.store.list("rolls/" if cluster is None else rolls_of(cluster)):
        name = _NAME.fullmatch(_last(info.path))
        if name is None:
            continue
        _, whose, lineage, _ = info.path.split("/")
        numbers = [int(word, 16) for word in name.groups()]
        begin, end = Position(*numbers[:2]), Position(*numbers[2:4])
        deltas = listed.get((whose, lineage), ())
        if sum(begin <= delta.begin and delta.end <= end for delta in deltas) < numbers[6]:
            found.append(info.path)
    return found


def mend(
    repository: Repository, path: str, listed: Mapping[tuple[str, str], Sequence[StoredDelta]]
) -> bool:
    """Make a roll anew that names deltas which are not there any more.

    Args:
        repository: where it lies.
        path: of the roll.
        listed: as `suspects` takes them, each lineage's in the order of where they begin.

    Returns:
        Whether it was made anew; not where all that it names is there after all.

    Raises:
        FormatError: it can't be read.
        StoreError: the store refuses.
    """
    try:
        roll = read_roll(repository, path)
    except NotFoundError:
        return False
    named = {delta_of(name): name for name, _ in roll.deltas}
    deltas = listed.get((roll.cluster, roll.lineage), ())
    staying = [delta for delta in deltas if str(delta.name) in named]
    missing = named.keys() - {str(delta.name) for delta in staying}
    # A list that lacks them is no proof that they are gone.
    if not missing or any(_is_there(repository, roll, named[name]) for name in missing):
        return False
    others = repository.store.list(rolls_of(roll.cluster, roll.lineage))
    _replace(repository, path, staying, [info.path for info in others])
    return True


def _replace(
    repository: Repository, path: str, staying: Sequence[StoredDelta], paths: Sequence[str]
) -> None:
    """Delete a roll, when what stays of what it names is in others."""
    for run in _runs(staying):
        # Whoever was killed, or whose store did not delete the old one, may have written it before.
        if not any(_last(other).startswith(_figures(run)) for other in paths):
            _write(repository, run)
    repository.store.delete(path)


def _is_there(repository: Repository, roll: Roll, name: str) -> bool:
    """Whether what a roll names is there, or another copy of that delta."""
    if repository.is_there(f"{deltas_of(roll.cluster, roll.lineage)}{name}"):
        return True
    delta = parse_file(name)
    if delta is None:
        return False
    for found in list_from(repository, roll.cluster, roll.lineage, delta[0].begin):
        if found.name >= delta[0]:
            return found.name == delta[0]
    return False


def _runs(deltas: Iterable[StoredDelta]) -> Iterator[list[StoredDelta]]:
    """Split deltas where there is a hole between them."""
    run: list[StoredDelta] = []
    reach = Position(0)
    for stored in deltas:
        if run and stored.begin > reach:
            yield run
            run = []
        run.append(stored)
        reach = max(reach, stored.end)
    if run:
        yield run


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _figures(run: Sequence[StoredDelta]) -> str:
    """What the name of a roll says of a run of deltas without a hole."""
    (whole,) = join(stretch_of(stored) for stored in run)
    return (
        f"{position(whole.begin)}-{position(whole.end)}-{whole.first:09x}-{whole.last:09x}"
        f"-{whole.deltas:x}-{whole.stored_size:x}-"
    )


def _write(repository: Repository, run: Sequence[StoredDelta]) -> None:
    first = run[0]
    document = Roll(
        cluster=first.cluster,
        lineage=first.lineage,
        deltas=tuple((_last(stored.path), stored.stored_size) for stored in run),
    )
    name = f"{_figures(run)}{secrets.token_hex(4)}.json"
    path = f"{rolls_of(first.cluster, first.lineage)}{name}"
    # One that can't be read would keep what it names from being pruned.
    repository.put(path, encode(document), "so there is no roll")


def read_roll(repository: Repository, path: str) -> Roll:
    """Read a roll: which deltas it names.

    Raises:
        FormatError: it is none, is too new, or is of another place.
        NotFoundError: it is gone.
    """
    roll = decode(repository.store.read(path, MAX_SIZE), Roll, path)
    if not path.startswith(rolls_of(roll.cluster, roll.lineage)):
        raise FormatError(f"{path} is a roll of {roll.cluster}, lineage {roll.lineage}")
    return roll
