"""What a run leaves on disk: metrics, generations, checkpoints; every write whole or not at all."""
