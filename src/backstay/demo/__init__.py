"""The demonstration: the main job, in acts, on real servers."""
