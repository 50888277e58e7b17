# Constants that the kernels and Python share. They stand here alone: every module of the package that is compiled
# exports them, and Python reads them from `processor`, which is always loaded.

cpdef enum:
    PAD = 16            # rows are padded with zeros to a multiple of this many elements, and of any vector's lanes
    UNITS_PAD = 10      # weight matrices have a multiple of this many rows: a multiple of any tile's
    TILE_ROWS = 5       # rows of a tile, at most
    LINE_FLOATS = 16    # in a cache line
    PANEL = 160         # columns of a matrix of weights in one task, at most
    ENTRY_BLOCK = 10    # images that one iteration of an entry point's loop takes
    MAX_BRANCHES = 8    # filter sizes side by side
    MAX_HIDDEN = 8      # hidden layers
    MAX_BLOCK = 64      # images in a block of the training step

cpdef enum:             # kinds of tasks in phase two
    DENSE_PANEL = 0
    DENSE_BIAS = 1
    PATCH_PANEL = 2     # as DENSE_PANEL, for a patch-major branch
    PATCH_BIAS = 3
    FILTER_ROW = 4
    FILTER_BIAS = 5

cpdef enum:             # purposes of random numbers, which make their streams independent
    PURPOSE_INITIALISATION = 1
    PURPOSE_SHUFFLE = 2
    PURPOSE_AUGMENTATION = 3
    PURPOSE_DROPOUT = 4
    PURPOSE_SHAPES = 5
    PURPOSE_SEARCH = 6
