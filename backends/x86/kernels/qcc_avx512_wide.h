/* Tensors of 8 and 16 bits in vectors: loads, the residual operand, the exact requantization, stores.
 *
 * A pair is two vectors of sums, of 32 channels that lie side by side in memory. Unpacking 32 int16 with themselves, or with
 * those of another tap, leaves lanes 0 to 3 of each 128 bits in the first vector and lanes 4 to 7 in the second one; packing
 * undoes it. So dword 4 * k + i of the first is channel 8 * k + i, and of the second channel 8 * k + 4 + i. Arrays with an
 * entry for each channel are packed in that order, [2][16]. Of 16 channels there is one vector, in the order of memory.
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
  __m512d addend;      /* 1.5 * 2^52 + 2 * zero_point + 1 */
  __m512i low, high;   /* int16 */
  int32_t skip_bytes, output_bytes;
} qcc_wide_output;

QCC_INLINE qcc_wide_output qcc_wide_saturation(int32_t zero_point, int32_t low, int32_t high, int32_t skip_bytes,
                                               int32_t output_bytes) {
  const qcc_wide_output o = {_mm512_set1_pd(6755399441055744.0 + (double)(2 * zero_point + 1)),
                             _mm512_set1_epi16((int16_t)low), _mm512_set1_epi16((int16_t)high), skip_bytes, output_bytes};
  return o;
}

/* 2 * multiplier * 2^-shift, 8 lanes: exact. */
QCC_INLINE __m512d qcc_wide_scale(const int32_t *multiplier, const int32_t *shift) {
  const __m512i one = _mm512_set1_epi64(1024), s = _mm512_cvtepi32_epi64(_mm256_loadu_si256((const __m256i *)shift));
  const __m512d power = _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_sub_epi64(one, s), 52)); /* 2^(1 - shift) */
  return _mm512_mul_pd(_mm512_cvtepi32_pd(_mm256_loadu_si256((const __m256i *)multiplier)), power);
}

/* The definition (qcc_requantize.h), 16 lanes, for results below 2^29: a float64 of 1.5 * 2^52 + n has n in its low bits,
 * and a fused multiply-add rounds once, here down. So those bits are the largest integer n <= 2 * (acc * multiplier *
 * 2^-shift + zero_point) + 1, and n / 2, rounded down, is the sum with one half added, rounded down. */
QCC_INLINE __m512i qcc_wide_requantize(__m512i acc, __m512d scale0, __m512d scale1, __m512d addend) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512d a = _mm512_cvtepi32_pd(_mm512_castsi512_si256(acc));
  const __m512d b = _mm512_cvtepi32_pd(_mm512_extracti64x4_epi64(acc, 1));
  const __m512d x = _mm512_fmadd_round_pd(a, scale0, addend, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  const __m512d y = _mm512_fmadd_round_pd(b, scale1, addend, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  return _mm512_srai_epi32(_mm512_permutex2var_epi32(_mm512_castpd_si512(x), even, _mm512_castpd_si512(y)), 1);
}

/* 32 int16, saturated to [low, high], to the output. */
QCC_INLINE void qcc_wide_stores(void *output, ptrdiff_t at, __mmask32 lanes, __m512i q, qcc_wide_output o) {
  q = _mm512_min_epi16(_mm512_max_epi16(q, o.low), o.high);
  if (o.output_bytes == 2) {
    _mm512_mask_storeu_epi16((int16_t *)output + at, lanes, q);
  } else {
    _mm256_mask_storeu_epi8((int8_t *)output + at, lanes, _mm512_cvtepi16_epi8(q));
  }
}

/* The sums of a pair to the output. scale: of 32 channels, in the order of the pair. */
QCC_INLINE void qcc_wide_finish_pair(__m512i first, __m512i second, const double *scale, void *output, ptrdiff_t at,
                                     __mmask32 lanes, qcc_wide_output o) {
  const __m512i a = qcc_wide_requantize(first, _mm512_loadu_pd(scale), _mm512_loadu_pd(scale + 8), o.addend);
  const __m512i b = qcc_wide_requantize(second, _mm512_loadu_pd(scale + 16), _mm512_loadu_pd(scale + 24), o.addend);
  qcc_wide_stores(output, at, lanes, _mm512_packs_epi32(a, b), o);
}

/* The sums of 16 channels to the output. */
QCC_INLINE void qcc_wide_finish_single(__m512i sums, const double *scale, void *output, ptrdiff_t at, __mmask32 lanes,
                                       qcc_wide_output o) {
  const __m512i q = qcc_wide_requantize(sums, _mm512_loadu_pd(scale), _mm512_loadu_pd(scale + 8), o.addend);
  qcc_wide_stores(output, at, lanes & 0xFFFF, _mm512_castsi256_si512(_mm512_cvtsepi32_epi16(q)), o);
}

/* sums += x * multiplier, for 32 int16 and a pair. */
QCC_INLINE void qcc_wide_add_pair(__m512i *first, __m512i *second, __m512i x, const int32_t *multiplier) {
  const __m512i a = _mm512_srai_epi32(_mm512_unpacklo_epi16(x, x), 16);
  const __m512i b = _mm512_srai_epi32(_mm512_unpackhi_epi16(x, x), 16);
  *first = _mm512_add_epi32(*first, _mm512_mullo_epi32(a, _mm512_loadu_si512(multiplier)));
  *second = _mm512_add_epi32(*second, _mm512_mullo_epi32(b, _mm512_loadu_si512(multiplier + 16)));
}

#endif
