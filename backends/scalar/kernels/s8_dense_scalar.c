/* s8_dense_scalar: matrix product with constant weights, requantization and an optional residual operand.
 *
 * input    int8[rows][input_channels]
 * skip     int8, shape of the output, or NULL
 * weights  int8[output_channels][input_channels], not repacked
 * bias     int32[output_channels], the zero_point of the input folded in
 * skip_multiplier  int32[output_channels], or NULL
 * multiplier, shift  int32[output_channels]
 * output   int8[rows][output_channels]; may be written over skip
 *
 *   acc = bias[o] + sum w[o][i] * x[i] + (skip - skip_zero_point) * skip_multiplier[o]
 *   output = requantize(acc), saturated to [low, high]
 *
 * Accumulator: int32; every partial sum fits, as proved by the compiler.
 * Reference: Dense.int_ref in qcc/ir/ops/dense.py, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_kernels.h"
#include "qcc_requantize.h"

static int32_t dot_product(const int8_t *QCC_RESTRICT x, const int8_t *QCC_RESTRICT w, ptrdiff_t count) {
  int32_t sum = 0;
  for (ptrdiff_t i = 0; i < count; ++i) {
    sum += x[i] * w[i];
  }
  return sum;
}

void qcc_s8_dense_scalar(const qcc_dense_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                         const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                         const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT multiplier,
                         const int32_t *QCC_RESTRICT shift, int8_t *output) {
  const qcc_dense_params p = *params;
  const ptrdiff_t inputs = p.input_channels;
  for (int32_t row = 0; row < p.rows; ++row, input += inputs) {
    for (int32_t o = 0; o < p.output_channels; ++o) {
      int32_t acc = bias[o] + dot_product(input, weights + o * inputs, inputs);
      if (skip) {
        acc += (*skip++ - p.skip_zero_point) * skip_multiplier[o];
      }
      *output++ = qcc_requantize_s8(acc, multiplier[o], shift[o], p.output_zero_point, p.low, p.high);
    }
  }
}
