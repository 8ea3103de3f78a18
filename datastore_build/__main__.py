"""`python -m datastore_build …`: as `paellera datastore build …`; `build` and `info` may be named as well."""

import sys

from datastore_build.cli import datastore_app


def main() -> None:
    arguments = sys.argv[1:]
    if arguments and arguments[0] not in ("build", "info", "--help"):
        arguments = ["build", *arguments]
    datastore_app(arguments, prog_name="python -m datastore_build")


if __name__ == "__main__":
    main()
