# Whitening: each image is filtered so that its neighbouring pixels, and the channels, hardly correlate any more.
#
# What is computed, for one image
#   v[o, y, x] = bias[o] + sum over c, dy, dx of filters[o, c, dy, dx] * pixel[c, y + dy - r, x + dx - r],
#   with filters 2r+1 wide, one for each pair of channels, and the image continued by its outermost pixels;
#   out = v rounded to the nearest integer (to the even one of two), and cut to 0 ... 255.
#
# Order of sums
#   Any: filters and bias are multiples of a power of two such that every partial sum is exact in float32
#   (`cyconv.datasets.Whitening` sees to that), so that all processors give the same bytes.
#
# Layout and ownership
#   pixels and out are (N, C, H, W). Each thread has a row of `scratch`: the image with its borders as floats,
#   (C, H + 2r, W + 2r), and GROUP more, which the last pixels of a row read and do not use. Sums are in registers.

from libc.math cimport rintf


cdef void border_image(const unsigned char* pixels, idx channels, idx height, idx width, idx r,
                       float* bordered) noexcept nogil:
    """the image as floats, continued by its outermost pixels"""
    cdef idx c, y, x
    cdef const unsigned char* row
    for c in range(channels):
        for y in range(-r, height + r):
            row = pixels + (c*height + max(0, min(y, height - 1)))*width
            for x in range(r):
                bordered[x] = row[0]
                bordered[r + width + x] = row[width - 1]
            for x in range(width):
                bordered[r + x] = row[x]
            bordered += width + 2*r


cdef void whiten_image(const unsigned char* pixels, idx channels, idx height, idx width, idx side,
                       const float* filters, const float* bias, float* scratch, unsigned char* out) noexcept nogil:
    cdef idx o, y, g, start, c, dy, dx, x, rows = height + side - 1, ld = width + side - 1
    cdef float sums[GROUP]          # of neighbouring pixels, in registers
    cdef const float* source
    cdef const float* weights
    border_image(pixels, channels, height, width, side//2, scratch)
    for o in range(channels):
        for y in range(height):
            for g in range((width + GROUP - 1)//GROUP):
                start = g*GROUP
                for x in range(GROUP):
                    sums[x] = bias[o]
                weights = filters + o*channels*side*side
                for c in range(channels):
                    for dy in range(side):
                        source = scratch + (c*rows + y + dy)*ld + start
                        for dx in range(side):
                            for x in range(GROUP):
                                sums[x] += weights[dx]*source[dx + x]
                        weights += side
                for x in range(min(<idx>GROUP, width - start)):
                    out[start + x] = <unsigned char>max(<float>0, min(<float>255, rintf(sums[x])))
            out += width


def whiten(const unsigned char[:, :, :, ::1] pixels, const float[:, :, :, ::1] filters, const float[::1] bias,
           float[:, ::1] scratch, unsigned char[:, :, :, ::1] out, int n_threads):
    """Fill ``out`` with the whitened images."""
    cdef idx n = pixels.shape[0], channels = pixels.shape[1], height = pixels.shape[2], width = pixels.shape[3], i
    cdef idx side = filters.shape[2]
    with nogil:
        for i in prange(n, schedule="static", num_threads=n_threads):
            whiten_image(&pixels[i, 0, 0, 0], channels, height, width, side, &filters[0, 0, 0, 0], &bias[0],
                         &scratch[threadid(), 0], &out[i, 0, 0, 0])
