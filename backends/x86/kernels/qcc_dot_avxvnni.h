/* Dot products of int8 with AVX-VNNI: 32 bits hold four activations as uint8, x + 128.
 *
 * vpdpbusd multiplies unsigned by signed bytes. The compiler has put -128 * sum(w) into the bias, so the sums are those of
 * int8 by int8.
 */
#ifndef QCC_DOT_AVXVNNI_H
#define QCC_DOT_AVXVNNI_H

#if !defined(__AVXVNNI__)
#error "this library needs a processor with AVX-VNNI: compile with -mavx2 -mavxvnni"
#endif

#include "qcc_avx2.h"

#define QCC_GROUP 4         /* activations in 32 bits */
#define QCC_ELEMENT_BYTES 1 /* of an activation in the workspace */

typedef int8_t qcc_weight; /* of a convolution */

/* Eight channels of QCC_GROUP weights each. */
QCC_INLINE __m256i qcc_weights(const qcc_weight *w) { return qcc_load(w); }

/* The same from int8. */
QCC_INLINE __m256i qcc_weights_s8(const int8_t *w) { return qcc_load(w); }

/* acc += x * w. The empty statement keeps the sums in their registers: gcc 12 otherwise moves them about. */
QCC_INLINE void qcc_dot(__m256i *acc, __m256i x, __m256i w) {
  *acc = _mm256_dpbusd_avx_epi32(*acc, x, w);
  __asm__("" : "+x"(*acc));
}

/* The same with int16 in pairs. */
QCC_INLINE void qcc_dot16(__m256i *acc, __m256i x, __m256i w) {
  *acc = _mm256_dpwssd_avx_epi32(*acc, x, w);
  __asm__("" : "+x"(*acc));
}

#endif
