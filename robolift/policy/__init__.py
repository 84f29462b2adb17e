"""JAX policies that act in chunks, conditioned on an advantage prompt: training, sampling, serving."""
