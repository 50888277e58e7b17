/* Tiles: the inner loops of all products, in the vector extensions of GCC and Clang.

   What is computed, for each of float and double (tiles_of.h)
     outer     acc[i][v] = sum_k a[i, k] * b[k, v]           one scalar of a times vectors of b
     dot       z[i][j] (+)= sum_k a[i, k] * b[j, k]          vectors of both, lanes kept apart
     filters   z[i][j] = sum over images of sum_q g[i, q] * x[j, q]            likewise
     sparse    c[r] = start[r] + sum over the bits q of words[r], in their order, of a[r, q] * b[q]
     fold      out[q] = the lanes of z[q] added up
   Each keeps a small tile of results in registers for the whole of its loop. The sizes of the tile are constants where
   these functions are called, so that every loop over it is unrolled.

   Layout
     A vector is CY_LANES elements: one register, or the two or four (CY_PARTS) that hold them. Rows are padded to whole
     vectors.

   Order of sums
     An element of outer and sparse is one chain, in order. An element of dot and filters is a chain for each lane, and
     fold adds them pairwise (0+1, 2+3, ...). Nothing depends on the number of threads.

   Why not in Cython
     Of loops over lanes GCC makes vectors by itself, but on 16 registers it loads an operand again for each product and
     spills: 12 loads for 10 products where 7 do. Here an operand that is used more than once is loaded and held
     (CY_HOLD), and rows are addressed from two pointers that move along (CY_POINTER). A whole update is 1.1 to 1.2
     times as fast for it with AVX2, with the same bits.

   Ownership
     None: all memory is the callers'. */

#if !defined(__GNUC__) && !defined(__clang__)        /* clang-cl says the latter alone */
  #error "cyconv needs GCC or Clang; on Windows, clang-cl"
#endif
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
  #include <immintrin.h>
#elif defined(__aarch64__)
  #include <arm_neon.h>
#endif

/* Bytes of a register. */
#if defined(__AVX512F__)
  #define CY_BYTES 64
#elif defined(__AVX2__)
  #define CY_BYTES 32
#else
  #define CY_BYTES 16
#endif

/* Tile sizes fill the registers that the instruction set has: 32 (AVX-512; arm64, where two make a vector) or 16. */
#if defined(__AVX512F__)
  #define CY_LANES_FLOAT 16
  #define CY_ROWS 5
  #define CY_VECTORS_FLOAT 4
  #define CY_VECTORS_FEW 4
  #define CY_VECTORS_DOUBLE 4
  #define CY_DOT_ROWS_FLOAT 5
  #define CY_DOT_ROWS_DOUBLE 5
  #define CY_SPARSE_FLOAT 10
  #define CY_SPARSE_DOUBLE 10
#elif defined(__AVX2__) || defined(__aarch64__)
  #define CY_LANES_FLOAT 8
  #define CY_ROWS 5
  #define CY_VECTORS_FLOAT 2
  #define CY_VECTORS_FEW 3
  #define CY_VECTORS_DOUBLE 1
  #define CY_DOT_ROWS_FLOAT 2
  #define CY_DOT_ROWS_DOUBLE 1
  #define CY_SPARSE_FLOAT 10
  #define CY_SPARSE_DOUBLE 5
#else
  #define CY_LANES_FLOAT 8
  #define CY_ROWS 2
  #define CY_VECTORS_FLOAT 2
  #define CY_VECTORS_FEW 2
  #define CY_VECTORS_DOUBLE 1
  #define CY_DOT_ROWS_FLOAT 2
  #define CY_DOT_ROWS_DOUBLE 1
  #define CY_SPARSE_FLOAT 5
  #define CY_SPARSE_DOUBLE 2
#endif

#define CY_INLINE static inline __attribute__((always_inline))
#define CY_UNROLL _Pragma("GCC unroll 32")
/* An operand is in a register from here on (CY_HOLD), and until there (CY_USED): else GCC writes a sum over an operand
   at its last use, and copies the sum back. On 32 wide registers it does well alone. */
#if defined(__SSE2__) && !defined(__AVX512F__)
  #define CY_HOLD(x) __asm__("" : "+x"(x))
  #define CY_USED(x) __asm__("" : : "x"(x))
#elif defined(__aarch64__)
  #define CY_HOLD(x) __asm__("" : "+w"(x))
  #define CY_USED(x) __asm__("" : : "w"(x))
#else
  #define CY_HOLD(x) ((void)0)
  #define CY_USED(x) ((void)0)
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
  #define CY_CHAINS 20                  /* of the probe: as many as keep the multiply-add units busy */
#else
  #define CY_CHAINS 12
#endif
#define CY_POINTER(x) __asm__("" : "+r"(x))
#define CY_PREFETCH(address) __builtin_prefetch((address), 0, 2)

struct cy_products {                    /* what sparse adds up */
  ptrdiff_t n;                          /* rows, at most 64 */
  const unsigned long long *words;      /* a bit for each factor of a row that counts */
  ptrdiff_t a_row, a_q;                 /* from row to row, and from bit to bit, in a */
  ptrdiff_t ld_b, ld_start, ld_c, ld_ahead;
};

#define CY_REAL float
#define CY_LANES CY_LANES_FLOAT
#define CY_(name) cy_##name##_float
#define CY_ARM_ADD(t, x, y) vfmaq_laneq_f32((float32x4_t)(t), (float32x4_t)(y), (float32x4_t)(x), 0)
#define CY_ARM_LOAD "ldr %s0, %1"
#include "tiles_of.h"
#undef CY_ARM_ADD
#undef CY_ARM_LOAD
#undef CY_REAL
#undef CY_LANES
#undef CY_

#define CY_REAL double
#define CY_LANES 8
#define CY_(name) cy_##name##_double
#define CY_ARM_ADD(t, x, y) vfmaq_laneq_f64((float64x2_t)(t), (float64x2_t)(y), (float64x2_t)(x), 0)
#define CY_ARM_LOAD "ldr %d0, %1"
#include "tiles_of.h"
#undef CY_ARM_ADD
#undef CY_ARM_LOAD
#undef CY_REAL
#undef CY_LANES
#undef CY_

/* Lanes are added up in registers: two vectors give one that holds the sums of their neighbours, until so many have
   given one sum each. What is missing in the last group is filled up with what is there; `out` has room for it. */
#if defined(__AVX512F__)
CY_INLINE __m512 cy_near_float(__m512 a, __m512 b)
{ return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xDD)); }
CY_INLINE __m512 cy_far_float(__m512 a, __m512 b)
{ return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD)); }
CY_INLINE __m512d cy_near_double(__m512d a, __m512d b)
{ return _mm512_add_pd(_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b)); }
CY_INLINE __m512d cy_far_double(__m512d a, __m512d b)
{ return _mm512_add_pd(_mm512_shuffle_f64x2(a, b, 0x88), _mm512_shuffle_f64x2(a, b, 0xDD)); }
CY_INLINE void cy_fold_float(const int n, const float *z, float *out)
{
  __m512 quad[8];
  CY_UNROLL for (int q = 0; q < 8 && 4*q < n; q++) {
    __m512 v[4];
    CY_UNROLL for (int i = 0; i < 4; i++) v[i] = _mm512_loadu_ps(z + 16*(4*q + i < n ? 4*q + i : 4*q));
    quad[q] = cy_near_float(cy_near_float(v[0], v[1]), cy_near_float(v[2], v[3]));
  }
  CY_UNROLL for (int s = 0; s < 2 && 16*s < n; s++) {
    __m512 w[4];
    CY_UNROLL for (int i = 0; i < 4; i++) w[i] = quad[16*s + 4*i < n ? 4*s + i : 4*s];
    _mm512_storeu_ps(out + 16*s, cy_far_float(cy_far_float(w[0], w[1]), cy_far_float(w[2], w[3])));
  }
}
CY_INLINE void cy_fold_double(const int n, const double *z, double *out)
{
  __m512d pair[13];
  CY_UNROLL for (int q = 0; q < 13 && 2*q < n; q++)
    pair[q] = cy_near_double(_mm512_loadu_pd(z + 16*q), _mm512_loadu_pd(z + 8*(2*q + 1 < n ? 2*q + 1 : 2*q)));
  CY_UNROLL for (int s = 0; s < 4 && 8*s < n; s++) {
    __m512d w[4];
    CY_UNROLL for (int i = 0; i < 4; i++) w[i] = pair[8*s + 2*i < n ? 4*s + i : 4*s];
    _mm512_storeu_pd(out + 8*s, cy_far_double(cy_far_double(w[0], w[1]), cy_far_double(w[2], w[3])));
  }
}
#else
  #if defined(__AVX2__)
CY_INLINE void cy_fold_four(const float *const *v, float *out)
{
  __m256 low = _mm256_hadd_ps(_mm256_loadu_ps(v[0]), _mm256_loadu_ps(v[1]));
  __m256 sums = _mm256_hadd_ps(low, _mm256_hadd_ps(_mm256_loadu_ps(v[2]), _mm256_loadu_ps(v[3])));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1)));
}
  #elif defined(__SSE2__) || defined(__aarch64__)
CY_INLINE cy_part_float cy_near_float(cy_part_float a, cy_part_float b)
{
    #if defined(__aarch64__)
  return (cy_part_float)vpaddq_f32((float32x4_t)a, (float32x4_t)b);
    #else
  return (cy_part_float)_mm_shuffle_ps((__m128)a, (__m128)b, 0x88)
         + (cy_part_float)_mm_shuffle_ps((__m128)a, (__m128)b, 0xDD);
    #endif
}
CY_INLINE void cy_fold_four(const float *const *v, float *out)
{
  cy_part_float w[4];
  CY_UNROLL for (int i = 0; i < 4; i++) w[i] = cy_near_float(cy_load_float(v[i]), cy_load_float(v[i] + 4));
  cy_store_float(out, cy_near_float(cy_near_float(w[0], w[1]), cy_near_float(w[2], w[3])));
}
  #else
CY_INLINE void cy_fold_four(const float *const *v, float *out)
{
  for (int i = 0; i < 4; i++)
    out[i] = ((v[i][0] + v[i][1]) + (v[i][2] + v[i][3])) + ((v[i][4] + v[i][5]) + (v[i][6] + v[i][7]));
}
  #endif
CY_INLINE void cy_fold_float(const int n, const float *z, float *out)
{
  CY_UNROLL for (int q = 0; q < n; q += 4) {
    const float *v[4];
    CY_UNROLL for (int i = 0; i < 4; i++) v[i] = z + 8*(q + i < n ? q + i : q);
    cy_fold_four(v, out + q);
  }
}
CY_INLINE void cy_fold_double(const int n, const double *z, double *out)
{
  for (int q = 0; q < n; q++, z += 8) out[q] = ((z[0] + z[1]) + (z[2] + z[3])) + ((z[4] + z[5]) + (z[6] + z[7]));
}
#endif

/* Non-temporal stores. n is a multiple of a vector's bytes (64 with AVX-512, else 32), and so is the address. */
static inline void cy_stream(void *to, const void *from, ptrdiff_t n)
{
#if defined(__AVX512F__)
  for (ptrdiff_t i = 0; i < n; i += 64)
    _mm512_stream_si512((__m512i *)((char *)to + i), _mm512_loadu_si512((const char *)from + i));
#elif defined(__AVX__)
  for (ptrdiff_t i = 0; i < n; i += 32)
    _mm256_stream_si256((__m256i *)((char *)to + i), _mm256_loadu_si256((const __m256i *)((const char *)from + i)));
#elif defined(__SSE2__)
  for (ptrdiff_t i = 0; i < n; i += 16)
    _mm_stream_si128((__m128i *)((char *)to + i), _mm_loadu_si128((const __m128i *)((const char *)from + i)));
#else
  memcpy(to, from, n);
#endif
}
static inline void cy_stream_end(void)
{
#if defined(__SSE2__)
  _mm_sfence();
#endif
}
