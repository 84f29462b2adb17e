"""From outcomes and values to labels: pure functions of NumPy arrays.

Frames of all episodes lie in one array, episode after episode; ``starts`` of shape (E + 1,) holds the offset of each
episode's first frame and, last, the number of frames F. Nothing here reads a file, and no result depends on how
episodes were sharded or in which order they lie.
"""
