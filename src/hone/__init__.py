"""Hone: DeepSeek-R1's recipe end to end, from a base model to a reasoner."""

__version__ = "0.1.0"
