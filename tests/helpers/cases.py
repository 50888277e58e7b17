"""Tables of cases for pytest.mark.parametrize."""


def each(**values):
    """(name, value) for each of the values listed under a name."""
    return [(name, value) for name, listed in values.items() for value in listed]
