"""Differentiable penalties on pathways, weights and flow, and what changes them over training."""
