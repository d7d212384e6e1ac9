/* The most that vpdpbusd can do on one core: 24 independent accumulators, operands in registers.
 * double qcc_peak(long rounds): multiply-accumulates done; the caller takes the time.
 */
#include <immintrin.h>

#define ACCUMULATORS 24
#define UNROLL _Pragma("GCC unroll 24")

double qcc_peak(long rounds);

static volatile int sink;

double qcc_peak(long rounds) {
  __m512i acc[ACCUMULATORS], a = _mm512_set1_epi32(0x01020304), b = _mm512_set1_epi32(0x04030201);
  long r;
  int i;
  UNROLL for (i = 0; i < ACCUMULATORS; ++i) {
    acc[i] = _mm512_setzero_si512();
    __asm__ volatile("" : "+v"(acc[i])); /* distinct to the compiler */
  }
  for (r = 0; r < rounds; ++r) {
    UNROLL for (i = 0; i < ACCUMULATORS; ++i) { acc[i] = _mm512_dpbusd_epi32(acc[i], a, b); }
    __asm__ volatile("" : "+v"(a), "+v"(b)); /* not the same product every time */
  }
  UNROLL for (i = 1; i < ACCUMULATORS; ++i) { acc[0] = _mm512_add_epi32(acc[0], acc[i]); }
  sink = _mm_cvtsi128_si32(_mm512_castsi512_si128(acc[0]));
  return 64.0 * ACCUMULATORS * (double)rounds;
}
