# Words: what many patches hold, side by side in one vector.
#
# What is read
#   Sixteen words of 32 bits, one a patch, that hold in their lowest bytes, in order:
#     f = 2, 4   a row of the patch, 2 or 4 pixels
#     f = 8      the first (q = 0) or the second half (q = 1) of such a row, 4 pixels
#     f = 1      sixteen pixels of one row, as they lie
#   `rows` is the first of the f//2 rows of 32 pixels, f rows apart, on which sixteen patches lie (f = 1: the first
#   pixel).
#
# Why not in Cython
#   A compiler makes these permutations out of dozens of steps; the loop over what has been read is one it vectorises.

cdef extern from *:
    """
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
      #define CY_READS_WORDS 0
    #else
      #define CY_READS_WORDS 1
    #endif
    #if defined(__AVX512F__)
    static inline __m512i cy_two_rows(const unsigned char *rows, ptrdiff_t step)
    {
      return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)rows)),
                                _mm256_loadu_si256((const __m256i *)(rows + step)), 1);
    }
    static inline __attribute__((always_inline)) void cy_words(ptrdiff_t f, const unsigned char *rows, ptrdiff_t q,
                                                               uint32_t *words)
    {
      __m512i w, pick;
      if (f == 1)
        w = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)rows));
      else if (f == 2)
        w = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)rows));
      else if (f == 4)
        w = cy_two_rows(rows, f*32);
      else {
        pick = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        w = _mm512_permutex2var_epi32(cy_two_rows(rows, f*32), _mm512_add_epi32(pick, _mm512_set1_epi32((int)q)),
                                      cy_two_rows(rows + 2*f*32, f*32));
      }
      _mm512_storeu_si512(words, w);
    }
    #elif defined(__AVX2__)
    static inline __m256i cy_row(const unsigned char *rows) { return _mm256_loadu_si256((const __m256i *)rows); }
    static inline __m256i cy_half(__m256i a, __m256i b, ptrdiff_t q)
    {
      __m256 x = _mm256_castsi256_ps(a), y = _mm256_castsi256_ps(b);
      x = q ? _mm256_shuffle_ps(x, y, 0xDD) : _mm256_shuffle_ps(x, y, 0x88);
      return _mm256_permute4x64_epi64(_mm256_castps_si256(x), 0xD8);
    }
    static inline __attribute__((always_inline)) void cy_words(ptrdiff_t f, const unsigned char *rows, ptrdiff_t q,
                                                               uint32_t *words)
    {
      __m256i a, b;
      if (f == 1) {
        a = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)rows));
        b = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(rows + 8)));
      } else if (f == 2) {
        a = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)rows));
        b = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(rows + 16)));
      } else if (f == 4) {
        a = cy_row(rows);
        b = cy_row(rows + f*32);
      } else {
        a = cy_half(cy_row(rows), cy_row(rows + f*32), q);
        b = cy_half(cy_row(rows + 2*f*32), cy_row(rows + 3*f*32), q);
      }
      _mm256_storeu_si256((__m256i *)words, a);
      _mm256_storeu_si256((__m256i *)(words + 8), b);
    }
    #else
    static inline void cy_words(ptrdiff_t f, const unsigned char *rows, ptrdiff_t q, uint32_t *words)
    {
      uint16_t pairs[16];
      uint32_t row[8];
      int i, p;
      if (f == 1)
        for (p = 0; p < 16; p++) words[p] = rows[p];
      else if (f == 2) {
        memcpy(pairs, rows, 32);
        for (p = 0; p < 16; p++) words[p] = pairs[p];
      } else if (f == 4) {
        memcpy(words, rows, 32);
        memcpy(words + 8, rows + f*32, 32);
      } else
        for (i = 0; i < 4; i++) {
          memcpy(row, rows + i*f*32, 32);
          for (p = 0; p < 4; p++) words[4*i + p] = row[2*p + q];
        }
    }
    #endif
    """
    enum:
        READS_WORDS "CY_READS_WORDS"    # whether a word's first byte is its lowest
    void read_words "cy_words"(idx f, const unsigned char* rows, idx q, unsigned int* words) noexcept nogil
