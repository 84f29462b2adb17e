"""Robolift: labelled data and better policies from what robots recorded."""

import os

__version__ = "0.1.0"

# NumPy's BLAS adds floats in an order that depends on the number of its threads; with as many as there are cores the
# same inputs would give other bytes on another machine. It is read when NumPy is imported, which is after this line.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
