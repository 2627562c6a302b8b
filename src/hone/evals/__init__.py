"""Evaluation that anyone can check again: outputs are stored once, and scored as often as one likes."""
