"""Comparisons of many networks: statistics, sweeps, the studies, the search for smaller networks."""
