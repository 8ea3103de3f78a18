"""`python -m datastore_build …`: as `paellera datastore build …`; its other commands may be named as well."""

import sys

import datastore_build.commands.changes  # noqa: F401  (its commands)
from datastore_build.cli import datastore_app


def main() -> None:
    arguments = sys.argv[1:]
    if arguments and arguments[0] not in ("build", "info", "add", "delete", "compact", "merge", "--help"):
        arguments = ["build", *arguments]
    datastore_app(arguments, prog_name="python -m datastore_build")


if __name__ == "__main__":
    main()
