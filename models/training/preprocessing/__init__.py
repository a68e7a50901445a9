"""From frames and audio to network inputs: the same arithmetic as in affectd's Rust code. `fixtures.py` keeps both equal."""
