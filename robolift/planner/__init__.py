"""What training takes of a GPU's memory and of its time, by arithmetic alone: no JAX, no torch, no GPU.

A :class:`~robolift.planner.network.Network` says what a model is made of, :mod:`~robolift.planner.plan` lays it on a
number of GPUs, :mod:`~robolift.planner.advice` looks for what would fit, :mod:`~robolift.planner.cli` prints it.
"""
