"""`paellera train`: the recipes as commands. A recipe is a TOML file, a run a folder."""

from pathlib import Path
from typing import Annotated

import typer

from training.config import read_config, read_settings

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
DryRunProcesses = Annotated[
    int,
    typer.Option(
        "--processes",
        metavar="N",
        min=1,
        max=8,
        help="With --dry-run of a recipe at size: how many train together.",
    ),
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
    config: ConfigFile,
    resume: Resume = False,
    dry_run: DryRun = False,
    output: DryRunOutput = None,
    processes: DryRunProcesses = 1,
) -> None:
    """What leads from photo to language model, which stays frozen.

    A recipe with a table [models] is one at size, for models of the Hub; `accelerate launch` runs it on
    several GPUs.

    \b
    Examples:
      paellera train bridge --config training/configs/bridge.toml
      paellera train bridge --config training/configs/bridge-gated.toml --dry-run
      paellera train bridge --config training/configs/paella.toml --dry-run --processes 2
    """
    check_dry_run(dry_run, resume, output)
    if "models" in read_settings(config):
        _bridge_at_size(config, resume, dry_run, output, processes)
        return
    if processes != 1:
        raise typer.BadParameter(
            "only the dry run of a recipe with [models] takes it", param_hint="--processes"
        )
    from training.bridge import BridgeRun, train_bridge

    recipe = read_config(config, BridgeRun)
    if not dry_run:
        train_bridge(recipe, resume=resume)
        return
    from training.dry_run import dry_run_bridge

    typer.echo("\n".join(dry_run_bridge(recipe, output).lines()))


def _bridge_at_size(config: Path, resume: bool, dry_run: bool, output: Path | None, processes: int) -> None:
    from training.at_size.bridge import HubBridgeRun, train_hub_bridge

    recipe = read_config(config, HubBridgeRun)
    if dry_run:
        from training.at_size.dry_run import dry_run_hub_bridge

        done = dry_run_hub_bridge(recipe, processes=processes, output=output)
        typer.echo("\n".join(done.lines()))
    elif processes != 1:
        raise typer.BadParameter(
            "only a dry run starts processes itself: use accelerate launch", param_hint="--processes"
        )
    else:
        from training.processes import leave_processes

        train_hub_bridge(recipe, resume=resume)
        leave_processes()


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
