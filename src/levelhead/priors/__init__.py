"""Priors over weights: densities of single weights, the correlated one of first layers, and the term they make."""
