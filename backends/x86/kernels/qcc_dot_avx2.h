/* Dot products of int8 without VNNI: 32 bits hold two activations as int16.
 *
 * vpmaddwd takes the full range: the sum of two products fits 32 bits. vpmaddubsw would take twice as many products, but
 * saturates at 16 bits, where 255 * 127 * 2 does not fit: 4 to 9 of 10 groups of 16 x 4 weights of real models could get
 * there, and a second pass for those costs more than is gained. On Zen 5, with 6 x 2 vectors in a tile and all in the
 * first-level cache, GMAC/s: vpmaddwd and vpaddd 112; with weights that vpmovsxbw widens 107; vpmaddubsw, vpmaddwd and vpaddd
 * 132; the same behind vpsignb, which is exact, 98.
 */
#ifndef QCC_DOT_AVX2_H
#define QCC_DOT_AVX2_H

#include "qcc_avx2.h"

#define QCC_GROUP 2         /* activations in 32 bits */
#define QCC_ELEMENT_BYTES 2 /* of an activation in the workspace */

typedef int16_t qcc_weight; /* of a convolution: it is read many times */

/* Eight channels of QCC_GROUP weights each. */
QCC_INLINE __m256i qcc_weights(const qcc_weight *w) { return qcc_load(w); }

/* The same from int8. */
QCC_INLINE __m256i qcc_weights_s8(const int8_t *w) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)w));
}

/* acc += x * w. As an instruction of two operands: gcc 12 otherwise moves the sums about, at half the speed. */
QCC_INLINE void qcc_dot16(__m256i *acc, __m256i x, __m256i w) {
  const __m256i product = _mm256_madd_epi16(x, w);
  __asm__("vpaddd %1, %0, %0" : "+x"(*acc) : "x"(product));
}

QCC_INLINE void qcc_dot(__m256i *acc, __m256i x, __m256i w) { qcc_dot16(acc, x, w); }

#endif
