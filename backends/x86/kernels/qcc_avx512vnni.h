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

#include "qcc_vectors.h"
#include "qcc_x86.h"
#include "qcc_x86_kernels.h"

/* Where the uses of a vector are few, gcc would read it from memory for each of them, and loads would be the limit. */
#define QCC_IN_REGISTER(x) __asm__("" : "+v"(x))

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

#define QCC_ROUNDED_BITS 0x4B400000 /* of 1.5 * 2^23 as float */

/* round_half_even(acc * scale) + zero_point in int32, 16 lanes. A float of 1.5 * 2^23 + n has n in its low bits, so one
 * fused multiply-add scales, rounds (once) and converts. See single_rounding in vnni.py for when this is exact.
 * integer: 1.5 * 2^23 + zero_point; bits: QCC_ROUNDED_BITS. */
QCC_INLINE __m512i qcc_requantize_bits(__m512i acc, __m512 scale, __m512 integer, __m512i bits) {
  return _mm512_sub_epi32(_mm512_castps_si512(_mm512_fmadd_ps(_mm512_cvtepi32_ps(acc), scale, integer)), bits);
}

/* The same for any zero_point. */
QCC_INLINE __m512i qcc_requantize_rounded(__m512i acc, __m512 scale, int32_t zero_point) {
  const __m512 integer = _mm512_set1_ps((float)(0xC00000 + zero_point));
  return qcc_requantize_bits(acc, scale, integer, _mm512_set1_epi32(QCC_ROUNDED_BITS));
}

/* The 64-bit definition (qcc_requantize.h), saturated to 16 bits, 16 lanes. */
QCC_INLINE __m512i qcc_requantize_exact(__m512i acc, __m512i multiplier, __m512i shift, int32_t zero_point) {
  const __m512i one = _mm512_set1_epi64(1), low32 = _mm512_set1_epi64(0xFFFFFFFF);
  __m512i half[2];
  QCC_UNROLL
  for (int i = 0; i < 2; ++i) { /* even lanes, odd lanes */
    const __m512i a = i ? _mm512_srli_epi64(acc, 32) : acc, m = i ? _mm512_srli_epi64(multiplier, 32) : multiplier;
    const __m512i s = i ? _mm512_srli_epi64(shift, 32) : _mm512_and_si512(shift, low32);
    const __m512i rounding = _mm512_sllv_epi64(one, _mm512_sub_epi64(s, one));
    const __m512i q = _mm512_srav_epi64(_mm512_add_epi64(_mm512_mul_epi32(a, m), rounding), s);
    half[i] = _mm512_add_epi64(_mm512_max_epi64(_mm512_min_epi64(q, _mm512_set1_epi64(16383)), _mm512_set1_epi64(-16384)),
                               _mm512_set1_epi64(zero_point));
  }
  return _mm512_mask_blend_epi32(0xAAAA, half[0], _mm512_slli_epi64(half[1], 32));
}

#endif
