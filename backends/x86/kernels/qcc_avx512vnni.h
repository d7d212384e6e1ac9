/* What the AVX512-VNNI kernels share: the requantizing epilogue and the register tile.
 *
 * vpdpbusd multiplies unsigned by signed bytes. Activations are int8 in memory; x ^ 0x80 is x + 128 as uint8, and the
 * compiler has put -128 * sum(w) into the bias, so the sums are those of int8 by int8.
 *
 * Requantization: round_half_even(float(acc) * scale) + zero_point, saturated. The compiler certified for each channel that
 * this equals the 64-bit definition (qcc_requantize.h) for every accumulator that can occur.
 */
#ifndef QCC_AVX512VNNI_H
#define QCC_AVX512VNNI_H

#if !defined(__AVX512VNNI__) || !defined(__AVX512BW__) || !defined(__AVX512VL__)
#error "this library needs a processor with AVX512-VNNI: compile with -mavx512f -mavx512bw -mavx512vl -mavx512vnni"
#endif

/* gcc 12, as C++, warns of what its own header leaves undefined on purpose (its bug 105593). */
#if defined(__cplusplus) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__cplusplus) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include "qcc_x86_kernels.h"

#define QCC_INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define QCC_UNROLL _Pragma("clang loop unroll(full)")
#else
#define QCC_UNROLL _Pragma("GCC unroll 64")
#endif

/* Four int8 activations, repeated in all lanes, as uint8. */
QCC_INLINE __m512i qcc_broadcast_u8(const int8_t *x) {
  int32_t word;
  __builtin_memcpy(&word, x, 4);
  return _mm512_xor_si512(_mm512_set1_epi32(word), _mm512_set1_epi32((int32_t)0x80808080));
}

/* The first `count` (1 to 3) of four activations; the others meet weights that are zero. */
QCC_INLINE __m512i qcc_broadcast_u8_part(const int8_t *x, int32_t count) {
  uint32_t word = (uint8_t)x[0];
  if (count > 1) {
    word |= (uint32_t)(uint8_t)x[1] << 8;
  }
  if (count > 2) {
    word |= (uint32_t)(uint8_t)x[2] << 16;
  }
  return _mm512_xor_si512(_mm512_set1_epi32((int32_t)word), _mm512_set1_epi32((int32_t)0x80808080));
}

typedef struct {
  __m512i zero_point, low, high;
} qcc_avx512_output;

/* 16 accumulators to 16 int8. */
QCC_INLINE __m128i qcc_avx512_requantize(__m512i acc, __m512 scale, qcc_avx512_output o) {
  __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale));
  q = _mm512_add_epi32(q, o.zero_point);
  q = _mm512_min_epi32(_mm512_max_epi32(q, o.low), o.high);
  return _mm512_cvtepi32_epi8(q);
}

#endif
