"""Caches a computed value in a file."""

import pickle


def cached(path, make):
    """The value of `make()`, read from `path` if it was computed before."""
    if not path.exists():
        partial = path.with_suffix(".part")
        partial.write_bytes(pickle.dumps(make()))
        partial.replace(path)
    return pickle.loads(path.read_bytes())
