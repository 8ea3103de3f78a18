"""`paellera keys`: who may use the service. The service reads the file anew whenever it changes."""

from pathlib import Path
from typing import Annotated

import typer

from app.commands.options import JsonOption

FileOption = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="The keys file. Default: PAELLERA_KEYS_FILE.")
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The key's name.")]

keys_app = typer.Typer(
    name="keys",
    help="Make, list and revoke the API keys of the service.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@keys_app.command()
def add(
    name: NameArgument,
    file: FileOption = None,
    per_minute: Annotated[
        int | None,
        typer.Option("--per-minute", metavar="N", min=1, help="Requests in a minute. Default: any number."),
    ] = None,
    per_day: Annotated[
        int | None,
        typer.Option("--per-day", metavar="N", min=1, help="Requests in a day. Default: any number."),
    ] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="Also for what changes the service, and its metrics.")
    ] = False,
) -> None:
    """Make a key and print it, this once; the file keeps a hash of it only.

    \b
    Examples:
      paellera keys add shop --file keys.json --per-minute 60 --per-day 5000
      paellera keys add operator --file keys.json --admin
    """
    from app.access.keys import new_key, read_keys, write_keys
    from retrieval.errors import InvalidRequestError

    path = _path(file)
    keys = read_keys(path).keys if path.exists() else ()
    token, key = new_key(name, admin=admin, per_minute=per_minute, per_day=per_day)
    if name in {other.name for other in keys}:
        raise InvalidRequestError(
            f"there is a key named {name} in {path}: revoke it first, or take another name"
        )
    write_keys(path, (*keys, key))
    typer.echo(f"The key of {name} is in {path}. This is the only time that it is shown:", err=True)
    typer.echo(token)


@keys_app.command("list")
def list_keys(file: FileOption = None, as_json: JsonOption = False) -> None:
    """List the keys by name, with what they may do.

    \b
    Examples:
      paellera keys list --file keys.json
      paellera keys list --file keys.json --json
    """
    from app.access.keys import read_keys
    from app.commands.render import print_json

    keys = read_keys(_path(file)).keys
    if as_json:
        print_json({"keys": [key.model_dump(mode="json", exclude={"sha256"}) for key in keys]})
        return
    for key in keys:
        limits = [
            f"{limit} a {period}"
            for limit, period in ((key.per_minute, "minute"), (key.per_day, "day"))
            if limit
        ]
        kind = "admin" if key.admin else "captions"
        typer.echo(f"{key.name}  {kind}  {', '.join(limits) or 'no limit'}  since {key.created:%Y-%m-%d}")


@keys_app.command()
def revoke(name: NameArgument, file: FileOption = None) -> None:
    """Take a key away. A running service notices at its next request.

    \b
    Examples:
      paellera keys revoke shop --file keys.json
    """
    from app.access.keys import read_keys, write_keys
    from app.errors import KeysFileError

    path = _path(file)
    keys = read_keys(path).keys
    rest = [key for key in keys if key.name != name]
    if len(rest) == len(keys):
        raise KeysFileError(f"there is no key named {name} in {path}")
    write_keys(path, rest)
    typer.echo(f"{name} is revoked; {len(rest)} left")


def _path(file: Path | None) -> Path:
    from app.settings import load_settings
    from retrieval.errors import InvalidRequestError

    path = file or load_settings().keys_file
    if path is None:
        raise InvalidRequestError("which keys file? Name it with --file, or set PAELLERA_KEYS_FILE")
    return path
