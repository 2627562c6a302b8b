"""Sampler and trainer in one process, over the same weights."""
