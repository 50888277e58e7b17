# All kernels, in the order in which they build on each other. setup.py has this file translated once, and compiled
# into one module per instruction set, each with its compiler flags.

include "constants.pxi"
include "tiles.pxi"
include "barrier.pxi"
include "prefetch.pxi"
include "words.pxi"
include "randomness.pxi"
include "activation.pxi"
include "sparse.pxi"

from cython.parallel cimport parallel, prange, threadid
from libc.string cimport memset

include "patches.pyx"
include "whitening.pyx"
include "convolution.pyx"
include "update.pyx"
include "dense.pyx"
include "softmax.pyx"
include "plan.pxi"
include "dropout.pxi"
include "forward.pyx"
include "backward.pyx"
include "step.pyx"
include "training.pyx"
include "evaluation.pyx"
include "probe.pyx"
include "ladder.pyx"
