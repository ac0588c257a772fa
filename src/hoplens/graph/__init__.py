"""The network as a weighted directed graph: blocks, products, solves and radii."""
