"""How long a training will take."""


def time_left(seconds, rounds):
    """The time that `rounds` more rounds of so many `seconds` take, as text such as "12 min left"."""
    left = seconds * rounds
    for unit, length in (("h", 3600), ("min", 60)):
        if left >= length:
            return f"{left / length:.1f} {unit} left"
    return f"{left:.0f} s left"
