/* Tensors of 8 and 16 bits in vectors: loads, the residual operand, the exact requantization, stores.
 *
 * A pair is two vectors of sums, of 32 channels that lie side by side in memory: the even ones, and the odd ones. So 32
 * int16, seen as 16 int32, are those that belong to its sums in their low and in their high halves, and nothing moves from
 * lane to lane, which a processor may do but once in a cycle. Arrays with an entry for each channel are packed in that
 * order, [2][16]. Of 16 channels there is one vector, in the order of memory.
 *
 * Sums are held as sum + 2^31, without sign, modulo 2^32: the compiler adds it to the bias.
 */
#ifndef QCC_AVX512_WIDE_H
#define QCC_AVX512_WIDE_H

#include "qcc_avx512_wide_kernels.h"
#include "qcc_avx512vnni.h"

/* The first `count` of 32 lanes (32 or more: all). */
QCC_INLINE __mmask32 qcc_wide_lanes(int32_t count) {
  return count >= 32 ? ~(__mmask32)0 : ((__mmask32)1 << count) - 1;
}

/* 32 elements as int16; those that `lanes` does not name are zero, and not read. */
QCC_INLINE __m512i qcc_wide_loads(const void *x, ptrdiff_t at, int32_t bytes, __mmask32 lanes) {
  return bytes == 2 ? _mm512_maskz_loadu_epi16(lanes, (const int16_t *)x + at)
                    : _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(lanes, (const int8_t *)x + at));
}

/* ---------------------------------------------------------------- requantization */

/* What is the same for all channels. */
typedef struct {
  __m512i magic;     /* 2^52 as float64 */
  __m512d zero;      /* the float64 of a sum that is 0 */
  __m512d addend;    /* 1.5 * 2^52 + 2 * zero_point + 1 */
  __m512i low, high; /* 2 * low, 2 * high + 1 */
  int32_t skip_bytes, output_bytes;
} qcc_wide_output;

QCC_INLINE qcc_wide_output qcc_wide_saturation(int32_t zero_point, int32_t low, int32_t high, int32_t skip_bytes,
                                               int32_t output_bytes) {
  const qcc_wide_output o = {_mm512_set1_epi64(0x4330000000000000), _mm512_set1_pd(4503599627370496.0 + 2147483648.0),
                             _mm512_set1_pd(6755399441055744.0 + (double)(2 * zero_point + 1)), _mm512_set1_epi32(2 * low),
                             _mm512_set1_epi32(2 * high + 1), skip_bytes, output_bytes};
  return o;
}

/* 2 * multiplier * 2^-shift, exact, of 16 sums: those of the even lanes, then those of the odd ones. */
QCC_INLINE void qcc_wide_scale(const int32_t *multiplier, const int32_t *shift, double *scale) {
  __m512i m = _mm512_loadu_si512(multiplier), s = _mm512_loadu_si512(shift);
  for (int i = 0; i < 16; i += 8) {
    const __m512i exponent = _mm512_sub_epi64(_mm512_set1_epi64(1024), _mm512_and_si512(s, _mm512_set1_epi64(0xFFFFFFFF)));
    const __m512d power = _mm512_castsi512_pd(_mm512_slli_epi64(exponent, 52)); /* 2^(1 - shift) */
    _mm512_storeu_pd(scale + i, _mm512_mul_pd(_mm512_cvtepi32_pd(_mm512_cvtepi64_epi32(m)), power));
    m = _mm512_srli_epi64(m, 32);
    s = _mm512_srli_epi64(s, 32);
  }
}

/* Twice the requantized sums (qcc_requantize.h), with or without 1 more, saturated: 16 lanes, for results below 2^29.
 *
 * A float64 of 2^52 + n has n in its low bits: so sums become float64. One of 1.5 * 2^52 + n, too; and a fused multiply-add
 * rounds once, here down. So its bits are the largest integer n <= 2 * (sum * multiplier * 2^-shift + zero_point) + 1, and
 * n / 2, rounded down, is the result with one half added, rounded down. */
QCC_INLINE __m512i qcc_wide_requantize(__m512i sums, const double *scale, const qcc_wide_output *o) {
  const __m512i even = _mm512_mask_blend_epi32(0xAAAA, sums, o->magic);
  const __m512i odd = _mm512_or_si512(_mm512_srli_epi64(sums, 32), o->magic);
  const __m512d a = _mm512_sub_pd(_mm512_castsi512_pd(even), o->zero), b = _mm512_sub_pd(_mm512_castsi512_pd(odd), o->zero);
  const __m512d x =
      _mm512_fmadd_round_pd(a, _mm512_loadu_pd(scale), o->addend, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  const __m512d y =
      _mm512_fmadd_round_pd(b, _mm512_loadu_pd(scale + 8), o->addend, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  const __m512i q =
      _mm512_mask_blend_epi32(0xAAAA, _mm512_castpd_si512(x), _mm512_slli_epi64(_mm512_castpd_si512(y), 32));
  return _mm512_min_epi32(_mm512_max_epi32(q, o->low), o->high);
}

/* 32 int16 to the output. */
QCC_INLINE void qcc_wide_stores(void *output, ptrdiff_t at, __mmask32 lanes, __m512i q, int32_t bytes) {
  if (bytes == 1) {
    _mm256_mask_storeu_epi8((int8_t *)output + at, lanes, _mm512_cvtepi16_epi8(q));
  } else if (lanes == ~(__mmask32)0) {
    _mm512_storeu_si512((int16_t *)output + at, q);
  } else {
    _mm512_mask_storeu_epi16((int16_t *)output + at, lanes, q);
  }
}

/* The sums of a pair to the output. scale: of 32 channels. */
QCC_INLINE void qcc_wide_finish_pair(__m512i even, __m512i odd, const double *scale, void *output, ptrdiff_t at,
                                     __mmask32 lanes, const qcc_wide_output *o) {
  const __m512i a = qcc_wide_requantize(even, scale, o), b = qcc_wide_requantize(odd, scale + 16, o);
  const __m512i q = _mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(a, 1), _mm512_slli_epi32(b, 15));
  qcc_wide_stores(output, at, lanes, q, o->output_bytes);
}

/* The sums of 16 channels to the output. */
QCC_INLINE void qcc_wide_finish_single(__m512i sums, const double *scale, void *output, ptrdiff_t at, __mmask32 lanes,
                                       const qcc_wide_output *o) {
  const __m512i q = _mm512_srai_epi32(qcc_wide_requantize(sums, scale, o), 1);
  qcc_wide_stores(output, at, lanes & 0xFFFF, _mm512_castsi256_si512(_mm512_cvtepi32_epi16(q)), o->output_bytes);
}

/* sums += x * multiplier, for 32 int16 and a pair. */
QCC_INLINE void qcc_wide_add_pair(__m512i *sums, __m512i x, const int32_t *multiplier) {
  const __m512i even = _mm512_srai_epi32(_mm512_slli_epi32(x, 16), 16), odd = _mm512_srai_epi32(x, 16);
  sums[0] = _mm512_add_epi32(sums[0], _mm512_mullo_epi32(even, _mm512_loadu_si512(multiplier)));
  sums[1] = _mm512_add_epi32(sums[1], _mm512_mullo_epi32(odd, _mm512_loadu_si512(multiplier + 16)));
}

#endif
