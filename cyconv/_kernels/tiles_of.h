/* The loops that tiles.h describes, for one type CY_REAL of CY_LANES lanes; CY_(name) names them. */

#define CY_PARTS (CY_LANES*(int)sizeof(CY_REAL)/CY_BYTES)
#define CY_PART (CY_BYTES/(int)sizeof(CY_REAL))

typedef CY_REAL CY_(part) __attribute__((vector_size(CY_BYTES), aligned(sizeof(CY_REAL)), may_alias));

CY_INLINE CY_(part) CY_(load)(const CY_REAL *p) { return *(const CY_(part) *)p; }
CY_INLINE void CY_(store)(CY_REAL *p, CY_(part) x) { *(CY_(part) *)p = x; }

/* A scalar for products with vectors. Arm multiplies by one lane of a register: to copy it to all would take the place of
   a multiply-add. */
#if defined(__aarch64__)
CY_INLINE CY_(part) CY_(scalar)(const CY_REAL *p)
{
  CY_(part) x;
  __asm__(CY_ARM_LOAD : "=w"(x) : "m"(*p));
  return x;
}
CY_INLINE CY_(part) CY_(add)(CY_(part) t, CY_(part) x, CY_(part) y)
{ return (CY_(part))CY_ARM_ADD(t, x, y); }
#else
CY_INLINE CY_(part) CY_(scalar)(const CY_REAL *p) { return *p - (CY_(part)){0}; }
CY_INLINE CY_(part) CY_(add)(CY_(part) t, CY_(part) x, CY_(part) y) { return t + x*y; }
#endif

CY_INLINE void CY_(outer)(const int rows, const int vectors, ptrdiff_t n, const CY_REAL *a, ptrdiff_t a_row,
                          const CY_REAL *b, ptrdiff_t b_v, ptrdiff_t b_k, const char *ahead, ptrdiff_t ahead_step,
                          CY_REAL *acc)
{
  CY_(part) t[5][4][CY_PARTS];
  const CY_REAL *a3 = a + 3*a_row, *end = a + n;
  CY_UNROLL for (int i = 0; i < rows; i++)
    CY_UNROLL for (int v = 0; v < vectors; v++)
      CY_UNROLL for (int s = 0; s < CY_PARTS; s++) t[i][v][s] = (CY_(part)){0};
  do {
    CY_(part) y[4][CY_PARTS];
    CY_PREFETCH(ahead);
    ahead += ahead_step;
    CY_UNROLL for (int v = 0; v < vectors; v++)
      CY_UNROLL for (int s = 0; s < CY_PARTS; s++) {
        y[v][s] = CY_(load)(b + v*b_v + s*CY_PART);
        CY_HOLD(y[v][s]);
      }
    CY_UNROLL for (int i = 0; i < rows; i++) {
      CY_(part) x = CY_(scalar)(i < 3 ? a + i*a_row : a3 + (i - 3)*a_row);
      CY_HOLD(x);
      CY_UNROLL for (int v = 0; v < vectors; v++)
        CY_UNROLL for (int s = 0; s < CY_PARTS; s++) t[i][v][s] = CY_(add)(t[i][v][s], x, y[v][s]);
      CY_USED(x);
    }
    CY_UNROLL for (int v = 0; v < vectors; v++)
      CY_UNROLL for (int s = 0; s < CY_PARTS; s++) CY_USED(y[v][s]);
    a++, a3++, b += b_k;
    CY_POINTER(a);
    CY_POINTER(b);
    if (rows > 3) CY_POINTER(a3);
  } while (a != end);
  CY_UNROLL for (int i = 0; i < rows; i++)
    CY_UNROLL for (int v = 0; v < vectors; v++)
      CY_UNROLL for (int s = 0; s < CY_PARTS; s++) CY_(store)(acc + (i*vectors + v)*CY_LANES + s*CY_PART, t[i][v][s]);
}

CY_INLINE void CY_(dot)(const int rows, const int columns, const int first, ptrdiff_t n, const CY_REAL *a,
                        ptrdiff_t a_row, const CY_REAL *b, ptrdiff_t b_row, const char *ahead, ptrdiff_t ahead_step,
                        CY_REAL *z)
{
  CY_(part) t[5][5][CY_PARTS];
  const CY_REAL *a3 = a + 3*a_row, *b3 = b + 3*b_row, *end = a + n*CY_LANES;
  CY_UNROLL for (int i = 0; i < rows; i++)
    CY_UNROLL for (int j = 0; j < columns; j++)
      CY_UNROLL for (int s = 0; s < CY_PARTS; s++)
        t[i][j][s] = first ? (CY_(part)){0} : CY_(load)(z + (i*columns + j)*CY_LANES + s*CY_PART);
  do {
    CY_PREFETCH(ahead);
    ahead += ahead_step;
    CY_UNROLL for (int s = 0; s < CY_PARTS; s++) {
      CY_(part) x[5];
      CY_UNROLL for (int i = 0; i < rows; i++) {
        x[i] = CY_(load)((i < 3 ? a + i*a_row : a3 + (i - 3)*a_row) + s*CY_PART);
        CY_HOLD(x[i]);
      }
      CY_UNROLL for (int j = 0; j < columns; j++) {
        CY_(part) y = CY_(load)((j < 3 ? b + j*b_row : b3 + (j - 3)*b_row) + s*CY_PART);
        CY_HOLD(y);
        CY_UNROLL for (int i = 0; i < rows; i++) t[i][j][s] += x[i]*y;
      }
    }
    a += CY_LANES, a3 += CY_LANES, b += CY_LANES, b3 += CY_LANES;
    CY_POINTER(a);
    CY_POINTER(b);
    if (rows > 3) CY_POINTER(a3);
    if (columns > 3) CY_POINTER(b3);
  } while (a != end);
  CY_UNROLL for (int i = 0; i < rows; i++)
    CY_UNROLL for (int j = 0; j < columns; j++)
      CY_UNROLL for (int s = 0; s < CY_PARTS; s++) CY_(store)(z + (i*columns + j)*CY_LANES + s*CY_PART, t[i][j][s]);
}

CY_INLINE void CY_(filters)(const int rows, const int columns, ptrdiff_t n_images, ptrdiff_t n, const CY_REAL *g,
                            ptrdiff_t g_size, const CY_REAL *x, ptrdiff_t x_size, ptrdiff_t ld, CY_REAL *z)
{
  CY_(part) t[5][4][CY_PARTS];
  CY_UNROLL for (int i = 0; i < rows; i++)
    CY_UNROLL for (int j = 0; j < columns; j++)
      CY_UNROLL for (int s = 0; s < CY_PARTS; s++) t[i][j][s] = (CY_(part)){0};
  for (ptrdiff_t image = 0; image < n_images; image++) {
    const CY_REAL *gi = g + image*g_size, *g3 = gi + 3*ld, *xi = x + image*x_size, *end = gi + n*CY_LANES;
    do {
      CY_UNROLL for (int s = 0; s < CY_PARTS; s++) {
        CY_(part) y[4];
        CY_UNROLL for (int j = 0; j < columns; j++) {
          y[j] = CY_(load)(xi + j*ld + s*CY_PART);
          CY_HOLD(y[j]);
        }
        CY_UNROLL for (int i = 0; i < rows; i++) {
          CY_(part) w = CY_(load)((i < 3 ? gi + i*ld : g3 + (i - 3)*ld) + s*CY_PART);
          CY_HOLD(w);
          CY_UNROLL for (int j = 0; j < columns; j++) t[i][j][s] += w*y[j];
          CY_USED(w);
        }
        CY_UNROLL for (int j = 0; j < columns; j++) CY_USED(y[j]);
      }
      gi += CY_LANES, g3 += CY_LANES, xi += CY_LANES;
      CY_POINTER(gi);
      CY_POINTER(xi);
      if (rows > 3) CY_POINTER(g3);
    } while (gi != end);
  }
  CY_UNROLL for (int i = 0; i < rows; i++)
    CY_UNROLL for (int j = 0; j < columns; j++)
      CY_UNROLL for (int s = 0; s < CY_PARTS; s++) CY_(store)(z + (i*columns + j)*CY_LANES + s*CY_PART, t[i][j][s]);
}

/* Rows of groups*each vectors: GCC unrolls no loop of more than seven. */
CY_INLINE void CY_(sparse)(const int groups, const int each, const struct cy_products *of, const CY_REAL *a,
                           const CY_REAL *b, const CY_REAL *start, CY_REAL *c, const CY_REAL *ahead)
{
  const ptrdiff_t a_row = of->a_row, a_q = of->a_q, ld_b = of->ld_b;
  for (ptrdiff_t r = 0; r < of->n; r++, a += a_row, start += of->ld_start, c += of->ld_c) {
    CY_(part) t[3][7][CY_PARTS];
    unsigned long long bits = of->words[r];
    if (ahead)
      for (int v = 0; v < groups*each; v++) CY_PREFETCH(ahead + r*of->ld_ahead + v*CY_LANES);
    CY_UNROLL for (int g = 0; g < groups; g++)
      CY_UNROLL for (int v = 0; v < each; v++)
        CY_UNROLL for (int s = 0; s < CY_PARTS; s++)
          t[g][v][s] = CY_(load)(start + (g*each + v)*CY_LANES + s*CY_PART);
    while (bits) {
      const ptrdiff_t q = __builtin_ctzll(bits);
      const CY_REAL *row = b + q*ld_b;
      const CY_(part) x = CY_(scalar)(a + q*a_q);
      bits &= bits - 1;
      CY_POINTER(row);
      CY_UNROLL for (int g = 0; g < groups; g++)
        CY_UNROLL for (int v = 0; v < each; v++)
          CY_UNROLL for (int s = 0; s < CY_PARTS; s++)
            t[g][v][s] = CY_(add)(t[g][v][s], x, CY_(load)(row + (g*each + v)*CY_LANES + s*CY_PART));
    }
    CY_UNROLL for (int g = 0; g < groups; g++)
      CY_UNROLL for (int v = 0; v < each; v++)
        CY_UNROLL for (int s = 0; s < CY_PARTS; s++)
          CY_(store)(c + (g*each + v)*CY_LANES + s*CY_PART, t[g][v][s]);
  }
}

/* A function for each width: compilers allocate registers for a function as a whole. */
#define CY_WIDTH(vectors, groups, each) \
  static __attribute__((noinline)) void CY_(sparse_##vectors)(const struct cy_products *of, const CY_REAL *a, \
                                                              const CY_REAL *b, const CY_REAL *start, CY_REAL *c, \
                                                              const CY_REAL *ahead) \
  { CY_(sparse)(groups, each, of, a, b, start, c, ahead); }
CY_WIDTH(1, 1, 1)
CY_WIDTH(2, 1, 2)
CY_WIDTH(3, 1, 3)
CY_WIDTH(4, 1, 4)
CY_WIDTH(5, 1, 5)
CY_WIDTH(6, 1, 6)
CY_WIDTH(7, 1, 7)
CY_WIDTH(8, 2, 4)
CY_WIDTH(9, 3, 3)
CY_WIDTH(10, 2, 5)
#undef CY_WIDTH

/* Rows of at most ten vectors. */
static void CY_(add_rows)(ptrdiff_t vectors, const struct cy_products *of, const CY_REAL *a, const CY_REAL *b,
                          const CY_REAL *start, CY_REAL *c, const CY_REAL *ahead)
{
  static void (*const widths[])(const struct cy_products *, const CY_REAL *, const CY_REAL *, const CY_REAL *,
                                CY_REAL *, const CY_REAL *) = {
    CY_(sparse_1), CY_(sparse_2), CY_(sparse_3), CY_(sparse_4), CY_(sparse_5),
    CY_(sparse_6), CY_(sparse_7), CY_(sparse_8), CY_(sparse_9), CY_(sparse_10),
  };
  widths[vectors - 1](of, a, b, start, c, ahead);
}

/* n rounds of CY_CHAINS multiply-adds that wait for nothing but themselves */
static CY_REAL CY_(probe)(ptrdiff_t n, const CY_REAL *seed)
{
  CY_(part) t[CY_CHAINS], total = {0}, x = CY_(load)(seed);
  CY_UNROLL for (int i = 0; i < CY_CHAINS; i++) t[i] = x + (CY_REAL)i;
  for (ptrdiff_t round = 0; round < n; round++) {
    CY_UNROLL for (int i = 0; i < CY_CHAINS; i++) t[i] = t[i]*x + x;
  }
  CY_UNROLL for (int i = 0; i < CY_CHAINS; i++) total += t[i];
  return total[0];
}

#undef CY_PARTS
#undef CY_PART
