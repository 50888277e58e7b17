# Digit tiles: products of stored bytes with weights of three digits, summed as integers.
#
# What is computed, for each of some columns of sixteen outputs (o), for each of some images
#   S[digit][o] = sum over words, and the four bytes b of each, of x[word][o][b] * w[word][digit][o][b]
#   out[o] = max(0, unit[o]*((S[2]*256 + S[1])*256 + S[0]) + bias[o]);  NaN stays NaN
# Sums of integers are exact in any order; three multiply-adds with fixed rounding follow. So every way below gives the
# same bits.
#
# Layout
#   w: for every word three vectors, one a digit, of sixteen times four bytes. x: a vector like these, or, with `shared`,
#   one word for all outputs. Words lie in rows, rows in channels: their distances are in the tile.
#
# Why not in Cython
#   The instruction (VPDPBUSD) has no counterpart there. As inline assembly it leaves the rest of the module to
#   processors that lack it, and gcc 12 keeps the sums in registers, which it does not with its own intrinsic.

cdef extern from *:
    """
    #include <math.h>
    typedef struct {
      const unsigned char *x;             /* of the first image */
      ptrdiff_t x_image, x_channel, x_row, channels, rows, words;   /* words of a row */
      const signed char *w;
      const float *unit, *bias;           /* w, unit and bias of one column lie behind those of the one before */
      float *out;
      ptrdiff_t columns, out_column, out_image;
      const char *ahead;                  /* what to ask for, see tiles.pxi */
      ptrdiff_t pace;
    } cy_digit_tile;

    static void cy_digits_plain(int images, int shared, const cy_digit_tile *t)
    {
      for (ptrdiff_t j = 0; j < t->columns; j++)
        for (int i = 0; i < images; i++) {
          int32_t sums[3][16] = {{0}};
          const signed char *w = t->w + 192*j*t->channels*t->rows*t->words;
          for (ptrdiff_t c = 0; c < t->channels; c++)
            for (ptrdiff_t r = 0; r < t->rows; r++) {
              const unsigned char *x = t->x + i*t->x_image + c*t->x_channel + r*t->x_row;
              for (ptrdiff_t q = 0; q < t->words; q++, w += 192, x += shared ? 4 : 64)
                for (int digit = 0; digit < 3; digit++)
                  for (int o = 0; o < 16; o++)
                    for (int b = 0; b < 4; b++)
                      sums[digit][o] += x[(shared ? 0 : 4*o) + b] * w[64*digit + 4*o + b];
            }
          for (int o = 0; o < 16; o++) {
            float z = fmaf((float)sums[2][o], 256, (float)sums[1][o]);
            z = fmaf(fmaf(z, 256, (float)sums[0][o]), t->unit[16*j + o], t->bias[16*j + o]);
            t->out[i*t->out_image + j*t->out_column + o] = z < 0 ? 0 : z;
          }
        }
    }
    #if defined(__AVX512F__) && defined(__GNUC__)
    static inline __attribute__((always_inline)) void cy_digits_here(int images, int shared, const cy_digit_tile *t)
    {
      const signed char *w = t->w;
      const char *ahead = t->ahead;
      ptrdiff_t x_image = t->x_image, words = t->words, pace = t->pace;
      for (ptrdiff_t j = 0; j < t->columns; j++) {
        __m512i sums[8][3];
        #pragma GCC unroll 8
        for (int i = 0; i < images; i++)
          #pragma GCC unroll 8
          for (int digit = 0; digit < 3; digit++) sums[i][digit] = _mm512_setzero_si512();
        for (ptrdiff_t c = 0; c < t->channels; c++)
          for (ptrdiff_t r = 0; r < t->rows; r++) {
            const unsigned char *x = t->x + c*t->x_channel + r*t->x_row;
            for (ptrdiff_t q = 0; q < words; q++) {
              __m512i digits[3];
              CY_PREFETCH(ahead);
              ahead += pace;
              #pragma GCC unroll 8
              for (int digit = 0; digit < 3; digit++) digits[digit] = _mm512_load_si512(w + 64*digit);
              #pragma GCC unroll 8
              for (int i = 0; i < images; i++) {
                __m512i word;
                if (shared) {
                  int32_t bytes;
                  memcpy(&bytes, x + i*x_image, 4);
                  word = _mm512_set1_epi32(bytes);
                } else
                  word = _mm512_loadu_si512(x + i*x_image);
                #pragma GCC unroll 8
                for (int digit = 0; digit < 3; digit++)
                  __asm__("vpdpbusd %2, %1, %0" : "+v"(sums[i][digit]) : "v"(word), "v"(digits[digit]));
              }
              w += 192;
              x += shared ? 4 : 64;
            }
          }
        __m512 unit = _mm512_loadu_ps(t->unit + 16*j), bias = _mm512_loadu_ps(t->bias + 16*j);
        #pragma GCC unroll 8
        for (int i = 0; i < images; i++) {
          __m512 base = _mm512_set1_ps(256), z = _mm512_cvtepi32_ps(sums[i][2]);
          z = _mm512_fmadd_ps(z, base, _mm512_cvtepi32_ps(sums[i][1]));
          z = _mm512_fmadd_ps(z, base, _mm512_cvtepi32_ps(sums[i][0]));
          z = _mm512_max_ps(_mm512_setzero_ps(), _mm512_fmadd_ps(z, unit, bias));     /* the second where one is NaN */
          _mm512_storeu_ps(t->out + i*t->out_image + j*t->out_column, z);
        }
      }
    }
    /* functions of their own: registers are allocated for each as a whole */
    #define CY_DIGITS(IMAGES, SHARED) \
      static void cy_digits_##IMAGES##_##SHARED(const cy_digit_tile *t) { cy_digits_here(IMAGES, SHARED, t); }
    CY_DIGITS(8, 0) CY_DIGITS(4, 0) CY_DIGITS(1, 0) CY_DIGITS(8, 1) CY_DIGITS(4, 1) CY_DIGITS(1, 1)
    static void cy_digits(int images, int shared, int vnni, const cy_digit_tile *t)
    {
      if (!vnni) cy_digits_plain(images, shared, t);
      else if (images == 8) (shared ? cy_digits_8_1 : cy_digits_8_0)(t);
      else if (images == 4) (shared ? cy_digits_4_1 : cy_digits_4_0)(t);
      else (shared ? cy_digits_1_1 : cy_digits_1_0)(t);
    }
    #else
    static void cy_digits(int images, int shared, int vnni, const cy_digit_tile *t)
    { (void)vnni; cy_digits_plain(images, shared, t); }
    #endif
    """
    ctypedef struct DigitTile "cy_digit_tile":
        const unsigned char* x
        idx x_image, x_channel, x_row, channels, rows, words
        const signed char* w
        const float* unit
        const float* bias
        float* out
        idx columns, out_column, out_image
        const char* ahead
        idx pace
    # 8, 4 or 1 images
    void digit_tile "cy_digits"(int images, bint shared, bint vnni, const DigitTile* tile) noexcept nogil
