"""Runs LeRobot's RA-BC weighting on a table of progress; started with the interpreter of .venv-oracle.

    lerobot_rabc.py PROGRESS.parquet CHUNK_SIZE NUM_FRAMES OUT.npy    the weight of every frame, in one batch

This is how LeRobot 0.4.4 reads the file; 0.6.1 and 0.6.2 (``lerobot.rewards.sarm.rabc``), which need Python 3.12, have
the same code but for the names in its statistics.
"""

import sys

import numpy as np
import torch
from lerobot.utils.rabc import RABCWeights

if __name__ == "__main__":
    path, chunk_size, num_frames, out = sys.argv[1:]
    weights = RABCWeights(path, chunk_size=int(chunk_size), device=torch.device("cpu"))
    found, _ = weights.compute_batch_weights({"index": torch.arange(int(num_frames))})
    np.save(out, found.numpy())
