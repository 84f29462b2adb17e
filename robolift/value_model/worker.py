"""One of several training processes: ``python -m robolift.value_model.worker JOB``, started by torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

from robolift import logging, storage
from robolift.training.distributed import die_with_parent, reporting_errors
from robolift.value_model.recipe import Recipe
from robolift.value_model.train import Places, train_worker


def main(job: Path) -> None:
    """Train as ``job`` says: a JSON file with the recipe and the places."""
    die_with_parent()
    logging.configure()
    with reporting_errors():
        document = storage.read_json(str(job))
        train_worker(Recipe.model_validate(document["recipe"]), Places(**document["places"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
