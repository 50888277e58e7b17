"""JSON as other programs read it."""

import json


def strict_json(path):
    """What a JSON file holds; NaN and infinity are none."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
