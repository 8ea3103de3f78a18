"""`paellera train`: the recipes as commands. A recipe is a TOML file, a run a folder."""

from pathlib import Path
from typing import Annotated

import typer

from training.config import read_config

train_app = typer.Typer(no_args_is_help=True, help="Train the parts of a bundle, each from its recipe.")

ConfigFile = Annotated[
    Path, typer.Option("--config", metavar="FILE", help="The recipe, a TOML file.", show_default=False)
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")]

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Only try the recipe out: a few steps on drawn photos, without its data, and a caption.",
    ),
]
DryRunOutput = Annotated[
    Path | None,
    typer.Option("--output", metavar="DIR", help="With --dry-run: a new folder to keep the bundle in."),
]

# The recipes import torch; `paellera --help` must not wait for that, so each command imports its own.


@train_app.command()
def language(config: ConfigFile, resume: Resume = False) -> None:
    """The multilingual language model, from text alone.

    Example: paellera train language --config training/configs/language.toml
    """
    from training.language import LanguageRun, train_language

    train_language(read_config(config, LanguageRun), resume=resume)


@train_app.command()
def embedder(config: ConfigFile, resume: Resume = False) -> None:
    """The space that photos and captions share, by contrast.

    Example: paellera train embedder --config training/configs/embedder.toml
    """
    from training.embedder import EmbedderRun, train_embedder

    train_embedder(read_config(config, EmbedderRun), resume=resume)


@train_app.command()
def bridge(
    config: ConfigFile, resume: Resume = False, dry_run: DryRun = False, output: DryRunOutput = None
) -> None:
    """What leads from photo to language model, which stays frozen.

    \b
    Examples:
      paellera train bridge --config training/configs/bridge.toml
      paellera train bridge --config training/configs/bridge-gated.toml --dry-run
    """
    check_dry_run(dry_run, resume, output)
    from training.bridge import BridgeRun, train_bridge

    recipe = read_config(config, BridgeRun)
    if not dry_run:
        train_bridge(recipe, resume=resume)
        return
    from training.dry_run import dry_run_bridge

    typer.echo("\n".join(dry_run_bridge(recipe, output).lines()))


@train_app.command()
def matcher(
    config: ConfigFile, resume: Resume = False, dry_run: DryRun = False, output: DryRunOutput = None
) -> None:
    """What tells whether a caption fits a photo.

    \b
    Examples:
      paellera train matcher --config training/configs/matcher.toml
      paellera train matcher --config training/configs/matcher-bottleneck.toml --dry-run
    """
    check_dry_run(dry_run, resume, output)
    from training.matcher import MatcherRun, train_matcher

    recipe = read_config(config, MatcherRun)
    if not dry_run:
        train_matcher(recipe, resume=resume)
        return
    from training.dry_run import dry_run_matcher

    typer.echo("\n".join(dry_run_matcher(recipe, output).lines()))


def check_dry_run(dry_run: bool, resume: bool, output: Path | None) -> None:
    """Raise typer.BadParameter for options that have no meaning together."""
    if dry_run and resume:
        raise typer.BadParameter("a dry run begins anew: leave --resume out", param_hint="--dry-run")
    if output is not None and not dry_run:
        raise typer.BadParameter(
            "only a dry run takes it: a recipe names its own folder", param_hint="--output"
        )
