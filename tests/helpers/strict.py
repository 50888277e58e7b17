"""JSON as other programs read it."""

import json


def strict_json(path):
    """The contents of a JSON file, which may not hold NaN or infinity."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
