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
#   setup.py defines CY_VNNI where the assembler knows it.

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
    #if defined(CY_VNNI)
      #if defined(__AVX512F__)
        #define CY_OUTPUTS 16           /* of a register */
        #define CY_TOGETHER 8           /* images whose sums fill the registers */
        #define CY_INTS(operation) _mm512_##operation##_si512
        #define CY_VECTOR(operation) _mm512_##operation
        #define CY_MULTIPLY_BYTES "vpdpbusd %2, %1, %0"
    typedef __m512i cy_ints;
    typedef __m512 cy_floats;
      #else
        #define CY_OUTPUTS 8
        #define CY_TOGETHER 4
        #define CY_INTS(operation) _mm256_##operation##_si256
        #define CY_VECTOR(operation) _mm256_##operation
        #define CY_MULTIPLY_BYTES "%{vex%} vpdpbusd %2, %1, %0"
    typedef __m256i cy_ints;
    typedef __m256 cy_floats;
      #endif
    /* a register's outputs of column j, for at most CY_TOGETHER images from `first` on */
    static inline __attribute__((always_inline)) void cy_digits_part(int images, int shared, const cy_digit_tile *t,
                                                                     ptrdiff_t j, int part, int first, ptrdiff_t pace)
    {
      cy_ints sums[CY_TOGETHER][3];
      ptrdiff_t x_image = t->x_image, words = t->words;
      const signed char *w = t->w + 192*j*t->channels*t->rows*words + 4*CY_OUTPUTS*part;
      const char *ahead = t->ahead + pace*j*t->channels*t->rows*words;
      #pragma GCC unroll 8
      for (int i = 0; i < images; i++)
        #pragma GCC unroll 8
        for (int digit = 0; digit < 3; digit++) sums[i][digit] = CY_INTS(setzero)();
      for (ptrdiff_t c = 0; c < t->channels; c++)
        for (ptrdiff_t r = 0; r < t->rows; r++) {
          const unsigned char *x = t->x + first*x_image + c*t->x_channel + r*t->x_row + (shared ? 0 : 4*CY_OUTPUTS*part);
          for (ptrdiff_t q = 0; q < words; q++) {
            cy_ints digits[3];
            CY_PREFETCH(ahead);
            ahead += pace;
            #pragma GCC unroll 8
            for (int digit = 0; digit < 3; digit++) digits[digit] = CY_INTS(load)((const cy_ints *)(w + 64*digit));
            #pragma GCC unroll 8
            for (int i = 0; i < images; i++) {
              cy_ints word;
              if (shared) {
                int32_t bytes;
                memcpy(&bytes, x + i*x_image, 4);
                word = CY_VECTOR(set1_epi32)(bytes);
              } else
                word = CY_INTS(loadu)((const cy_ints *)(x + i*x_image));
              #pragma GCC unroll 8
              for (int digit = 0; digit < 3; digit++)
                __asm__(CY_MULTIPLY_BYTES : "+v"(sums[i][digit]) : "v"(word), "v"(digits[digit]));
            }
            w += 192;
            x += shared ? 4 : 64;
          }
        }
      cy_floats unit = CY_VECTOR(loadu_ps)(t->unit + 16*j + CY_OUTPUTS*part);
      cy_floats bias = CY_VECTOR(loadu_ps)(t->bias + 16*j + CY_OUTPUTS*part);
      #pragma GCC unroll 8
      for (int i = 0; i < images; i++) {
        cy_floats base = CY_VECTOR(set1_ps)(256), z = CY_VECTOR(cvtepi32_ps)(sums[i][2]);
        z = CY_VECTOR(fmadd_ps)(z, base, CY_VECTOR(cvtepi32_ps)(sums[i][1]));
        z = CY_VECTOR(fmadd_ps)(z, base, CY_VECTOR(cvtepi32_ps)(sums[i][0]));
        z = CY_VECTOR(fmadd_ps)(z, unit, bias);
        z = CY_VECTOR(max_ps)(CY_VECTOR(setzero_ps)(), z);      /* the second where one is NaN */
        CY_VECTOR(storeu_ps)(t->out + (first + i)*t->out_image + j*t->out_column + CY_OUTPUTS*part, z);
      }
    }
    static inline __attribute__((always_inline)) void cy_digits_here(int images, int shared, const cy_digit_tile *t)
    {
      for (ptrdiff_t j = 0; j < t->columns; j++)
        for (int part = 0; part < 16/CY_OUTPUTS; part++)
          for (int first = 0; first < images; first += CY_TOGETHER)
            cy_digits_part(images < CY_TOGETHER ? images : CY_TOGETHER, shared, t, j, part, first,
                           part || first ? 0 : t->pace);
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
