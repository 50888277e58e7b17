# Activation: ReLU, forward and back, element by element. Another activation would take the place of these two.
#
# What is computed
#   relu_forward    h = max(0, x);  NaN stays NaN
#   relu_backward   dx = dh where h > 0, else 0
#
# Layout, order
#   One element each: the loops are the callers'. Both arguments of the way back are values, loaded before they are
#   compared, so that compilers select and do not branch.
#
# Ownership
#   None.

cdef inline real relu_forward(real x) noexcept nogil:
    return 0 if x < 0 else x


cdef inline real relu_backward(real h, real dh) noexcept nogil:
    return dh if h > 0 else 0
