"""Benchmarks: what our work costs beside other ways of doing the same; ``make bench`` runs them, see RESULTS.md."""
