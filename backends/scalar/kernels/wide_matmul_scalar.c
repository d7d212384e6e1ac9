/* Product of two matrices of 8 or 16 bits with broadcasting of the leading axes, with requantization.
 *
 *   acc = sum over k of (a[..., m, k] - a_zero_point) * (b[..., k, n] - b_zero_point)
 *   output[..., m, n] = requantize(acc), saturated to [low, high]
 *
 * a: int8 or int16 [..., rows, depth], b: the same [..., depth, columns]; the one that is NULL stands for constant, which
 * is int8. multiplier, shift: int32[requantize_channels]. output: int8 or int16 [batch..., rows, columns]; overlaps
 * nothing. Accumulator: int64.
 * Reference: MatMul.int_ref in qcc/ir/ops/dense.py, Requantize.int_ref.
 */
#include "qcc_integer_registers.h"
#include "qcc_wide.h"

enum { BLOCK = 16 };

static ptrdiff_t dot(const ptrdiff_t *index, const int32_t *strides) {
  return index[0] * strides[0] + index[1] * strides[1] + index[2] * strides[2] + index[3] * strides[3];
}

/* sums[n] = acc of row m and column first + n of the matrices at elements a_at and b_at. */
static void multiply(const qcc_wide_matmul_params *p, const void *a, ptrdiff_t a_at, const void *b, ptrdiff_t b_at,
                     int32_t count, int64_t *sums) {
  for (int32_t n = 0; n < BLOCK; ++n) {
    sums[n] = 0;
  }
  for (int32_t k = 0; k < p->depth; ++k, b_at += p->columns) {
    const int64_t value = qcc_wide_load(a, a_at + k, p->a_bytes) - p->a_zero_point;
    for (int32_t n = 0; n < count; ++n) {
      sums[n] += value * (qcc_wide_load(b, b_at + n, p->b_bytes) - p->b_zero_point);
    }
  }
}

void qcc_wide_matmul_scalar(const qcc_wide_matmul_params *params, const void *QCC_RESTRICT a,
                            const void *QCC_RESTRICT b, const int8_t *QCC_RESTRICT constant,
                            const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                            void *QCC_RESTRICT output) {
  const qcc_wide_matmul_params *p = params;
  const int32_t *size = p->batch;
  const int32_t matrices = size[0] * size[1] * size[2] * size[3];
  const int32_t per_channel = p->requantize_channels != 1;
  int64_t sums[BLOCK];
  ptrdiff_t at = 0;
  a = a != NULL ? a : constant;
  b = b != NULL ? b : constant;
  for (int32_t matrix = 0; matrix < matrices; ++matrix) {
    const ptrdiff_t index[4] = {matrix / (size[1] * size[2] * size[3]), matrix / (size[2] * size[3]) % size[1],
                                matrix / size[3] % size[2], matrix % size[3]};
    for (int32_t m = 0; m < p->rows; ++m) {
      for (int32_t first = 0; first < p->columns; first += BLOCK) {
        const int32_t rest = p->columns - first;
        const int32_t count = rest < BLOCK ? rest : BLOCK;
        const ptrdiff_t a_at = dot(index, p->a_strides) + (ptrdiff_t)m * p->depth;
        multiply(p, a, a_at, b, dot(index, p->b_strides) + first, count, sums);
        for (int32_t n = 0; n < count; ++n, ++at) {
          const int32_t channel = per_channel ? first + n : 0;
          qcc_wide_store(output, at, p->output_bytes, sums[n], multiplier[channel], shift[channel],
                         p->output_zero_point, p->low, p->high);
        }
      }
    }
  }
}
