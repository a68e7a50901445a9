"""Experiments: nothing here is needed to make or to check the models that ship. EXPERIMENTS.md in `models/` has the results."""
