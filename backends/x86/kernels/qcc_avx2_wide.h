/* Tensors of 8 and 16 bits in 256-bit vectors: loads, the residual operand, the exact requantization, stores.
 *
 * Sums are int32 and wrap around; the compiler proves where they end. Channels are in the order of qcc_avx2.h.
 */
#ifndef QCC_AVX2_WIDE_H
#define QCC_AVX2_WIDE_H

#include "qcc_avx2.h"
#include "qcc_avx2_wide_kernels.h"

QCC_RARE __m256i qcc_wide_load_few(const void *x, ptrdiff_t at, int32_t bytes, int32_t count) {
  int16_t elements[16] = {0};
  for (int32_t i = 0; i < count; ++i) {
    elements[i] = (int16_t)qcc_wide_load(x, at + i, bytes);
  }
  return qcc_load(elements);
}

QCC_RARE void qcc_wide_store_few(void *to, ptrdiff_t at, int32_t bytes, int32_t count, __m256i x) {
  int16_t elements[16];
  qcc_store(elements, x);
  for (int32_t i = 0; i < count && i < 16; ++i) {
    if (bytes == 2) {
      ((int16_t *)to)[at + i] = elements[i];
    } else {
      ((int8_t *)to)[at + i] = (int8_t)elements[i];
    }
  }
}

/* The first `count` (16 or more: 16) elements from `at` on, as int16; zeros behind them. */
QCC_INLINE __m256i qcc_wide_loads(const void *x, ptrdiff_t at, int32_t bytes, int32_t count) {
  if (count < 16) {
    return qcc_wide_load_few(x, at, bytes, count);
  }
  return bytes == 2 ? qcc_load((const int16_t *)x + at)
                    : _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)((const int8_t *)x + at)));
}

QCC_INLINE void qcc_wide_stores(void *to, ptrdiff_t at, int32_t bytes, int32_t count, __m256i x) {
  if (bytes == 2 && count >= 16) {
    qcc_store((int16_t *)to + at, x);
  } else if (bytes == 1) {
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi16(x, x), 0xD8);
    qcc_store_bytes((int8_t *)to + at, _mm256_castsi256_si128(packed), count);
  } else {
    qcc_wide_store_few(to, at, bytes, count, x);
  }
}

/* ---------------------------------------------------------------- requantization */

/* Of 8 sums, those at even places, then those at odd ones. */
typedef struct {
  __m256i multiplier[2], addend[2], shift[2]; /* int64 */
  __m256i offset;                             /* int32 */
} qcc_wide_scale;

/* What is the same for all channels: int16. */
typedef struct {
  __m256i low, high;
  int32_t skip_bytes, output_bytes;
} qcc_wide_output;

QCC_INLINE qcc_wide_output qcc_wide_saturation(int32_t low, int32_t high, int32_t skip_bytes, int32_t output_bytes) {
  const qcc_wide_output o = {_mm256_set1_epi16((int16_t)low), _mm256_set1_epi16((int16_t)high), skip_bytes, output_bytes};
  return o;
}

/* There is no arithmetic shift of 64 bits: 2^63 is added to the product, which |acc * multiplier| + 2^(shift - 1) < 2^63
 * keeps without sign, and 2^63 >> shift is taken off behind the shift, with the zero_point, modulo 2^32. */
QCC_INLINE qcc_wide_scale qcc_wide_scale_of(__m256i multiplier, __m256i shift, int32_t zero_point) {
  qcc_wide_scale s;
  __m256i taken[2];
  QCC_UNROLL
  for (int odd = 0; odd < 2; ++odd) {
    const __m256i one = _mm256_set1_epi64x(1), top = _mm256_slli_epi64(one, 63);
    s.multiplier[odd] = odd ? _mm256_srli_epi64(multiplier, 32) : multiplier;
    s.shift[odd] = odd ? _mm256_srli_epi64(shift, 32) : _mm256_and_si256(shift, _mm256_set1_epi64x(0xFFFFFFFF));
    s.addend[odd] = _mm256_add_epi64(top, _mm256_sllv_epi64(one, _mm256_sub_epi64(s.shift[odd], one)));
    taken[odd] = _mm256_srlv_epi64(top, s.shift[odd]);
  }
  s.offset = _mm256_sub_epi32(_mm256_set1_epi32(zero_point),
                              _mm256_blend_epi32(taken[0], _mm256_slli_epi64(taken[1], 32), 0xAA));
  return s;
}

/* (acc * multiplier + 2^(shift - 1)) >> shift, plus the zero_point (qcc_requantize.h), not saturated: it fits 32 bits. */
QCC_INLINE __m256i qcc_wide_requantize(__m256i sums, const qcc_wide_scale *s) {
  const __m256i even = _mm256_add_epi64(_mm256_mul_epi32(sums, s->multiplier[0]), s->addend[0]);
  const __m256i odd = _mm256_add_epi64(_mm256_mul_epi32(_mm256_srli_epi64(sums, 32), s->multiplier[1]), s->addend[1]);
  const __m256i low = _mm256_srlv_epi64(even, s->shift[0]);
  const __m256i high = _mm256_slli_epi64(_mm256_srlv_epi64(odd, s->shift[1]), 32);
  return _mm256_add_epi32(_mm256_blend_epi32(low, high, 0xAA), s->offset);
}

/* The sums of 16 channels (two vectors), or with `vectors` 1 of 8, to the first `count` elements of the output. */
QCC_INLINE void qcc_wide_put(const int vectors, const __m256i *sums, const qcc_wide_scale *s, const qcc_wide_output *o,
                             void *output, ptrdiff_t at, int32_t count) {
  const __m256i a = qcc_wide_requantize(sums[0], s);
  __m256i x;
  if (vectors == 1) {
    x = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, a), 0xD8);
    count = count < 8 ? count : 8;
  } else {
    x = _mm256_packs_epi32(a, qcc_wide_requantize(sums[1], s + 1));
  }
  qcc_wide_stores(output, at, o->output_bytes, count, _mm256_min_epi16(_mm256_max_epi16(x, o->low), o->high));
}

/* sums += x * multiplier, of 16 int16, or with `vectors` 1 of 8. */
QCC_INLINE void qcc_wide_add(const int vectors, __m256i *sums, __m256i x, const int32_t *multiplier) {
  __m256i terms[2];
  if (vectors == 1) {
    terms[0] = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(x));
  } else {
    qcc_widen(x, &terms[0], &terms[1]);
  }
  QCC_UNROLL
  for (int v = 0; v < vectors; ++v) {
    sums[v] = _mm256_add_epi32(sums[v], _mm256_mullo_epi32(terms[v], qcc_load(multiplier + 8 * v)));
  }
}

#endif
