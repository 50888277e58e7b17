PAD: int
UNITS_PAD: int
TILE_ROWS: int
LINE_FLOATS: int
PANEL: int
ENTRY_BLOCK: int
MAX_BRANCHES: int
MAX_HIDDEN: int
MAX_BLOCK: int
DENSE_PANEL: int
DENSE_BIAS: int
PATCH_PANEL: int
PATCH_BIAS: int
FILTER_ROW: int
FILTER_BIAS: int
PURPOSE_INITIALISATION: int
PURPOSE_SHUFFLE: int
PURPOSE_AUGMENTATION: int
PURPOSE_DROPOUT: int
PURPOSE_SHAPES: int
PURPOSE_SEARCH: int

def instruction_sets() -> list[str]: ...
def openmp_version() -> int: ...
def openmp_max_threads() -> int: ...
def openmp_thread_limit() -> int: ...
def openmp_bound_processors() -> int: ...
def compiler() -> str: ...
def build_flags() -> str: ...
