/* Float matrix product with broadcasting of the leading axes.
 *
 *   output[..., m, n] = sum over k of a[..., m, k] * b[..., k, n]
 *
 * a: float[..., rows, depth], b: float[..., depth, columns]; the one that is NULL stands for constant.
 * output: float[batch..., rows, columns]; overlaps nothing. Sums run in the order of k.
 * Reference: MatMul.float_ref in qcc/ir/ops/dense.py.
 */
#include "qcc_float.h"

static void multiply(const qcc_f32_matmul_params *p, const float *QCC_RESTRICT a, const float *QCC_RESTRICT b,
                     float *QCC_RESTRICT output) {
  for (int32_t m = 0; m < p->rows; ++m, output += p->columns) {
    for (int32_t n = 0; n < p->columns; ++n) {
      output[n] = 0.0f;
    }
    for (int32_t k = 0; k < p->depth; ++k) {
      const float value = a[(ptrdiff_t)m * p->depth + k];
      const float *row = b + (ptrdiff_t)k * p->columns;
      for (int32_t n = 0; n < p->columns; ++n) {
        output[n] += value * row[n];
      }
    }
  }
}

static ptrdiff_t dot(const ptrdiff_t *index, const int32_t *strides) {
  return index[0] * strides[0] + index[1] * strides[1] + index[2] * strides[2] + index[3] * strides[3];
}

void qcc_f32_matmul_scalar(const qcc_f32_matmul_params *params, const float *QCC_RESTRICT a,
                           const float *QCC_RESTRICT b, const float *QCC_RESTRICT constant,
                           float *QCC_RESTRICT output) {
  const int32_t *size = params->batch;
  const int32_t *sa = params->a_strides;
  const int32_t *sb = params->b_strides;
  const float *left = a != NULL ? a : constant;
  const float *right = b != NULL ? b : constant;
  for (int32_t i = 0; i < size[0]; ++i) {
    for (int32_t j = 0; j < size[1]; ++j) {
      for (int32_t k = 0; k < size[2]; ++k) {
        for (int32_t l = 0; l < size[3]; ++l) {
          const ptrdiff_t at[4] = {i, j, k, l};
          multiply(params, left + dot(at, sa), right + dot(at, sb), output);
          output += (ptrdiff_t)params->rows * params->columns;
        }
      }
    }
  }
}
