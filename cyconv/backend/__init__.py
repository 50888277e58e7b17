"""Between NumPy and the compiled kernels.

`ops` holds the checked entry points of single kernels; `dispatch` chooses the
build for this processor; `layout` plans where a network's numbers lie,
`memory` allocates them, and `threads` says how many threads work on them.
"""
