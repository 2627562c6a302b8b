"""The arithmetic of the recipe: advantages, losses, packing. Plain arrays in, plain arrays out."""
