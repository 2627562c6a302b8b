"""The stages of a recipe. Each runs from what is on disk, and goes on from its newest checkpoint when run again."""
