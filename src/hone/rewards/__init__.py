"""Verifiers and rewards. What a model wrote is parsed by small grammars here, and never evaluated."""
