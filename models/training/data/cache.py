"""Caches a computed value in a file."""

import pickle


def cached(path, make):
    """The value of `make()`, read from `path` if it was computed before."""
    if not path.exists():
        path.write_bytes(pickle.dumps(make()))
    return pickle.loads(path.read_bytes())
