"""Robolift: labelled data and better policies from what robots recorded."""

import os

__version__ = "0.1.0"

# NumPy's BLAS adds floats in an order that depends on the number of its threads; with as many as there are cores the
# same inputs would give other bytes on another machine. It is read when NumPy is imported, which is after this line.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

# Pydantic looks for plugins in the metadata of every installed distribution before it makes its first class: a tenth of
# what a stage takes to start. We have none.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
