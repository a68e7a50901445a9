"""Experiments: nothing here is needed to make or to check the shipped models. EXPERIMENTS.md in `models/` has the results."""
