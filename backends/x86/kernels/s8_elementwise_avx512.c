/* s8_elementwise_avx512: sums and products with broadcasting, requantized; 16 elements of the last axis at a time.
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
#include "qcc_avx512_lanes.h"

enum { SUM, SUM_CONSTANT, PRODUCT, PRODUCT_CONSTANT };

typedef struct {
  const void *b;
  const int32_t *a_multiplier, *b_multiplier;
  const float *scale;
} operands;

QCC_INLINE __m512i load_s8(const int8_t *x, ptrdiff_t stride, __mmask16 lanes, int32_t zero_point) {
  const __m128i bytes = stride ? _mm_maskz_loadu_epi8(lanes, x) : _mm_set1_epi8(*x);
  return _mm512_sub_epi32(_mm512_cvtepi8_epi32(bytes), _mm512_set1_epi32(zero_point));
}

QCC_INLINE __m512i load_s16(const int16_t *x, ptrdiff_t stride, __mmask16 lanes) {
  return _mm512_cvtepi16_epi32(stride ? _mm256_maskz_loadu_epi16(lanes, x) : _mm256_set1_epi16(*x));
}

QCC_INLINE __m512i load_s32(const int32_t *x, ptrdiff_t stride, __mmask16 lanes) {
  return stride ? _mm512_maskz_loadu_epi32(lanes, x) : _mm512_set1_epi32(*x);
}

QCC_INLINE void rows(const int kind, const qcc_binary_params *p, const int8_t *a, const operands *in, int8_t *output) {
  const qcc_avx512_output o = {_mm512_set1_epi32(p->output_zero_point), _mm512_set1_epi32(p->low),
                               _mm512_set1_epi32(p->high)};
  const ptrdiff_t a_step = p->a_stride[3], b_step = p->b_stride[3], step = p->per_channel;
  const int32_t width = p->count[3];
  const int32_t height = p->count[0] * p->count[1] * p->count[2];
  for (int32_t row = 0; row < height; ++row, output += width) {
    const int32_t i0 = row / (p->count[1] * p->count[2]), i1 = row / p->count[2] % p->count[1], i2 = row % p->count[2];
    const ptrdiff_t a_row = i0 * p->a_stride[0] + i1 * p->a_stride[1] + i2 * p->a_stride[2];
    const ptrdiff_t b_row = i0 * p->b_stride[0] + i1 * p->b_stride[1] + i2 * p->b_stride[2];
    for (int32_t i = 0; i < width; i += 16) {
      const __mmask16 lanes = (__mmask16)qcc_first_lanes(width - i < 16 ? width - i : 16);
      const ptrdiff_t b = b_row + i * b_step;
      __m512i acc = load_s8(a + a_row + i * a_step, a_step, lanes, p->a_zero_point);
      if (kind == SUM || kind == SUM_CONSTANT) {
        acc = _mm512_mullo_epi32(acc, load_s32(in->a_multiplier + i * step, step, lanes));
      }
      if (kind == SUM) {
        const __m512i x = load_s8((const int8_t *)in->b + b, b_step, lanes, p->b_zero_point);
        acc = _mm512_add_epi32(acc, _mm512_mullo_epi32(x, load_s32(in->b_multiplier + i * step, step, lanes)));
      } else if (kind == SUM_CONSTANT) {
        acc = _mm512_add_epi32(acc, load_s32((const int32_t *)in->b + b, b_step, lanes));
      } else if (kind == PRODUCT) {
        acc = _mm512_mullo_epi32(acc, load_s8((const int8_t *)in->b + b, b_step, lanes, p->b_zero_point));
      } else {
        acc = _mm512_mullo_epi32(acc, load_s16((const int16_t *)in->b + b, b_step, lanes));
      }
      const __m512 scale = step ? _mm512_maskz_loadu_ps(lanes, in->scale + i) : _mm512_set1_ps(*in->scale);
      _mm_mask_storeu_epi8(output + i, lanes, qcc_avx512_requantize(acc, scale, o));
    }
  }
}

void qcc_s8_add_avx512(const qcc_binary_params *params, const int8_t *a, const int8_t *b,
                       const int32_t *QCC_RESTRICT a_multiplier, const int32_t *QCC_RESTRICT b_multiplier,
                       const float *QCC_RESTRICT scale, int8_t *output) {
  const operands in = {b, a_multiplier, b_multiplier, scale};
  rows(SUM, params, a, &in, output);
}

void qcc_s8_add_constant_avx512(const qcc_binary_params *params, const int8_t *a, const int32_t *QCC_RESTRICT b,
                                const int32_t *QCC_RESTRICT a_multiplier, const float *QCC_RESTRICT scale,
                                int8_t *output) {
  const operands in = {b, a_multiplier, NULL, scale};
  rows(SUM_CONSTANT, params, a, &in, output);
}

void qcc_s8_mul_avx512(const qcc_binary_params *params, const int8_t *a, const int8_t *b,
                       const float *QCC_RESTRICT scale, int8_t *output) {
  const operands in = {b, NULL, NULL, scale};
  rows(PRODUCT, params, a, &in, output);
}

void qcc_s8_mul_constant_avx512(const qcc_binary_params *params, const int8_t *a, const int16_t *QCC_RESTRICT b,
                                const float *QCC_RESTRICT scale, int8_t *output) {
  const operands in = {b, NULL, NULL, scale};
  rows(PRODUCT_CONSTANT, params, a, &in, output);
}
