# Ahead: the images that come next, whose cache lines the tiles ask for in passing.
#
# What is done
#   Every step of a tile's inner loop can ask for one line, which costs nothing there (see tiles.pxi). The lines of the
#   next block's images are spread over all steps that this block has, `pace` bytes a step. Asked for all at once they
#   would come late, or not at all: a core waits for a few dozen lines at a time, and a line from memory takes as long
#   as a whole image is worked on.
#
# Ownership
#   An Ahead lies on the stack of its thread.

cdef struct Ahead:
    const char* next                # what to ask for in the next step
    const char* end                 # of the image that it belongs to
    idx pace                        # bytes a step; 0 when there is nothing to ask for
    const char* base
    const long long* order          # image numbers; NULL: images as they lie at `base`
    idx image, n, image_bytes       # the image, how many there are


cdef void next_image(Ahead* ahead) noexcept nogil:
    if ahead.image < ahead.n:
        ahead.next = ahead.base + (ahead.order[ahead.image] if ahead.order != NULL else ahead.image)*ahead.image_bytes
        ahead.end = ahead.next + ahead.image_bytes
        ahead.image += 1
    else:           # itself, which is in cache
        ahead.next = <const char*>ahead
        ahead.end = ahead.next + sizeof(Ahead)
        ahead.pace = 0


cdef inline const char* take_lines(Ahead* ahead, idx n_steps, idx* pace) noexcept nogil:
    """what a tile of n_steps asks for: where it begins, and the bytes a step"""
    cdef const char* start = ahead.next
    pace[0] = ahead.pace
    ahead.next += n_steps*ahead.pace
    if ahead.next >= ahead.end:
        next_image(ahead)
    return start


cdef void expect(Ahead* ahead, const void* images, idx image_bytes, idx pace, const long long* order, idx first,
                 idx n) noexcept nogil:
    """images first..n of those in order"""
    ahead.base = <const char*>images
    ahead.image_bytes = image_bytes
    ahead.pace = pace
    ahead.order = order
    ahead.image = first
    ahead.n = n
    next_image(ahead)


cdef inline void expect_nothing(Ahead* ahead) noexcept nogil:
    expect(ahead, NULL, 0, 0, NULL, 0, 0)
