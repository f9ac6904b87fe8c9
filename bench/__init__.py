"""Benchmarks of Forebay against the physical limit. Figures come from one run, side by side, on the same work."""
