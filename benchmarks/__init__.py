"""Measurements, one program each."""
