"""The version of the installed distribution."""

from importlib.metadata import PackageNotFoundError, version


def paellera_version() -> str:
    try:
        return version("paellera")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0+unknown"
