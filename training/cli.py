"""`paellera train`: the recipes as commands. A recipe is a TOML file, a run a folder."""

from pathlib import Path
from typing import Annotated

import typer

from training.config import read_config

train_app = typer.Typer(no_args_is_help=True, help="Train the parts of a bundle, each from its recipe.")

ConfigFile = Annotated[Path, typer.Option("--config", help="The recipe, a TOML file.", show_default=False)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")]

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
def bridge(config: ConfigFile, resume: Resume = False) -> None:
    """The cross-attention from photo to language model, which stays frozen.

    Example: paellera train bridge --config training/configs/bridge.toml
    """
    from training.bridge import BridgeRun, train_bridge

    train_bridge(read_config(config, BridgeRun), resume=resume)
