/* What the 256-bit kernels share: the requantizing epilogue, and loads and stores of a few bytes.
 *
 * Sixteen sums are two vectors: the first holds channels 0-3 and 8-11, the second 4-7 and 12-15, because instructions that
 * pack and unpack stay within 128 bits: so packed, the channels are in their order. Eight sums are one vector, in order.
 *
 * Requantization: round_half_even(float(acc) * scale) + zero_point, saturated. The compiler certified for each channel that
 * this equals the 64-bit definition (qcc_requantize.h) for every accumulator that can occur.
 */
#ifndef QCC_AVX2_H
#define QCC_AVX2_H

#if !defined(__AVX2__)
#error "this library needs a processor with AVX2: compile with -mavx2"
#endif

#include "qcc_avx2_kernels.h"
#include "qcc_vectors.h"
#include "qcc_x86.h"

QCC_INLINE __m256i qcc_load(const void *x) { return _mm256_loadu_si256((const __m256i *)x); }

QCC_INLINE void qcc_store(void *to, __m256i x) { _mm256_storeu_si256((__m256i *)to, x); }

/* The first `count` (0 to 15) bytes; zeros behind them. */
QCC_RARE __m128i qcc_load_few(const int8_t *x, int32_t count) {
  int8_t bytes[16] = {0};
  int32_t i = 0;
  if (count & 8) {
    __builtin_memcpy(bytes, x, 8);
    i = 8;
  }
  if (count & 4) {
    __builtin_memcpy(bytes + i, x + i, 4);
    i += 4;
  }
  if (count & 2) {
    __builtin_memcpy(bytes + i, x + i, 2);
    i += 2;
  }
  if (count & 1) {
    bytes[i] = x[i];
  }
  return _mm_loadu_si128((const __m128i *)(const void *)bytes);
}

/* Stores the first `count` (0 to 15) bytes. */
QCC_RARE void qcc_store_few(int8_t *to, __m128i x, int32_t count) {
  if (count & 8) {
    _mm_storel_epi64((__m128i *)(void *)to, x);
    x = _mm_srli_si128(x, 8);
    to += 8;
  }
  if (count & 4) {
    const int32_t word = _mm_cvtsi128_si32(x);
    __builtin_memcpy(to, &word, 4);
    x = _mm_srli_si128(x, 4);
    to += 4;
  }
  const int32_t word = _mm_cvtsi128_si32(x);
  if (count & 2) {
    __builtin_memcpy(to, &word, 2);
  }
  if (count & 1) {
    to[count & 2] = (int8_t)(count & 2 ? word >> 16 : word);
  }
}

/* `count` (16 or more: 16) bytes. */
QCC_INLINE __m128i qcc_load_bytes(const int8_t *x, int32_t count) {
  return count >= 16 ? _mm_loadu_si128((const __m128i *)(const void *)x) : qcc_load_few(x, count);
}

QCC_INLINE void qcc_store_bytes(int8_t *to, __m128i x, int32_t count) {
  if (count >= 16) {
    _mm_storeu_si128((__m128i *)(void *)to, x);
  } else {
    qcc_store_few(to, x, count);
  }
}

/* 16 int16 in order to two vectors of int32. */
QCC_INLINE void qcc_widen(__m256i x, __m256i *low, __m256i *high) {
  *low = _mm256_srai_epi32(_mm256_unpacklo_epi16(x, x), 16);
  *high = _mm256_srai_epi32(_mm256_unpackhi_epi16(x, x), 16);
}

/* 16 values of 32 bits in order to two vectors. */
QCC_INLINE void qcc_split(const void *x, __m256i *low, __m256i *high) {
  const __m256i first = qcc_load(x), second = qcc_load((const int8_t *)x + 32);
  *low = _mm256_permute2x128_si256(first, second, 0x20);
  *high = _mm256_permute2x128_si256(first, second, 0x31);
}

typedef struct {
  __m256i zero_point; /* int16 */
  __m256i low, high;  /* int8 */
} qcc_output;

QCC_INLINE qcc_output qcc_saturation(int32_t zero_point, int32_t low, int32_t high) {
  const qcc_output o = {_mm256_set1_epi16((int16_t)zero_point), _mm256_set1_epi8((int8_t)low),
                        _mm256_set1_epi8((int8_t)high)};
  return o;
}

QCC_INLINE __m256i qcc_scaled(__m256i acc, __m256 scale) {
  return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(acc), scale));
}

QCC_INLINE __m256i qcc_saturate(__m256i a, __m256i b, qcc_output o) {
  a = _mm256_adds_epi16(a, o.zero_point); /* this saturation lies beyond that to 8 bits, whatever zero_point */
  b = _mm256_adds_epi16(b, o.zero_point);
  return _mm256_min_epi8(_mm256_max_epi8(_mm256_packs_epi16(a, b), o.low), o.high);
}

/* The sums of 16 channels of two pixels, in order of pixels: 16 int8 of the first, then of the second. */
QCC_INLINE __m256i qcc_requantize_16(const __m256i *a, const __m256i *b, __m256 low, __m256 high, qcc_output o) {
  const __m256i x = _mm256_packs_epi32(qcc_scaled(a[0], low), qcc_scaled(a[1], high));
  const __m256i y = _mm256_packs_epi32(qcc_scaled(b[0], low), qcc_scaled(b[1], high));
  return _mm256_permute4x64_epi64(qcc_saturate(x, y, o), 0xD8);
}

/* The sums of 8 channels of two pixels: 8 int8 of the first at byte 0, of the second at byte 16. */
QCC_INLINE __m256i qcc_requantize_8(__m256i a, __m256i b, __m256 scale, qcc_output o) {
  const __m256i x = _mm256_packs_epi32(qcc_scaled(a, scale), qcc_scaled(b, scale));
  const __m256i ordered = _mm256_permute4x64_epi64(x, 0xD8);
  return qcc_saturate(ordered, ordered, o);
}

/* acc += (skip - zero_point) * multiplier: of 16 channels (two vectors), or with `vectors` 1 of 8. */
QCC_INLINE void qcc_add_skip(const int vectors, __m256i *acc, __m128i skip, int32_t zero_point, const int32_t *multiplier) {
  const __m256i x = _mm256_sub_epi16(_mm256_cvtepi8_epi16(skip), _mm256_set1_epi16((int16_t)zero_point));
  __m256i terms[2];
  if (vectors == 1) {
    terms[0] = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(x));
  } else {
    qcc_widen(x, &terms[0], &terms[1]);
  }
  QCC_UNROLL
  for (int v = 0; v < vectors; ++v) {
    acc[v] = _mm256_add_epi32(acc[v], _mm256_mullo_epi32(terms[v], qcc_load(multiplier + 8 * v)));
  }
}

/* What follows the sums of a block of channels. */
typedef struct {
  const float *scale;
  const int32_t *skip_multiplier;
  const int8_t *skip; /* of the first pixel, or NULL */
  int8_t *output;     /* of the first pixel */
  ptrdiff_t step;     /* from pixel to pixel */
  int32_t width;      /* channels: up to 8 * vectors */
  int32_t skip_zero_point;
  qcc_output saturation;
} qcc_epilogue;

/* Residual operand, requantization and store of two pixels, `first` and `second` bytes behind that of the epilogue; the
 * second is stored when `both` is not 0. */
QCC_INLINE void qcc_finish(const int vectors, const qcc_epilogue *e, __m256i *a, __m256i *b, ptrdiff_t first, ptrdiff_t second,
                           int both) {
  if (e->skip) {
    qcc_add_skip(vectors, a, qcc_load_bytes(e->skip + first, e->width), e->skip_zero_point, e->skip_multiplier);
    if (both) {
      qcc_add_skip(vectors, b, qcc_load_bytes(e->skip + second, e->width), e->skip_zero_point, e->skip_multiplier);
    }
  }
  const __m256 low = _mm256_loadu_ps(e->scale);
  const __m256i y = vectors == 1 ? qcc_requantize_8(a[0], b[0], low, e->saturation)
                                 : qcc_requantize_16(a, b, low, _mm256_loadu_ps(e->scale + 8), e->saturation);
  const __m128i last = _mm256_extracti128_si256(y, 1);
  qcc_store_bytes(e->output + first, _mm256_castsi256_si128(y), e->width);
  if (both) {
    qcc_store_bytes(e->output + second, last, e->width);
  }
}

#endif
