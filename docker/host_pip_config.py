"""Where this machine's pip finds packages, for a build in a container.

    python docker/host_pip_config.py PIP_CONF ROOT

Writes pip's settings in force here, from files and environment alike, as one configuration file, and prints
the folders and files they name, one a line. The file expects each of them mounted under ROOT: /srv/wheels as
ROOT/srv/wheels. A machine behind a mirror, or with a folder of wheels, can so build the image as it installs
for itself.
"""

import ast
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHING = {  # settings that say where packages come from and how they are fetched
    *("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy"),
    *("cert", "client-cert", "timeout", "default-timeout", "retries"),
}
INDEXES = {"index-url", "extra-index-url"}


def settings_in_force(listing: str) -> dict[str, str]:
    """The fetching settings in what `pip config list` prints: lines like `global.cert='/etc/ca.pem'`.

    The environment wins over a command's own section, and that over the global one, as in pip itself.
    """
    found: dict[str, tuple[int, str]] = {}
    for line in listing.splitlines():
        key, equals, value = line.partition("=")
        section, _, name = key.rpartition(".")
        rank = {"global": 0, "install": 1, ":env:": 2}.get(section)
        if equals and rank is not None and name in FETCHING and rank >= found.get(name, (0, ""))[0]:
            found[name] = (rank, str(ast.literal_eval(value)))
    return {name: value for name, (_, value) in found.items()}


def moved(settings: dict[str, str], root: Path) -> tuple[dict[str, str], list[Path]]:
    """The settings with every path of this machine under `root`, and the paths to mount there."""
    paths: set[Path] = set()
    rewritten = {}
    for name, value in settings.items():
        words = []
        for word in value.split():
            path = _local_path(word)
            if path is not None:
                # The pages of an index link to files that may lie beside it and not in it.
                paths.add(path.parent if name in INDEXES and path.parent != Path("/") else path)
                word = word.replace(urlsplit(word).path, f"{root}{urlsplit(word).path}", 1)
            words.append(word)
        rewritten[name] = " ".join(words)
    return rewritten, sorted(paths)


def _local_path(word: str) -> Path | None:
    address = urlsplit(word)
    path = Path(unquote(address.path))
    return path if address.scheme in ("", "file") and path.is_absolute() and path.exists() else None


def main(configuration: Path, root: Path) -> None:
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    settings, paths = moved(settings_in_force(listing), root)
    lines = [f"{name} = {value}" for name, value in sorted(settings.items())]
    configuration.write_text("\n".join(["[global]", *lines]) + "\n", encoding="utf-8")
    for path in paths:
        print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
