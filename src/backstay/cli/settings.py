"""Settings from backstay.toml: defaults for options, nothing that an option can't say.

A key at the top is the default of the option of that name wherever a command has it; a
table named after a command (`[backup.etcd]`) speaks for that command alone. Order of
precedence: command line, environment, table of the command, top of the file.

A setting that is misspelt, or of another type than its option, is an error: a pinned recipient
that is passed over would be worse than none.
"""

import os
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from backstay.errors import BackstayError, RefusedError, UsageError
from backstay.files import explained, is_there, read_private

PLACES = (
    Path("backstay.toml"),
    Path("~/.config/backstay/backstay.toml"),
    Path("/etc/backstay.toml"),
)
SIZE_LIMIT = 64 << 10

#: Options that may stand at the top of the file.
TOP = frozenset(
    {
        "repo",
        "keys-repo",
        "recipient",
        "keys-recipient",
        "identity",
        "cluster",
        "spool-dir",
        "s3-endpoint",
        "s3-region",
        "s3-virtual-hosted",
        "allow-http",
        "ca-bundle",
        "endpoints",
        "cacert",
        "cert",
        "key",
        "user",
        "password-file",
        "server-name",
        "dial-timeout",
        "command-timeout",
        "level",
        "threads",
        "etcd",
        "etcdutl",
        "log-format",
        "metrics-file",
    }
)

Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """A settings file.

    Attributes:
        path: where it is.
        table: what it says.
    """

    path: Path
    table: Table

    def defaults_of(
        self, name: str, command: click.Command, commands: Collection[str]
    ) -> dict[str, Any]:
        """Turn the settings into click's map of defaults for one command.

        Args:
            name: of the command.
            command: what it takes.
            commands: the names of all commands.

        Raises:
            UsageError: a setting is unknown, or of the wrong type.
        """
        top = {key: value for key, value in self.table.items() if not isinstance(value, dict)}
        self._check_known("setting", top, TOP)
        self._check_known("table", self.table.keys() - top.keys(), commands)
        return self._defaults(top, self.table.get(name, {}), command, name)

    def _defaults(
        self, top: Table, table: Table, command: click.Command, name: str
    ) -> dict[str, Any]:
        """Look at one table, and at those of the kinds below it."""
        kinds = command.commands if isinstance(command, click.Group) else {}
        own = {key: value for key, value in table.items() if key not in kinds}
        self._check_known(f"setting in [{name}]", own, dict(_options(command, deep=True)))
        values = {**top, **own}
        defaults: dict[str, Any] = {
            str(option.name): self._checked(key, values[key], option)
            for key, option in _options(command)
            if key in values
        }
        for kind, below in kinds.items():
            further = table.get(kind, {})
            if not isinstance(further, dict):
                raise self._wrong(f"{kind} in [{name}] must be a table", f"write [{name}.{kind}]")
            defaults[kind] = self._defaults(values, further, below, f"{name}.{kind}")
        return defaults

    def _check_known(self, what: str, keys: Iterable[str], known: Collection[str]) -> None:
        for key in keys:
            if key not in known:
                near = get_close_matches(key, known, n=1)
                hint = (
                    f"did you mean {near[0]}" if near else f"known are {', '.join(sorted(known))}"
                )
                raise self._wrong(f"unknown {what}: {key!r}", hint)

    def _checked(self, key: str, value: Any, option: click.Option) -> Any:
        """Hold a value to the type of its option."""
        if option.is_flag:
            wanted, right = "true or false", isinstance(value, bool)
        elif option.multiple:
            wanted = "a list of texts in quotes"
            right = isinstance(value, list) and all(isinstance(item, str) for item in value)
        elif isinstance(option.type, click.types.IntParamType):
            wanted = "a whole number"
            right = isinstance(value, int) and not isinstance(value, bool)
        else:
            wanted, right = "a text in quotes", isinstance(value, str)
        if not right:
            raise self._wrong(f"{key} must be {wanted}", "mend the file")
        return value

    def _wrong(self, what: str, do: str) -> UsageError:
        return UsageError(f"{self.path}: {what}", do)


def _options(command: click.Command, *, deep: bool = False) -> Iterator[tuple[str, click.Option]]:
    """Name the options of a command as people write them; with `deep` also those below it."""
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for word in parameter.opts:
                if word.startswith("--"):
                    yield word.removeprefix("--"), parameter
    if deep and isinstance(command, click.Group):
        for below in command.commands.values():
            yield from _options(below)


def find_settings(named: str | None) -> Settings | None:
    """Read the settings file; None where there is none.

    Args:
        named: the file that the user asked for; None looks at the usual places.

    Raises:
        UsageError: a file can't be read, or is no TOML.
        RefusedError: a file that was found belongs to another user: it names programs to run.
    """
    if named is not None:
        return _read(Path(named))
    for place in PLACES:
        path = _expanded(place)
        if path is not None and is_there(path):
            _check_owner(path)
            return _read(path)
    return None


def _expanded(place: Path) -> Path | None:
    try:
        return place.expanduser()
    except RuntimeError:  # a user without a home
        return None


def _check_owner(path: Path) -> None:
    with explained(path):
        owner = path.stat().st_uid
    if owner not in {0, os.geteuid()}:
        raise RefusedError(
            f"{path} belongs to another user, who could name programs to run in it",
            f"if you trust it, say so with --config {path}",
        )


def _read(path: Path) -> Settings:
    try:
        data = read_private(path, limit=SIZE_LIMIT)
    except BackstayError as error:
        raise UsageError(error.what, error.do or "name a settings file that can be read") from error
    try:
        return Settings(path, tomllib.loads(data.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        # What a decoder of bytes says would repeat some of them.
        why = str(error) if isinstance(error, tomllib.TOMLDecodeError) else type(error).__name__
        raise UsageError(f"{path} is no TOML: {why}", "mend the file") from error
