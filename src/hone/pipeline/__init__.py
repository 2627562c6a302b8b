"""A recipe carried out: the stage graph, the manifest, run and resume."""
