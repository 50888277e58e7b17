"""The layer between NumPy and the compiled kernels.

`ops` holds validated wrappers of single kernels, `dispatch` chooses the build
for this processor, `layout` plans the memory layout of a network, `memory`
allocates arrays, and `threads` determines the number of threads.
"""
