/* Product of two int8 matrices with broadcasting of the leading axes, with requantization.
 *
 *   acc = sum over k of (a[..., m, k] - a_zero_point) * (b[..., k, n] - b_zero_point)
 *   output[..., m, n] = requantize(acc), saturated to [low, high]
 *
 * a: int8[..., rows, depth], b: int8[..., depth, columns]; the one that is NULL stands for constant. multiplier,
 * shift: int32[requantize_channels]. output: int8[batch..., rows, columns]; overlaps nothing. Accumulator: int32;
 * every partial sum fits, as proved by the compiler.
 * Reference: MatMul.int_ref in qcc/ir/ops/dense.py, Requantize.int_ref.
 */
#include "qcc_integer.h"
#include "qcc_requantize.h"

#define BLOCK 16

static void multiply(const qcc_matmul_params *p, const int8_t *QCC_RESTRICT a, const int8_t *QCC_RESTRICT b,
                     const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                     int8_t *QCC_RESTRICT output) {
  const int32_t per_channel = p->requantize_channels != 1;
  int32_t sums[BLOCK];
  for (int32_t m = 0; m < p->rows; ++m, a += p->depth) {
    for (int32_t first = 0; first < p->columns; first += BLOCK) {
      const int32_t rest = p->columns - first;
      const int32_t width = rest < BLOCK ? rest : BLOCK;
      const int8_t *row = b + first;
      for (int32_t n = 0; n < BLOCK; ++n) {
        sums[n] = 0;
      }
      for (int32_t k = 0; k < p->depth; ++k, row += p->columns) {
        const int32_t value = a[k] - p->a_zero_point;
        for (int32_t n = 0; n < width; ++n) {
          sums[n] += value * (row[n] - p->b_zero_point);
        }
      }
      for (int32_t n = 0; n < width; ++n) {
        const int32_t channel = per_channel ? first + n : 0;
        *output++ = qcc_requantize_s8(sums[n], multiplier[channel], shift[channel], p->output_zero_point, p->low,
                                      p->high);
      }
    }
  }
}

static ptrdiff_t dot(const ptrdiff_t *index, const int32_t *strides) {
  return index[0] * strides[0] + index[1] * strides[1] + index[2] * strides[2] + index[3] * strides[3];
}

void qcc_s8_matmul_scalar(const qcc_matmul_params *params, const int8_t *QCC_RESTRICT a,
                          const int8_t *QCC_RESTRICT b, const int8_t *QCC_RESTRICT constant,
                          const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                          int8_t *QCC_RESTRICT output) {
  const int32_t *size = params->batch;
  const int32_t *sa = params->a_strides;
  const int32_t *sb = params->b_strides;
  a = a != NULL ? a : constant;
  b = b != NULL ? b : constant;
  for (int32_t i = 0; i < size[0]; ++i) {
    for (int32_t j = 0; j < size[1]; ++j) {
      for (int32_t k = 0; k < size[2]; ++k) {
        for (int32_t l = 0; l < size[3]; ++l) {
          const ptrdiff_t at[4] = {i, j, k, l};
          multiply(params, a + dot(at, sa), b + dot(at, sb), multiplier, shift, output);
          output += (ptrdiff_t)params->rows * params->columns;
        }
      }
    }
  }
}
