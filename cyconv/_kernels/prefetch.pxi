# Prefetch queue: the images of the next block, whose cache lines the tiles request while they work on this one.
#
# What is done
#   Every step of a tile's inner loop can request one line, which costs nothing there (see tiles.pxi). The lines of the
#   next block's images are spread over all steps that this block has, so many bytes a step. Requested all at once they
#   would come late, or not at all: a core waits for a few dozen lines at a time, and a line from memory takes as long
#   as the work on a whole image.
#
# Ownership
#   A queue lies on the stack of its thread.

cdef struct PrefetchQueue:
    const char* next                # what to request in the next step
    const char* end                 # of the image that it belongs to
    idx bytes_per_step              # 0 when there is nothing to request
    const char* base
    const long long* order          # image numbers; NULL: images as they lie at `base`
    idx image, n, image_bytes       # the image, how many there are


cdef void next_image(PrefetchQueue* queue) noexcept nogil:
    if queue.image < queue.n:
        queue.next = queue.base + (queue.order[queue.image] if queue.order != NULL else queue.image)*queue.image_bytes
        queue.end = queue.next + queue.image_bytes
        queue.image += 1
    else:           # itself, which is in cache
        queue.next = <const char*>queue
        queue.end = queue.next + sizeof(PrefetchQueue)
        queue.bytes_per_step = 0


cdef inline const char* next_lines(PrefetchQueue* queue, idx n_steps, idx* bytes_per_step) noexcept nogil:
    """what a tile of n_steps requests: where it begins, and the bytes a step"""
    cdef const char* start = queue.next
    bytes_per_step[0] = queue.bytes_per_step
    queue.next += n_steps*queue.bytes_per_step
    if queue.next >= queue.end:
        next_image(queue)
    return start


cdef void begin_prefetch(PrefetchQueue* queue, const void* images, idx image_bytes, idx bytes_per_step,
                         const long long* order, idx first, idx n) noexcept nogil:
    """images first..n of those in order"""
    queue.base = <const char*>images
    queue.image_bytes = image_bytes
    queue.bytes_per_step = bytes_per_step
    queue.order = order
    queue.image = first
    queue.n = n
    next_image(queue)


cdef inline void prefetch_nothing(PrefetchQueue* queue) noexcept nogil:
    begin_prefetch(queue, NULL, 0, 0, NULL, 0, 0)
