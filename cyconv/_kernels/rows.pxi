# Rows: rows of augmented images of 32 x 32, normalised and moved, then scattered to sixteen patches, in registers.
#
# What is computed
#   moved_row     out[x] = pixels[s]*scale[s] + offset[s],  s = (31 - x if flip else x) + dx,  where s lies in the row
#                 and bit x of `keep` is set; elsewhere 0. One multiply-add a value, as everywhere.
#   scatter_rows  out[x][p] = value x of patch p's row, for the sixteen patches that lie on f//2 rows; f = 2, 4 or 8
#
# Why not in Cython
#   What lies outside a row is masked away as it is loaded. Written to memory and read again a few values further on,
#   as other builds do it, a row waits for its own stores. And a compiler scatters eight streams value by value.

cdef extern from *:
    """
    #if defined(__AVX512F__)
      #define CY_MOVES_ROWS 1
    static inline __attribute__((always_inline)) void cy_moved_row(const unsigned char *pixels, const float *scale,
                                                                   const float *offset, ptrdiff_t dx, int flip,
                                                                   uint32_t keep, float *out)
    {
      const __m512i reverse = _mm512_setr_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
      #pragma GCC unroll 2
      for (int half = 0; half < 2; half++) {
        ptrdiff_t s = (flip ? 16 - 16*half : 16*half) + dx;     /* the first of sixteen in the order of the source */
        __mmask16 inside = (__mmask16)(s >= 0 ? 0xFFFFFFFFull >> s : 0xFFFFFFFFull << -s);
        __m512 v = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(inside, pixels + s)));
        v = _mm512_fmadd_ps(v, _mm512_maskz_loadu_ps(inside, scale + s), _mm512_maskz_loadu_ps(inside, offset + s));
        if (flip) v = _mm512_permutexvar_ps(reverse, v);
        _mm512_storeu_ps(out + 16*half, _mm512_maskz_mov_ps((__mmask16)(keep >> 16*half), v));
      }
    }
    #define CY_PICK(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p) \
      _mm512_setr_epi32(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)
    static inline __attribute__((always_inline)) void cy_scatter_rows(ptrdiff_t f, const float *rows, ptrdiff_t ld_x,
                                                                   float *out)
    {
      __m512 x[4][2], v[4][2];
      /* v[row][half]: values half*f/2 .. of all patches of the row, value after value */
      __m512i first, second;
      if (f == 2) {
        first = CY_PICK(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        second = CY_PICK(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
      } else if (f == 4) {
        first = CY_PICK(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
        second = CY_PICK(2, 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31);
      } else {
        first = CY_PICK(0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27);
        second = CY_PICK(4, 12, 20, 28, 5, 13, 21, 29, 6, 14, 22, 30, 7, 15, 23, 31);
      }
      #pragma GCC unroll 4
      for (int r = 0; r < f/2; r++) {
        x[r][0] = _mm512_loadu_ps(rows + 32*r);
        x[r][1] = _mm512_loadu_ps(rows + 32*r + 16);
        v[r][0] = _mm512_permutex2var_ps(x[r][0], first, x[r][1]);
        v[r][1] = _mm512_permutex2var_ps(x[r][0], second, x[r][1]);
      }
      #pragma GCC unroll 4
      for (int half = 0; half < 2; half++) {
        float *to = out + half*(f/2)*ld_x;
        if (f == 2)
          _mm512_storeu_ps(to, v[0][half]);
        else if (f == 4) {
          _mm512_storeu_ps(to, _mm512_shuffle_f32x4(v[0][half], v[1][half], 0x44));
          _mm512_storeu_ps(to + ld_x, _mm512_shuffle_f32x4(v[0][half], v[1][half], 0xEE));
        } else {
          __m512 a = _mm512_shuffle_f32x4(v[0][half], v[1][half], 0x44);
          __m512 b = _mm512_shuffle_f32x4(v[2][half], v[3][half], 0x44);
          __m512 c = _mm512_shuffle_f32x4(v[0][half], v[1][half], 0xEE);
          __m512 d = _mm512_shuffle_f32x4(v[2][half], v[3][half], 0xEE);
          _mm512_storeu_ps(to, _mm512_shuffle_f32x4(a, b, 0x88));
          _mm512_storeu_ps(to + ld_x, _mm512_shuffle_f32x4(a, b, 0xDD));
          _mm512_storeu_ps(to + 2*ld_x, _mm512_shuffle_f32x4(c, d, 0x88));
          _mm512_storeu_ps(to + 3*ld_x, _mm512_shuffle_f32x4(c, d, 0xDD));
        }
      }
    }
    #else
      #define CY_MOVES_ROWS 0
    static inline void cy_moved_row(const unsigned char *pixels, const float *scale, const float *offset, ptrdiff_t dx,
                                    int flip, uint32_t keep, float *out)
    { (void)pixels; (void)scale; (void)offset; (void)dx; (void)flip; (void)keep; (void)out; }
    static inline void cy_scatter_rows(ptrdiff_t f, const float *rows, ptrdiff_t ld_x, float *out)
    { (void)f; (void)rows; (void)ld_x; (void)out; }
    #endif
    """
    enum:
        MOVES_ROWS "CY_MOVES_ROWS"
    # dx from -32 to 32
    void moved_row "cy_moved_row"(const unsigned char* pixels, const float* scale, const float* offset, idx dx,
                                  bint flip, unsigned int keep, float* out) noexcept nogil
    # f is a constant
    void scatter_rows "cy_scatter_rows"(idx f, const float* rows, idx ld_x, float* out) noexcept nogil
