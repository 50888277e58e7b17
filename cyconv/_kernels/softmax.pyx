# Softmax and cross-entropy, on blocks of rows.
#
# What is computed, for logits s, target probabilities t and K classes
#   p = exp(s - max s) / sum exp(s - max s);   loss = log(sum exp(s - max s)) * sum t - sum t*(s - max s)
#   d loss / d s = p - t, here divided by the batch size
#   Smoothed labels: t = 1 - eps for the true class, eps/(K - 1) for each other. Weighted images: instead of being
#   divided by the batch size, an image's gradient is multiplied by its weight; the weights of a batch sum to 1.
#
# Layout
#   Rows of K logits, `ld` apart, ld a multiple of PAD: the exponentials of a row are taken all at once.
#   Losses are double. NaN and infinity pass through: no comparison may swallow them.
#
# Order of sums
#   The exponentials of a row are added in double, class by class, all but the largest one: it is 1, and beside it the
#   others would lose their digits. The loss takes log1p of them.

from libc.math cimport log1p, rint, rintf

cdef extern from *:
    """
    #include <string.h>
    static inline float cy_power_of_two_float(int n)   /* -126 <= n <= 127 */
    { uint32_t u = (uint32_t)(n + 127) << 23; float f; memcpy(&f, &u, 4); return f; }
    static inline double cy_power_of_two_double(int n) /* -1022 <= n <= 1023 */
    { uint64_t u = (uint64_t)(n + 1023) << 52; double d; memcpy(&d, &u, 8); return d; }
    """
    float power_of_two_float "cy_power_of_two_float"(int) noexcept nogil
    double power_of_two_double "cy_power_of_two_double"(int) noexcept nogil


cdef inline float exp_float(float x) noexcept nogil:
    """exp for x <= 0, about 1 ulp: range reduction by log 2 in two parts, then a polynomial (Cephes)"""
    cdef float n, r, p
    x = -87 if x < -87 else x
    n = rintf(x*<float>1.44269504088896341)
    r = x - n*<float>0.693359375
    r = r + n*<float>2.12194440e-4
    p = <float>1.9875691500e-4
    p = p*r + <float>1.3981999507e-3
    p = p*r + <float>8.3334519073e-3
    p = p*r + <float>4.1665795894e-2
    p = p*r + <float>1.6666665459e-1
    p = p*r + <float>5.0000001201e-1
    p = p*r*r + r + 1
    return p*power_of_two_float(<int>(n if n > -126 else -126))


cdef inline double exp_double(double x) noexcept nogil:
    """exp for x <= 0, about 1 ulp: as exp_float, with the Taylor polynomial of degree 13"""
    cdef double n, r, p
    x = -708 if x < -708 else x
    n = rint(x*1.4426950408889634074)
    r = x - n*6.93145751953125e-1
    r = r - n*1.42860682030941723212e-6
    p = 1.0/6227020800.0
    p = p*r + 1.0/479001600.0
    p = p*r + 1.0/39916800.0
    p = p*r + 1.0/3628800.0
    p = p*r + 1.0/362880.0
    p = p*r + 1.0/40320.0
    p = p*r + 1.0/5040.0
    p = p*r + 1.0/720.0
    p = p*r + 1.0/120.0
    p = p*r + 1.0/24.0
    p = p*r + 1.0/6.0
    p = p*r + 0.5
    p = p*r + 1
    p = p*r + 1
    return p*power_of_two_double(<int>(n if n > -1022 else -1022))


cdef struct Targets:
    const int* labels               # class of each stored image, or NULL
    const void* probabilities       # or of each its K, in the dtype of the computation, or NULL; or neither
    double on, off                  # smoothed probabilities of the true class and of each other


cdef Targets targets_of(const int[::1] labels, const real[:, ::1] soft, double on, double off):
    cdef Targets targets
    targets.labels = NULL if labels is None else &labels[0]
    targets.probabilities = NULL if soft is None else &soft[0, 0]
    targets.on = on
    targets.off = off
    return targets


cdef void softmax_rows(idx n, idx n_classes, idx ld, real* z, const Targets* targets, const long long* images,
                       idx first, double* losses, int* correct) noexcept nogil:
    """Logits become probabilities. Row i is position first + i of the batch and, in the store, image images[i]
    (or first + i where `images` is NULL). Losses and hits are written where there are targets."""
    cdef idx i, k, image, label, best
    cdef real top, total
    cdef double fit, mass, others
    cdef real* row
    cdef const real* soft
    for i in range(n):
        row = z + i*ld
        top = row[0]
        best = label = 0
        image = images[i] if images != NULL else first + i
        for k in range(1, n_classes):
            if row[k] > top:
                top = row[k]
                best = k
        if targets.labels != NULL:
            label = targets.labels[image]
            correct[i] = best == label
        elif targets.probabilities != NULL:
            soft = <const real*>targets.probabilities + image*n_classes
            for k in range(1, n_classes):
                if soft[k] > soft[label]:
                    label = k
            correct[i] = best == label
        for k in range(n_classes):
            row[k] -= top
        for k in range(n_classes, ld):
            row[k] = 0
        fit = 0
        mass = 1
        if targets.labels != NULL:
            if targets.off != 0:
                for k in range(n_classes):
                    fit += targets.off*row[k]
            fit += (targets.on - targets.off)*row[label]
        elif targets.probabilities != NULL:
            soft = <const real*>targets.probabilities + image*n_classes
            mass = 0
            for k in range(n_classes):
                fit += soft[k]*row[k]
                mass += soft[k]
        for k in range(ld):
            if real is float:
                row[k] = exp_float(row[k])
            else:
                row[k] = exp_double(row[k])
        others = row[best] - <real>1        # 0, or NaN
        for k in range(best):
            others += row[k]
        for k in range(best + 1, n_classes):
            others += row[k]
        if losses != NULL:
            losses[i] = mass*log1p(others) - fit
        total = <real>(1 + others)
        for k in range(n_classes):
            row[k] /= total
        for k in range(n_classes, ld):
            row[k] = 0


cdef void softmax_gradient_rows(idx n, idx n_classes, idx ld, const real* p, const Targets* targets,
                                const long long* images, idx first, double scale, const double* weights,
                                real* ds) noexcept nogil:
    """ds = scale*(p - t), or with weights ds = weights[first + i]*(p - t)"""
    cdef idx i, k, image, label
    cdef real factor = <real>scale, off = <real>targets.off, on = <real>targets.on
    cdef const real* soft
    for i in range(n):
        image = images[i] if images != NULL else first + i
        if weights != NULL:
            factor = <real>weights[first + i]
        if targets.labels != NULL:
            label = targets.labels[image]
            for k in range(n_classes):
                ds[i*ld + k] = factor*(p[i*ld + k] - off)
            ds[i*ld + label] = factor*(p[i*ld + label] - on)
        else:
            soft = <const real*>targets.probabilities + image*n_classes
            for k in range(n_classes):
                ds[i*ld + k] = factor*(p[i*ld + k] - soft[k])


def softmax_cross_entropy_forward(real[:, ::1] probabilities, idx n_classes, const int[::1] labels,
                                  const real[:, ::1] soft, double on, double off, double[::1] losses):
    """``probabilities`` (n, padded) holds the logits on entry."""
    cdef Targets targets = targets_of[real](labels, soft, on, off)
    cdef idx n = probabilities.shape[0], i
    cdef int hit
    with nogil:
        for i in range(n):
            softmax_rows(1, n_classes, probabilities.shape[1], &probabilities[i, 0], &targets, NULL, i, &losses[i],
                         &hit)


def softmax_cross_entropy_backward(const real[:, ::1] probabilities, idx n_classes, const int[::1] labels,
                                   const real[:, ::1] soft, double on, double off, const double[::1] weights,
                                   real[:, ::1] d_logits):
    """Gradient of the mean loss, or of the sum of the weighted losses, into ``d_logits`` of the padded shape."""
    cdef Targets targets = targets_of[real](labels, soft, on, off)
    cdef idx n = probabilities.shape[0]
    with nogil:
        softmax_gradient_rows(n, n_classes, probabilities.shape[1], &probabilities[0, 0], &targets, NULL, 0, 1.0/n,
                              NULL if weights is None else &weights[0], &d_logits[0, 0])
