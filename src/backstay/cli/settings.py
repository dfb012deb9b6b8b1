"""Settings from backstay.toml: defaults for options, nothing that an option can't say.

A key at the top is the default of the option of that name wherever a command has it; a
table named after a command (`[backup.etcd]`) speaks for that command alone. Order of
precedence: command line, environment, table of the command, top of the file.
"""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from backstay.errors import UsageError

PLACES = (
    Path("backstay.toml"),
    Path("~/.config/backstay/backstay.toml"),
    Path("/etc/backstay.toml"),
)
SIZE_LIMIT = 1 << 20

#: Options that may stand at the top of the file.
TOP = frozenset(
    {
        "repo",
        "recipient",
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
    }
)
GROUPS = frozenset({"backup", "preflight", "restore"})


def find_settings(named: str | None) -> dict[str, Any]:
    """Read the settings file.

    Args:
        named: the file that the user asked for; None looks at the usual places.

    Raises:
        UsageError: a named file is missing, or a file makes no sense.
    """
    if named is not None:
        return _read(Path(named))
    for place in PLACES:
        path = place.expanduser()
        if path.is_file():
            return _read(path)
    return {}


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT + 1)
        if len(data) > SIZE_LIMIT:
            raise UsageError(f"{path} has more than {SIZE_LIMIT} bytes", "is it the right file")
        settings = tomllib.loads(data.decode())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "name a settings file that exists") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}", "mend the file") from error
    _check_names(path, settings)
    return settings


def _check_names(path: Path, settings: Mapping[str, Any]) -> None:
    unknown = [
        name for name, value in settings.items() if not isinstance(value, dict) and name not in TOP
    ]
    if unknown:
        raise UsageError(
            f"{path}: unknown setting {unknown[0]!r}", f"known are {', '.join(sorted(TOP))}"
        )


def default_map(settings: Mapping[str, Any], commands: Iterable[str]) -> dict[str, Any]:
    """Turn settings into click's map of defaults, for every command."""
    top = {name: value for name, value in settings.items() if not isinstance(value, dict)}
    return {
        name: _defaults(top, settings.get(name, {}), deeper=name in GROUPS) for name in commands
    }


def _defaults(top: Mapping[str, Any], table: Mapping[str, Any], *, deeper: bool) -> dict[str, Any]:
    own = {name: value for name, value in table.items() if not isinstance(value, dict)}
    defaults: dict[str, Any] = {
        name.replace("-", "_"): value for name, value in {**top, **own}.items()
    }
    if deeper:
        for kind in ("etcd",):
            defaults[kind] = _defaults({**top, **own}, table.get(kind, {}), deeper=False)
    return defaults
