/* s8_elementwise_avx2: sums and products with broadcasting, requantized; 16 elements of the last axis at a time.
 *
 * a, b     int8 activations, broadcast as a_stride and b_stride say; along the last axis these are 0 or 1
 * or b     int32 (sum) or int16 (product), a constant, broadcast as b_stride says
 * a_multiplier, b_multiplier  int32[count[3]] when per_channel is 1, else int32[1]
 * scale    float, the same
 * output   int8[count[0]][count[1]][count[2]][count[3]]; may be written over an operand of the same size
 *
 *   sum      acc = (a - a_zero_point) * a_multiplier[c] + (b - b_zero_point) * b_multiplier[c]    (constant: + b)
 *   product  acc = (a - a_zero_point) * (b - b_zero_point)                                        (constant: * b)
 *   output = requantize(acc), saturated to [low, high]
 *
 * Accumulator: int32; both terms and their sum fit, as proved by the compiler.
 * Reference: Add.int_ref, Sub.int_ref, Mul.int_ref, Requantize.int_ref.
 */
#include "qcc_avx2.h"

enum { SUM, SUM_CONSTANT, PRODUCT, PRODUCT_CONSTANT };

typedef struct {
  const void *b;
  const int32_t *a_multiplier, *b_multiplier;
  const float *scale;
} operands;

/* 16 elements: 8 and 8 of the order of qcc_avx2.h. */
typedef struct {
  __m256i low, high;
} wide;

/* Of 16 activations that are there in full, or of one that stands for all. */
QCC_INLINE wide load_s8(const int8_t *x, ptrdiff_t stride, int32_t zero_point) {
  const __m128i bytes = stride ? _mm_loadu_si128((const __m128i *)(const void *)x) : _mm_set1_epi8(*x);
  const __m256i centred = _mm256_sub_epi16(_mm256_cvtepi8_epi16(bytes), _mm256_set1_epi16((int16_t)zero_point));
  wide y;
  qcc_widen(centred, &y.low, &y.high);
  return y;
}

QCC_INLINE wide load_s16(const int16_t *x, ptrdiff_t stride) {
  wide y;
  qcc_widen(stride ? qcc_load(x) : _mm256_set1_epi16(*x), &y.low, &y.high);
  return y;
}

QCC_INLINE wide load_s32(const int32_t *x, ptrdiff_t stride) {
  wide y;
  if (stride) {
    qcc_split(x, &y.low, &y.high);
  } else {
    y.low = y.high = _mm256_set1_epi32(*x);
  }
  return y;
}

QCC_INLINE wide times(wide a, wide b) {
  const wide y = {_mm256_mullo_epi32(a.low, b.low), _mm256_mullo_epi32(a.high, b.high)};
  return y;
}

QCC_INLINE wide plus(wide a, wide b) {
  const wide y = {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
  return y;
}

/* One element. The compiler proved that no product and no sum leaves 32 bits. */
QCC_INLINE int8_t one(const int kind, const qcc_binary_params *p, const int8_t *a, const operands *in, ptrdiff_t b,
                      ptrdiff_t channel) {
  int32_t acc = *a - p->a_zero_point;
  if (kind == SUM) {
    acc = acc * in->a_multiplier[channel] + (((const int8_t *)in->b)[b] - p->b_zero_point) * in->b_multiplier[channel];
  } else if (kind == SUM_CONSTANT) {
    acc = acc * in->a_multiplier[channel] + ((const int32_t *)in->b)[b];
  } else if (kind == PRODUCT) {
    acc *= ((const int8_t *)in->b)[b] - p->b_zero_point;
  } else {
    acc *= ((const int16_t *)in->b)[b];
  }
  const int32_t y = _mm_cvtss_si32(_mm_set_ss((float)acc * in->scale[channel])) + p->output_zero_point;
  return (int8_t)(y < p->low ? p->low : y > p->high ? p->high : y);
}

QCC_INLINE void rows(const int kind, const qcc_binary_params *p, const int8_t *a, const operands *in, int8_t *output) {
  const qcc_output o = qcc_saturation(p->output_zero_point, p->low, p->high);
  const ptrdiff_t a_step = p->a_stride[3], b_step = p->b_stride[3], step = p->per_channel;
  const int32_t width = p->count[3];
  const int32_t height = p->count[0] * p->count[1] * p->count[2];
  for (int32_t row = 0; row < height; ++row, output += width) {
    const int32_t i0 = row / (p->count[1] * p->count[2]), i1 = row / p->count[2] % p->count[1], i2 = row % p->count[2];
    const int8_t *x = a + i0 * p->a_stride[0] + i1 * p->a_stride[1] + i2 * p->a_stride[2];
    ptrdiff_t b = i0 * p->b_stride[0] + i1 * p->b_stride[1] + i2 * p->b_stride[2];
    int32_t i = 0;
    for (; i + 16 <= width; i += 16, x += 16 * a_step, b += 16 * b_step) {
      wide acc = load_s8(x, a_step, p->a_zero_point);
      if (kind == SUM || kind == SUM_CONSTANT) {
        acc = times(acc, load_s32(in->a_multiplier + i * step, step));
      }
      if (kind == SUM) {
        const wide y = load_s8((const int8_t *)in->b + b, b_step, p->b_zero_point);
        acc = plus(acc, times(y, load_s32(in->b_multiplier + i * step, step)));
      } else if (kind == SUM_CONSTANT) {
        acc = plus(acc, load_s32((const int32_t *)in->b + b, b_step));
      } else if (kind == PRODUCT) {
        acc = times(acc, load_s8((const int8_t *)in->b + b, b_step, p->b_zero_point));
      } else {
        acc = times(acc, load_s16((const int16_t *)in->b + b, b_step));
      }
      wide scale = {_mm256_castps_si256(_mm256_set1_ps(*in->scale)), _mm256_castps_si256(_mm256_set1_ps(*in->scale))};
      if (step) {
        qcc_split(in->scale + i, &scale.low, &scale.high);
      }
      const __m256i sums[2] = {acc.low, acc.high};
      const __m256i y = qcc_requantize_16(sums, sums, _mm256_castsi256_ps(scale.low), _mm256_castsi256_ps(scale.high), o);
      qcc_store_bytes(output + i, _mm256_castsi256_si128(y), 16);
    }
    for (; i < width; ++i, x += a_step, b += b_step) {
      output[i] = one(kind, p, x, in, b, i * step);
    }
  }
}

void qcc_s8_add_avx2(const qcc_binary_params *params, const int8_t *a, const int8_t *b,
                     const int32_t *QCC_RESTRICT a_multiplier, const int32_t *QCC_RESTRICT b_multiplier,
                     const float *QCC_RESTRICT scale, int8_t *output) {
  const operands in = {b, a_multiplier, b_multiplier, scale};
  rows(SUM, params, a, &in, output);
}

void qcc_s8_add_constant_avx2(const qcc_binary_params *params, const int8_t *a, const int32_t *QCC_RESTRICT b,
                              const int32_t *QCC_RESTRICT a_multiplier, const float *QCC_RESTRICT scale,
                              int8_t *output) {
  const operands in = {b, a_multiplier, NULL, scale};
  rows(SUM_CONSTANT, params, a, &in, output);
}

void qcc_s8_mul_avx2(const qcc_binary_params *params, const int8_t *a, const int8_t *b, const float *QCC_RESTRICT scale,
                     int8_t *output) {
  const operands in = {b, NULL, NULL, scale};
  rows(PRODUCT, params, a, &in, output);
}

void qcc_s8_mul_constant_avx2(const qcc_binary_params *params, const int8_t *a, const int16_t *QCC_RESTRICT b,
                              const float *QCC_RESTRICT scale, int8_t *output) {
  const operands in = {b, NULL, NULL, scale};
  rows(PRODUCT_CONSTANT, params, a, &in, output);
}
