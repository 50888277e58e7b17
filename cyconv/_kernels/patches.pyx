# Patches: from stored images to the matrix that the filters multiply (im2col), in one pass.
#
# What is computed, for one image
#   normalise    v = pixel*scale + offset, both per pixel; images that are already normalised are taken as they are
#   augment      output (y, x) takes v at (y + dy, x' + dx), x' = W-1-x where flipped; 0 outside and in the cutout
#   patchify     with stride = filter width, im2col is a permutation: pixel (c, py*f + y, px*f + x) becomes
#                value d = (c*f + y)*f + x of patch p = py*grid_w + px
#
# Layout
#   Stored: (C, H, W), uint8 or real, untouched: no second copy of the data is ever made.
#   Gathered, patch-innermost: X[d*ld_x + p] (lanes over patches); or patch-major: X[p*ld_x + d] (lanes over values).
#
# Order of work
#   Rows (c, y, :) with the same y mod f are normalised into `rows`, one behind the other; what lies there is
#   patch after patch with f values each, and is dealt out into f streams. The usual widths are
#   compile-time constants, for which the compiler deals with vector permutations.
#
# Ownership
#   `rows` holds grid_h*W + W elements and belongs to the calling thread.

cdef struct Images:
    const unsigned char* pixels     # uint8 images, or NULL
    const void* values              # images already normalised, in the dtype of the computation, or NULL
    const void* scale               # (C, H, W) each, in that dtype; with pixels only
    const void* offset
    idx channels, height, width


cdef struct Augment:
    bint active
    bint flip
    idx shift, cutout
    uint64 bits                     # address of (seed, purpose, epoch)


cdef struct Placement:              # what augmentation drew for one image
    bint flip
    idx dy, dx                      # shift of the source
    idx top, bottom, left, right    # the cutout, half open


cdef Placement draw_placement(const Augment* augment, const Images* images, idx image) noexcept nogil:
    cdef Placement place
    cdef uint64 bits = address(augment.bits, <uint64>image)
    cdef idx span = 2*augment.shift + 1
    place.flip = augment.flip and bits & 1
    place.dy = <idx>(((bits >> 1 & 0xffff)*<uint64>span) >> 16) - augment.shift
    place.dx = <idx>(((bits >> 17 & 0xffff)*<uint64>span) >> 16) - augment.shift
    place.top = <idx>(((bits >> 33 & 0x7fff)*<uint64>images.height) >> 15) - augment.cutout//2
    place.left = <idx>(((bits >> 48 & 0x7fff)*<uint64>images.width) >> 15) - augment.cutout//2
    place.bottom = min(place.top + augment.cutout, images.height)
    place.right = min(place.left + augment.cutout, images.width)
    place.top = max(place.top, 0)
    place.left = max(place.left, 0)
    return place


cdef inline void normalise_row(const Images* images, idx image, idx start, idx width, real* out) noexcept nogil:
    """the `width` pixels of an image from `start` on"""
    cdef idx x, size = images.channels*images.height*images.width
    cdef const unsigned char* pixels
    cdef const real* values
    cdef const real* scale = <const real*>images.scale + start
    cdef const real* offset = <const real*>images.offset + start
    if images.pixels != NULL:
        pixels = images.pixels + image*size + start
        for x in range(width):
            out[x] = pixels[x]*scale[x] + offset[x]
    else:
        values = <const real*>images.values + image*size + start
        for x in range(width):
            out[x] = values[x]


cdef void place_row(const Images* images, const Placement* place, idx image, idx channel, idx y, real* spare,
                    real* out) noexcept nogil:
    """a row of the augmented image"""
    cdef idx width = images.width, x, begin, end, source_y = y + place.dy, dx = place.dx
    if source_y < 0 or source_y >= images.height:
        for x in range(width):
            out[x] = 0
        return
    normalise_row(images, image, (channel*images.height + source_y)*width, width, spare)
    if place.flip:      # source column width-1-x + dx
        begin = min(max(dx, 0), width)
        end = max(min(width + dx, width), begin)
        for x in range(begin, end):
            out[x] = spare[width - 1 - x + dx]
    else:               # source column x + dx
        begin = min(max(-dx, 0), width)
        end = max(min(width - dx, width), begin)
        for x in range(begin, end):
            out[x] = spare[x + dx]
    for x in range(begin):
        out[x] = 0
    for x in range(end, width):
        out[x] = 0
    if place.top <= y < place.bottom:
        for x in range(place.left, place.right):
            out[x] = 0


cdef inline void deal_out(idx f, idx n_p, const real* rows, idx ld_x, real* out) noexcept nogil:
    """out[x][p] = rows[p*f + x]"""
    cdef idx p, x
    for p in range(n_p):
        for x in range(f):
            out[x*ld_x + p] = rows[p*f + x]


cdef inline void gather_plain(const Images* images, idx image, idx f, idx side, real* out) noexcept nogil:
    """gather_image for square images, patch-innermost and without augmentation; f and side are constants"""
    cdef real rows[32*16]
    cdef idx c, y, py, grid = side//f
    for c in range(images.channels):
        for y in range(f):
            for py in range(grid):
                normalise_row(images, image, (c*side + py*f + y)*side, side, rows + py*side)
            deal_out(f, grid*grid, rows, grid*grid, out + (c*f + y)*f*grid*grid)


cdef inline void gather_values(const Images* images, idx image, idx f, idx ld_x, real* out) noexcept nogil:
    """gather_image patch-major and without augmentation: a patch's rows are runs of f pixels; f is a constant"""
    cdef idx c, y, py, px, grid_w = images.width//f, start = 0
    for c in range(images.channels):
        for py in range(images.height//f):
            for y in range(f):
                for px in range(grid_w):
                    normalise_row(images, image, start, f, out + (py*grid_w + px)*ld_x + (c*f + y)*f)
                    start += f


cdef void gather_image(const Images* images, idx image, const Augment* augment, idx f, bint patch_inner, idx ld_x,
                       real* rows, real* out) noexcept nogil:
    cdef idx grid_h = images.height//f, grid_w = images.width//f, n_p = grid_h*grid_w, width = images.width
    cdef idx c, y, py, p, x
    cdef real* o
    cdef real* spare = rows + grid_h*width
    cdef Placement place
    if patch_inner and not augment.active and images.height == 32 and width == 32:
        if f == 2:
            gather_plain(images, image, 2, 32, out)
            return
        if f == 4:
            gather_plain(images, image, 4, 32, out)
            return
        if f == 8:
            gather_plain(images, image, 8, 32, out)
            return
    if not patch_inner and not augment.active:
        if f == 16:
            gather_values(images, image, 16, ld_x, out)
            return
        if f == 32:
            gather_values(images, image, 32, ld_x, out)
            return
    if augment.active:
        place = draw_placement(augment, images, image)
    for c in range(images.channels):
        for y in range(f):
            for py in range(grid_h):
                if augment.active:
                    place_row(images, &place, image, c, py*f + y, spare, rows + py*width)
                else:
                    normalise_row(images, image, (c*images.height + py*f + y)*width, width, rows + py*width)
            if patch_inner:
                o = out + (c*f + y)*f*ld_x
                if f == 2:
                    deal_out(2, n_p, rows, ld_x, o)
                elif f == 4:
                    deal_out(4, n_p, rows, ld_x, o)
                elif f == 8:
                    deal_out(8, n_p, rows, ld_x, o)
                else:
                    deal_out(f, n_p, rows, ld_x, o)
            else:
                for p in range(n_p):
                    o = out + p*ld_x + (c*f + y)*f
                    for x in range(f):
                        o[x] = rows[p*f + x]


def gather_batch(const unsigned char[:, :, :, ::1] pixels, const real[:, :, :, ::1] values, const long long[::1] order,
                 idx filter_size, const real[:, :, ::1] scale, const real[:, :, ::1] offset, bint flip, idx shift,
                 idx cutout, uint64 seed, uint64 epoch, real[:, :, ::1] patches, real[:, ::1] rows, int n_threads):
    """Fill ``patches`` (n, D, P) from uint8 ``pixels`` or, where those are None, from real ``values``."""
    cdef Images images
    cdef Augment augment
    cdef idx n = order.shape[0], i
    images.pixels = NULL
    images.values = NULL
    images.scale = NULL
    images.offset = NULL
    if pixels is not None:
        images.pixels = &pixels[0, 0, 0, 0]
        images.scale = &scale[0, 0, 0]
        images.offset = &offset[0, 0, 0]
        images.channels, images.height, images.width = pixels.shape[1], pixels.shape[2], pixels.shape[3]
    else:
        images.values = &values[0, 0, 0, 0]
        images.channels, images.height, images.width = values.shape[1], values.shape[2], values.shape[3]
    augment.active = flip or shift > 0 or cutout > 0
    augment.flip = flip
    augment.shift = shift
    augment.cutout = cutout
    augment.bits = address(seed_bits(seed, PURPOSE_AUGMENTATION), epoch)
    with nogil:
        if n_threads == 1:
            for i in range(n):
                gather_image(&images, order[i], &augment, filter_size, True, patches.shape[2], &rows[0, 0],
                             &patches[i, 0, 0])
        else:
            for i in prange(n, schedule="static", num_threads=n_threads):
                gather_image(&images, order[i], &augment, filter_size, True, patches.shape[2], &rows[threadid(), 0],
                             &patches[i, 0, 0])


def col2im(const real[:, :, ::1] patches, idx filter_size, real[:, :, :, ::1] images, int n_threads):
    """The inverse of im2col."""
    cdef idx n = images.shape[0], i
    with nogil:
        if n_threads == 1:
            for i in range(n):
                spread_image(filter_size, &patches[i, 0, 0], images.shape[1], images.shape[2], images.shape[3],
                             &images[i, 0, 0, 0])
        else:
            for i in prange(n, schedule="static", num_threads=n_threads):
                spread_image(filter_size, &patches[i, 0, 0], images.shape[1], images.shape[2], images.shape[3],
                             &images[i, 0, 0, 0])


cdef void spread_image(idx f, const real* patches, idx channels, idx height, idx width, real* out) noexcept nogil:
    cdef idx grid_w = width//f, n_p = (height//f)*grid_w, c, y, x
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                out[(c*height + y)*width + x] = patches[((c*f + y % f)*f + x % f)*n_p + (y//f)*grid_w + x//f]
