# Patches: from stored images to the matrix that the filters multiply (im2col), in one pass.
#
# What is computed, for one image
#   normalise    v = pixel*scale + offset, both per pixel; images that are already normalised are taken as they are.
#                Where a bright pixel hardly varies, these are large and cancel: v = (pixel - centre)*scale + offset
#                there, an exact difference of integers.
#   augment      output (y, x) takes v at (y + dy, x' + dx), x' = W-1-x where flipped; 0 outside and in the cutout
#   patchify     with stride = filter width, im2col is a permutation: pixel (c, py*f + y, px*f + x) becomes
#                value d = (c*f + y)*f + x of patch p = py*grid_w + px
#
# Layout
#   Stored: (C, H, W), uint8 or real, untouched: no second copy of the data is ever made.
#   Gathered, patch-innermost: X[d*ld_x + p] (lanes over patches); or patch-major: X[p*ld_x + d] (lanes over values).
#
# Order of work
#   In general (gather_image): rows (c, y, :) with the same y mod f are normalised into `rows`, one behind the
#   other; what lies there is patch after patch with f values each, and is scattered into f streams.
#   For uint8 images of 32 x 32 without augmentation or centre (gather_pixels): what GROUP patches hold of a row of
#   theirs is read as words of up to four bytes, one a patch, and a word's bytes are shifted out one after the other:
#   each gives GROUP neighbours of X. Scale and offset are scattered likewise beforehand (`tables`). Both
#   ways give the same bits: a value is one multiply-add.
#
# Ownership
#   `rows` holds (grid_h + 3)*W elements and belongs to the calling thread; `tables` are written once a call.

cdef enum:
    SIDE = 32                       # of CIFAR-10's images, which have ways of their own
    CHANNEL = SIDE*SIDE


cdef struct Images:
    const unsigned char* pixels     # uint8 images, or NULL
    const void* values              # images already normalised, in the dtype of the computation, or NULL
    const void* scale               # (C, H, W) each, in that dtype; with pixels only
    const void* offset
    const void* centre              # NULL where it is 0 everywhere
    idx channels, height, width


cdef struct Augment:
    bint active
    bint flip
    idx shift, cutout
    uint64 bits                     # address of (seed, purpose, epoch)


cdef Augment augment_of(dict augmentation) except *:
    """the fields of an Augmentation; None: nothing happens"""
    cdef Augment augment
    memset(&augment, 0, sizeof(Augment))
    if augmentation is not None:
        augment.flip = augmentation["flip"]
        augment.shift = augmentation["shift"]
        augment.cutout = augmentation["cutout"]
        augment.active = augment.flip or augment.shift > 0 or augment.cutout > 0
    return augment


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
    place.dx = max(-images.width, min(place.dx, images.width))     # from there on nothing of the image is left
    place.top = <idx>(((bits >> 33 & 0x7fff)*<uint64>images.height) >> 15) - augment.cutout//2
    place.left = <idx>(((bits >> 48 & 0x7fff)*<uint64>images.width) >> 15) - augment.cutout//2
    place.bottom = min(place.top + augment.cutout, images.height)
    place.right = min(place.left + augment.cutout, images.width)
    place.top = max(place.top, 0)
    place.left = max(place.left, 0)
    return place


cdef enum:
    GROUP = 16                      # pixels, or patches, that are read at a time


cdef inline void normalise_words(int shift, const unsigned int* words, const real* scale, const real* offset,
                                 real* out) noexcept nogil:
    """out = the byte of each word that begins at bit `shift`, normalised"""
    cdef real line[GROUP]           # apart from out, which the compiler cannot tell from scale and offset
    cdef idx i
    for i in range(GROUP):
        line[i] = <int>((words[i] >> shift) & 255)*scale[i] + offset[i]
    for i in range(GROUP):
        out[i] = line[i]


cdef inline void normalise_row(const Images* images, idx image, idx start, idx width, real* out) noexcept nogil:
    """the `width` pixels of an image from `start` on"""
    cdef idx x, size = images.channels*images.height*images.width
    cdef const unsigned char* pixels
    cdef const real* values
    cdef const real* scale = <const real*>images.scale + start
    cdef const real* offset = <const real*>images.offset + start
    cdef const real* centre
    if images.centre != NULL:
        pixels = images.pixels + image*size + start
        centre = <const real*>images.centre + start
        for x in range(width):
            out[x] = (pixels[x] - centre[x])*scale[x] + offset[x]
    elif images.pixels != NULL:
        pixels = images.pixels + image*size + start
        for x in range(width):
            out[x] = pixels[x]*scale[x] + offset[x]
    else:
        values = <const real*>images.values + image*size + start
        for x in range(width):
            out[x] = values[x]


cdef inline void place_row(const Images* images, const Placement* place, idx image, idx channel, idx y, idx width,
                           real* spare, real* out) noexcept nogil:
    """A row of the augmented image. `spare` has `width` zeros on either side of what is normalised, so that a row is
    moved or mirrored as a whole."""
    cdef idx x, source_y = y + place.dy
    cdef const real* source = spare + width + place.dx
    if source_y < 0 or source_y >= images.height:
        for x in range(width):
            out[x] = 0
        return
    normalise_row(images, image, (channel*images.height + source_y)*width, width, spare + width)
    if place.flip:
        for x in range(width):
            out[x] = source[width - 1 - x]
    else:
        for x in range(width):
            out[x] = source[x]
    if place.top <= y < place.bottom:
        for x in range(place.left, place.right):
            out[x] = 0


cdef inline void scatter(idx f, idx n_p, const real* rows, idx ld_x, real* out) noexcept nogil:
    """out[x][p] = rows[p*f + x]"""
    cdef idx p, x
    for p in range(n_p):
        for x in range(f):
            out[x*ld_x + p] = rows[p*f + x]


cdef inline void gather_inner(idx f, const unsigned char* pixels, const real* scale, const real* offset,
                              real* out) noexcept nogil:
    """one channel of an image, patch-innermost; f is a constant"""
    cdef unsigned int words[GROUP]
    cdef idx n_p = CHANNEL//(f*f), n_bytes = min(f, 4), y, g, q, b, to
    for y in range(f):
        for g in range(n_p//GROUP):         # GROUP patches lie in f//2 rows of patches
            for q in range(f//n_bytes):
                read_words(f, pixels + (g*(f//2)*f + y)*SIDE, q, words)
                for b in range(n_bytes):
                    to = (y*f + q*n_bytes + b)*n_p + g*GROUP
                    normalise_words(8*b, words, scale + to, offset + to, out + to)


# Functions of their own: the compiler allocates registers for a function as a whole.

cdef void gather_inner_2(const unsigned char* pixels, const real* scale, const real* offset, real* out) noexcept nogil:
    gather_inner(2, pixels, scale, offset, out)


cdef void gather_inner_4(const unsigned char* pixels, const real* scale, const real* offset, real* out) noexcept nogil:
    gather_inner(4, pixels, scale, offset, out)


cdef void gather_inner_8(const unsigned char* pixels, const real* scale, const real* offset, real* out) noexcept nogil:
    gather_inner(8, pixels, scale, offset, out)


cdef void gather_major(idx f, const unsigned char* pixels, const real* scale, const real* offset, idx ld_x,
                       real* out) noexcept nogil:
    """one channel of an image, patch-major, patches ld_x apart"""
    cdef unsigned int words[GROUP]
    cdef idx py, px, y, x
    for py in range(SIDE//f):
        for px in range(SIDE//f):
            for y in range(f):
                for x in range(f//GROUP):
                    read_words(1, pixels + (py*f + y)*SIDE + px*f + x*GROUP, 0, words)
                    normalise_words(0, words, scale, offset, out + y*f + x*GROUP)
                    scale += GROUP
                    offset += GROUP
            out += ld_x


cdef inline bint has_fast_path(const Images* images, const Augment* augment, idx f, bint patch_inner) noexcept nogil:
    """whether gather_pixels knows these images, this width and this layout"""
    if not READS_WORDS or images.pixels == NULL or images.centre != NULL or augment.active:
        return False
    if images.height != SIDE or images.width != SIDE:
        return False
    return (f == 2 or f == 4 or f == 8) if patch_inner else (f == 16 or f == 32)


cdef void gather_pixels(const Images* images, const long long* order, idx first, idx n, idx f, bint patch_inner,
                        const real* tables, idx x_size, real* out) noexcept nogil:
    """Images order[0..n), or first..first+n where there is no order: a channel of all images, while its tables are
    in cache. `tables`: scale and offset, each (C, H*W) in the order of the patches."""
    cdef idx size = images.channels*CHANNEL, c, i, image
    cdef const unsigned char* pixels
    cdef const real* scale
    cdef const real* offset
    cdef real* x
    for c in range(images.channels):
        scale = tables + c*CHANNEL
        offset = scale + size
        for i in range(n):
            image = order[i] if order != NULL else first + i
            pixels = images.pixels + image*size + c*CHANNEL
            x = out + i*x_size + c*(CHANNEL if patch_inner else f*f)
            if f == 2:
                gather_inner_2(pixels, scale, offset, x)
            elif f == 4:
                gather_inner_4(pixels, scale, offset, x)
            elif f == 8:
                gather_inner_8(pixels, scale, offset, x)
            else:
                gather_major(f, pixels, scale, offset, images.channels*f*f, x)


cdef void fill_tables(const Images* images, idx f, bint patch_inner, real* tables) noexcept nogil:
    """scale and offset in the order in which gather_pixels wants them"""
    cdef idx grid = SIDE//f, size = images.channels*CHANNEL, c, y, x, d, p, to, start = 0
    for c in range(images.channels):
        for y in range(SIDE):
            for x in range(SIDE):
                d = (y % f)*f + x % f
                p = (y//f)*grid + x//f
                to = c*CHANNEL + (d*grid*grid + p if patch_inner else p*f*f + d)
                tables[to] = (<const real*>images.scale)[start]
                tables[size + to] = (<const real*>images.offset)[start]
                start += 1


cdef inline void gather_rows(const Images* images, idx image, const Augment* augment, idx height, idx width, idx f,
                             bint patch_inner, idx ld_x, real* rows, real* out) noexcept nogil:
    cdef idx grid_h = height//f, grid_w = width//f, n_p = grid_h*grid_w, c, y, py, p, x
    cdef real* o
    cdef real* spare = rows + grid_h*width
    cdef Placement place
    if augment.active:
        place = draw_placement(augment, images, image)
        for x in range(width):
            spare[x] = 0
            spare[2*width + x] = 0
    for c in range(images.channels):
        for y in range(f):
            for py in range(grid_h):
                if augment.active:
                    place_row(images, &place, image, c, py*f + y, width, spare, rows + py*width)
                else:
                    normalise_row(images, image, (c*height + py*f + y)*width, width, rows + py*width)
            if patch_inner:
                o = out + (c*f + y)*f*ld_x
                if f == 2:
                    scatter(2, n_p, rows, ld_x, o)
                elif f == 4:
                    scatter(4, n_p, rows, ld_x, o)
                elif f == 8:
                    scatter(8, n_p, rows, ld_x, o)
                else:
                    scatter(f, n_p, rows, ld_x, o)
            else:
                for p in range(n_p):
                    o = out + p*ld_x + (c*f + y)*f
                    for x in range(f):
                        o[x] = rows[p*f + x]


cdef void gather_image(const Images* images, idx image, const Augment* augment, idx f, bint patch_inner, idx ld_x,
                       real* rows, real* out) noexcept nogil:
    """any image; the sizes of CIFAR-10's are constants"""
    if images.height != SIDE or images.width != SIDE:
        gather_rows(images, image, augment, images.height, images.width, f, patch_inner, ld_x, rows, out)
    elif f == 2 and patch_inner:
        gather_rows(images, image, augment, SIDE, SIDE, 2, True, ld_x, rows, out)
    elif f == 4 and patch_inner:
        gather_rows(images, image, augment, SIDE, SIDE, 4, True, ld_x, rows, out)
    elif f == 8 and patch_inner:
        gather_rows(images, image, augment, SIDE, SIDE, 8, True, ld_x, rows, out)
    elif f == 16 and not patch_inner:
        gather_rows(images, image, augment, SIDE, SIDE, 16, False, ld_x, rows, out)
    else:
        gather_rows(images, image, augment, SIDE, SIDE, f, patch_inner, ld_x, rows, out)


cdef Images images_of(const unsigned char[:, :, :, ::1] pixels, const real[:, :, :, ::1] values,
                      const real[:, :, ::1] scale, const real[:, :, ::1] offset, const real[:, :, ::1] centre):
    cdef Images images
    images.pixels = NULL
    images.values = NULL
    images.scale = NULL
    images.offset = NULL
    images.centre = NULL
    if pixels is not None:
        images.pixels = &pixels[0, 0, 0, 0]
        images.scale = &scale[0, 0, 0]
        images.offset = &offset[0, 0, 0]
        if centre is not None:
            images.centre = &centre[0, 0, 0]
        images.channels, images.height, images.width = pixels.shape[1], pixels.shape[2], pixels.shape[3]
    else:
        images.values = &values[0, 0, 0, 0]
        images.channels, images.height, images.width = values.shape[1], values.shape[2], values.shape[3]
    return images


def gather_batch(const unsigned char[:, :, :, ::1] pixels, const real[:, :, :, ::1] values, const long long[::1] order,
                 idx filter_size, const real[:, :, ::1] scale, const real[:, :, ::1] offset,
                 const real[:, :, ::1] centre, dict augmentation, uint64 seed, uint64 epoch,
                 real[:, :, ::1] patches, real[:, ::1] rows, real[::1] tables, int n_threads):
    """Fill ``patches`` (n, D, P) from uint8 ``pixels`` or, where those are None, from real ``values``."""
    cdef Images images = images_of[real](pixels, values, scale, offset, centre)
    cdef Augment augment = augment_of(augmentation)
    cdef idx n = order.shape[0], i, x_size = patches.shape[1]*patches.shape[2]
    augment.bits = address(seed_bits(seed, PURPOSE_AUGMENTATION), epoch)
    with nogil:
        if has_fast_path(&images, &augment, filter_size, True):
            fill_tables(&images, filter_size, True, &tables[0])
            if n_threads == 1:
                gather_pixels(&images, &order[0], 0, n, filter_size, True, &tables[0], x_size, &patches[0, 0, 0])
            else:
                for i in prange(n, schedule="static", num_threads=n_threads):
                    gather_pixels(&images, &order[i], 0, 1, filter_size, True, &tables[0], x_size, &patches[i, 0, 0])
        elif n_threads == 1:
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
