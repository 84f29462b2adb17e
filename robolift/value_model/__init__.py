"""The value model: what an observation is worth, as a distribution over returns in [-1, 0]."""
