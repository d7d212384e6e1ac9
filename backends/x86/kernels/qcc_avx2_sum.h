/* Sums over pixels of 16 channels. */
#ifndef QCC_AVX2_SUM_H
#define QCC_AVX2_SUM_H

#include "qcc_avx2.h"

/* acc[0..1] += the sum over `count` pixels, `step` bytes apart, of `width` channels (16 or more: 16). As int16 up to 255 are
 * added: 255 * 128 fits.
 */
QCC_INLINE void qcc_sum(__m256i *acc, const int8_t *x, ptrdiff_t step, int32_t count, int32_t width) {
  while (count > 0) {
    const int32_t part = count < 255 ? count : 255;
    __m256i sum = _mm256_setzero_si256(), terms[2];
    for (int32_t i = 0; i < part; ++i, x += step) {
      sum = _mm256_add_epi16(sum, _mm256_cvtepi8_epi16(qcc_load_bytes(x, width)));
    }
    qcc_widen(sum, &terms[0], &terms[1]);
    acc[0] = _mm256_add_epi32(acc[0], terms[0]);
    acc[1] = _mm256_add_epi32(acc[1], terms[1]);
    count -= part;
  }
}

#endif
