"""Simulated episodes: Meta-World tasks, scripted experts, rendering, recording and closed-loop evaluation.

MuJoCo chooses its OpenGL library when it is imported, so nothing here is imported before
:func:`robolift.sim.graphics.select` ran in that process. The parent process imports neither MuJoCo nor Meta-World.
"""
