"""Ensembles of networks, trained as one batch."""
