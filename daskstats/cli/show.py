"""The command ``show``: the newest image of a run that stores its state."""

import click
import numpy as np

from ..formats import outputs
from ..run.checkpoint import load_checkpoint
from .program import reported_errors
from .recording import notes_on_progress


def print_checkpoint(
    checkpoint: str, output: str | None, *, force: bool, verbose: int, traceback: bool
) -> None:
    """Print the progress of a run, and write its image, or its images, if there is an output."""
    with reported_errors(traceback) as stage:
        shot = load_checkpoint(checkpoint)
        click.echo(f"{shot.statistic}: {shot.done} of {shot.total} {shot.unit}")
        if output is None:
            return
        stage.compute()
        image, notes = shot.image, notes_on_progress(shot)
        if isinstance(image, np.ndarray):
            outputs.save(image, output, force, notes)
        else:
            outputs.save_all(image, output, force, notes=notes)
        click.echo(f"written to {output}")
