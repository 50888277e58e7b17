# Digits: the forward convolution of stored bytes that are never made into floats.
#
# What is computed, for one image
#   A pixel u stands for u*scale + offset, so that a filter's sum over a patch is
#     sum_d weight[d]*(u[d]*scale[d] + offset[d]) = sum_d (weight[d]*scale[d])*u[d] + sum_d weight[d]*offset[d]
#   The last sum is known before any image is, and joins the bias. weight*scale is written once as unit*q, with an
#   integer |q| <= 8,355,711 of three digits -128..127 to the base 256, and a unit for each output: as precise as a
#   float of 24 bits is next to the largest weight of its filter. Processors multiply bytes with bytes four times as
#   fast as floats, so three digits take three quarters of the time, and the bytes a quarter of the memory.
#   In evaluation only: training would cut the filters anew for each batch, which takes as long as it saves.
#
# Layout
#   A column is 16 neighbours of level 0. A patch-innermost branch's columns are 16 patches of a filter, its images are
#   gathered into words beforehand: X[group of 16 patches][word][patch][4 pixels]. A patch-major one's are 16 filters of
#   a patch, and its words are read from the image where it is stored; a number of filters that 16 does not divide
#   makes the last two columns overlap, which write the same bits twice. Columns of a group (the patches they belong to)
#   follow each other: digits[column][word][digit][16 outputs][4], then units[column][16], then biases.
#
# Order
#   Patch-innermost: TILE_IMAGES images at a time, whose words stay in the first-level cache, against all columns.
#   Patch-major: a column, whose digits stay there, against all images of the block. Where TILE_IMAGES does not divide
#   the images, the last tile begins earlier.
#
# Ownership
#   The digits belong to the workspace of the call that has filled them.

from libc.float cimport FLT_MAX, FLT_MIN
from libc.math cimport INFINITY, NAN, fabsf, rintf
from libc.string cimport memcpy

cdef enum:
    DIGITS = 3
    COLUMN = 16             # outputs of a column
    WORD_BYTES = DIGITS*4*COLUMN
    LARGEST = 8355711       # 127*65536 + 127*256 + 127
    TILE_IMAGES = 8
    DIGIT_BLOCK = 40        # images that one thread takes at a time

cdef struct Digits:         # of a branch
    idx f, channels, n_filters, grid
    bint patch_inner
    bint vnni               # whether the processor multiplies bytes
    idx n_groups, n_columns             # columns of a group
    idx n_words                         # of a patch
    signed char* digits
    float* units
    float* biases


cdef Digits digits_of(idx f, idx channels, idx n_filters, bint patch_inner, bint vnni, float* memory) noexcept nogil:
    cdef Digits of
    of.f, of.channels, of.n_filters, of.grid = f, channels, n_filters, SIDE//f
    of.patch_inner = patch_inner
    of.vnni = vnni
    of.n_groups = of.grid*of.grid//COLUMN if patch_inner else of.grid*of.grid
    of.n_columns = n_filters if patch_inner else (n_filters + COLUMN - 1)//COLUMN
    of.n_words = channels*f*f//4
    of.digits = <signed char*>memory
    of.units = memory + of.n_groups*of.n_columns*of.n_words*(WORD_BYTES//<idx>sizeof(float))
    of.biases = of.units + of.n_groups*of.n_columns*COLUMN
    return of


cdef inline idx first_filter(const Digits* of, idx column) noexcept nogil:
    return column if of.patch_inner else min(column*COLUMN, of.n_filters - COLUMN)


cdef inline float larger(float size, float value) noexcept nogil:
    """of size and |value|; infinity once one is not finite"""
    value = fabsf(value)
    value = value if value <= FLT_MAX else INFINITY
    return value if value > size else size


cdef inline float unit_of(float largest, float* unit) noexcept nogil:
    """from the largest |weight*scale|; gives back 1/unit"""
    unit[0] = max(largest/LARGEST, FLT_MIN) if largest <= FLT_MAX else NAN
    return 1/unit[0]


cdef inline int in_units(float value, float inverse) noexcept nogil:
    """rounded; beyond LARGEST by less than one, or not finite, it is held there"""
    cdef float x = value*inverse
    x = x if x < LARGEST else LARGEST
    return <int>rintf(x if x > -LARGEST else -LARGEST)


cdef inline int take_digit(int* q) noexcept nogil:
    """the lowest digit, -128..127; leaves the others"""
    cdef int digit = ((q[0] + 128) & 255) - 128
    q[0] = (q[0] - digit) >> 8
    return digit


cdef void cut_inner(idx n_values, idx n_p, const float* weight, float bias, const float* scale, const float* offset,
                    int* out, float* units, float* biases) noexcept nogil:
    """one filter and COLUMN patches, of which `scale` and `offset` hold (D, P)"""
    cdef float line[COLUMN]
    cdef float largest[COLUMN]
    cdef double sums[COLUMN]
    cdef float inverse[COLUMN]
    cdef int word[DIGITS][COLUMN]
    cdef int q
    cdef idx o, d, b, digit
    for o in range(COLUMN):
        largest[o] = 0
        sums[o] = bias
    for d in range(n_values):
        for o in range(COLUMN):
            line[o] = weight[d]*scale[d*n_p + o]
            largest[o] = larger(largest[o], line[o])
            sums[o] += <double>weight[d]*offset[d*n_p + o]
    for o in range(COLUMN):
        inverse[o] = unit_of(largest[o], units + o)
        biases[o] = <float>sums[o]
    for d in range(0, n_values, 4):
        for digit in range(DIGITS):
            for o in range(COLUMN):
                word[digit][o] = 0
        for b in range(4):
            for o in range(COLUMN):
                q = in_units(weight[d + b]*scale[(d + b)*n_p + o], inverse[o])
                for digit in range(DIGITS):
                    word[digit][o] |= (take_digit(&q) & 255) << 8*b
        for digit in range(DIGITS):
            for o in range(COLUMN):
                out[digit*COLUMN + o] = word[digit][o]
        out += DIGITS*COLUMN


cdef void cut_major(idx channels, idx area, const float* weight, float bias, const float* scale, const float* offset,
                    int* out, float* unit, float* out_bias) noexcept nogil:
    """one filter and one patch, of which `scale` and `offset` hold `area` values a channel; the words of its digits lie
    COLUMN apart"""
    cdef float largest[COLUMN]
    cdef double sums[COLUMN]
    cdef float line[COLUMN]
    cdef signed char digits[DIGITS][COLUMN]
    cdef int q
    cdef float inverse
    cdef double total = bias
    cdef idx c, g, i, digit, from_weight, from_table
    for i in range(COLUMN):
        largest[i] = 0
        sums[i] = 0
    for c in range(channels):
        for g in range(area//COLUMN):
            from_weight, from_table = c*area + g*COLUMN, c*CHANNEL + g*COLUMN
            for i in range(COLUMN):
                line[i] = weight[from_weight + i]*scale[from_table + i]
                largest[i] = larger(largest[i], line[i])
                sums[i] += <double>weight[from_weight + i]*offset[from_table + i]
    for i in range(COLUMN):
        largest[0] = larger(largest[0], largest[i])
        total += sums[i]
    inverse = unit_of(largest[0], unit)
    out_bias[0] = <float>total
    for c in range(channels):
        for g in range(area//COLUMN):
            from_weight, from_table = c*area + g*COLUMN, c*CHANNEL + g*COLUMN
            for i in range(COLUMN):
                q = in_units(weight[from_weight + i]*scale[from_table + i], inverse)
                for digit in range(DIGITS):
                    digits[digit][i] = <signed char>take_digit(&q)
            for i in range(4):
                for digit in range(DIGITS):
                    memcpy(out + (i*DIGITS + digit)*COLUMN, &digits[digit][4*i], 4)
            out += 4*DIGITS*COLUMN


cdef void fill_column(const Digits* of, idx index, const float* weight, idx ld_w, const float* bias,
                      const float* tables) noexcept nogil:
    """a column, counted over all groups; tables as fill_tables lays them out"""
    cdef idx group = index//of.n_columns, first = first_filter(of, index % of.n_columns)
    cdef idx area = of.f*of.f, n_values = 4*of.n_words
    cdef const float* scale = tables + group*(COLUMN if of.patch_inner else area)
    cdef const float* offset = scale + of.channels*CHANNEL
    cdef int* out = <int*>(of.digits + index*of.n_words*WORD_BYTES)
    cdef float* units = of.units + index*COLUMN
    cdef float* biases = of.biases + index*COLUMN
    cdef idx o
    if of.patch_inner:
        cut_inner(n_values, CHANNEL//area, weight + first*ld_w, bias[first], scale, offset, out, units, biases)
    else:
        for o in range(COLUMN):
            cut_major(of.channels, area, weight + (first + o)*ld_w, bias[first + o], scale, offset, out + o, units + o,
                      biases + o)


cdef inline void gather_words(idx f, idx channels, const unsigned char* pixels, unsigned int* out) noexcept nogil:
    """one image, patch-innermost; f is a constant"""
    cdef unsigned int high[COLUMN]
    cdef idx n_groups = CHANNEL//(f*f)//COLUMN, c, g, y, q, o
    cdef const unsigned char* rows
    for c in range(channels):
        for g in range(n_groups):
            rows = pixels + c*CHANNEL + g*(f//2)*f*SIDE
            if f == 2:              # both rows of a patch in one word
                read_words(2, rows, 0, out + (g*channels + c)*COLUMN)
                read_words(2, rows + SIDE, 0, high)
                for o in range(COLUMN):
                    out[(g*channels + c)*COLUMN + o] |= high[o] << 16
            else:
                for y in range(f):
                    for q in range(f//4):
                        read_words(f, rows + y*SIDE, q, out + (((g*channels + c)*f + y)*(f//4) + q)*COLUMN)


cdef void gather_words_2(idx channels, const unsigned char* pixels, unsigned int* out) noexcept nogil:
    gather_words(2, channels, pixels, out)


cdef void gather_words_4(idx channels, const unsigned char* pixels, unsigned int* out) noexcept nogil:
    gather_words(4, channels, pixels, out)


cdef void gather_words_8(idx channels, const unsigned char* pixels, unsigned int* out) noexcept nogil:
    gather_words(8, channels, pixels, out)


cdef inline int images_taken(idx n) noexcept nogil:
    """by a tile, of n"""
    return TILE_IMAGES if n >= TILE_IMAGES else 4 if n >= 4 else 1


cdef inline void place_tile(const Digits* of, DigitTile* tile, idx index, idx columns, const unsigned char* x, float* out,
                            Ahead* ahead) noexcept nogil:
    """columns from `index` on, counted over all groups"""
    tile.w = of.digits + index*of.n_words*WORD_BYTES
    tile.unit = of.units + index*COLUMN
    tile.bias = of.biases + index*COLUMN
    tile.columns = columns
    tile.x = x
    tile.out = out
    tile.ahead = take_lines(ahead, columns*of.n_words, &tile.pace)


cdef void convolve_inner(const Digits* of, DigitTile* tile, int n, const unsigned char* words, float* h,
                         Ahead* ahead) noexcept nogil:
    """n images of which the words are gathered, as many as a tile takes"""
    cdef idx group
    tile.channels, tile.rows, tile.words = 1, 1, of.n_words
    tile.out_column = of.grid*of.grid
    for group in range(of.n_groups):
        place_tile(of, tile, group*of.n_columns, of.n_columns, words + group*of.n_words*4*COLUMN, h + group*COLUMN,
                   ahead)
        digit_tile(n, False, of.vnni, tile)


cdef void convolve_major(const Digits* of, DigitTile* tile, idx n, const unsigned char* pixels, float* h,
                         Ahead* ahead) noexcept nogil:
    """n images as they are stored"""
    cdef int taken = images_taken(n)
    cdef idx group, column, i, first
    tile.channels, tile.rows, tile.words = of.channels, of.f, of.f//4
    for group in range(of.n_groups):
        for column in range(of.n_columns):
            i = 0
            while i < n:
                first = min(i, n - taken)
                place_tile(of, tile, group*of.n_columns + column, 1,
                           pixels + first*tile.x_image + (group//of.grid*SIDE + group % of.grid)*of.f,
                           h + first*tile.out_image + group*of.n_filters + first_filter(of, column), ahead)
                digit_tile(taken, True, of.vnni, tile)
                i += taken


cdef void convolve_digits(const Digits* of, idx n, const unsigned char* pixels, unsigned char* words, float* h, idx ld_h,
                          Ahead* ahead) noexcept nogil:
    """n images, one behind the other; `words` has room for the bytes of TILE_IMAGES"""
    cdef idx f = of.f, size = of.channels*CHANNEL, i = 0, first, j
    cdef int taken = images_taken(n)
    cdef DigitTile tile
    tile.x_image, tile.x_channel, tile.x_row = size, CHANNEL, SIDE
    tile.out_image = ld_h
    if not of.patch_inner:
        convolve_major(of, &tile, n, pixels, h, ahead)
        return
    while i < n:
        first = min(i, n - taken)
        for j in range(taken):
            if f == 2:
                gather_words_2(of.channels, pixels + (first + j)*size, <unsigned int*>(words + j*size))
            elif f == 4:
                gather_words_4(of.channels, pixels + (first + j)*size, <unsigned int*>(words + j*size))
            else:
                gather_words_8(of.channels, pixels + (first + j)*size, <unsigned int*>(words + j*size))
        convolve_inner(of, &tile, taken, words, h + first*ld_h, ahead)
        i += taken


cdef void convolve_block(const Digits* of, idx first, idx n, const unsigned char[:, :, :, ::1] images,
                         unsigned char[:, ::1] words, float[:, ::1] activations, idx thread) noexcept nogil:
    cdef Ahead ahead
    expect_nothing(&ahead)
    convolve_digits(of, n, &images[first, 0, 0, 0], &words[thread, 0], &activations[first, 0], activations.shape[1],
                    &ahead)


def convolve_bytes(const unsigned char[:, :, :, ::1] images, idx filter_size, bint patch_inner,
                   const float[:, ::1] weight, const float[::1] bias, const float[:, :, ::1] scale,
                   const float[:, :, ::1] offset, float[::1] memory, unsigned char[:, ::1] words,
                   float[:, ::1] activations, bint vnni, int n_threads):
    """max(0, weight @ patches(images*scale + offset) + bias), as in evaluation; ``activations`` (N, F*P) in the order of
    level 0. ``memory``: the tables, then the digits, on a cache line; ``words``: the bytes of TILE_IMAGES images a thread."""
    cdef Images stored
    cdef idx n = images.shape[0], n_blocks = (n + DIGIT_BLOCK - 1)//DIGIT_BLOCK, b
    cdef float* tables = &memory[0]
    cdef Digits of
    stored.pixels, stored.values = &images[0, 0, 0, 0], NULL
    stored.scale, stored.offset = &scale[0, 0, 0], &offset[0, 0, 0]
    stored.channels, stored.height, stored.width = images.shape[1], images.shape[2], images.shape[3]
    of = digits_of(filter_size, stored.channels, weight.shape[0], patch_inner, vnni, tables + 2*stored.channels*CHANNEL)
    with nogil:
        fill_tables(&stored, filter_size, patch_inner, tables)
        for b in range(of.n_groups*of.n_columns):
            fill_column(&of, b, &weight[0, 0], weight.shape[1], &bias[0], tables)
        if n_threads == 1:
            for b in range(n_blocks):
                convolve_block(&of, b*DIGIT_BLOCK, min(DIGIT_BLOCK, n - b*DIGIT_BLOCK), images, words, activations, 0)
        else:
            for b in prange(n_blocks, schedule="static", num_threads=n_threads):
                convolve_block(&of, b*DIGIT_BLOCK, min(DIGIT_BLOCK, n - b*DIGIT_BLOCK), images, words, activations,
                               threadid())
