/* s8_dense_accumulator_scalar: matrix product with constant weights that leaves its int32 accumulators in memory.
 *
 * input    int8[rows][input_channels]
 * weights  int8[output_channels][input_channels], not repacked
 * bias     int32[output_channels], the zero_point of the input folded in
 * output   int32[rows][output_channels]
 *
 *   output[r][o] = bias[o] + sum w[o][i] * x[r][i]; every partial sum fits int32, as proved by the compiler.
 * Reference: Dense.int_ref in qcc/ir/ops/dense.py.
 */
#include "qcc_integer.h"

void qcc_s8_dense_accumulator_scalar(const qcc_dense_accumulator_params *params, const int8_t *QCC_RESTRICT input,
                                     const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                                     int32_t *QCC_RESTRICT output) {
  const ptrdiff_t inputs = params->input_channels;
  for (int32_t row = 0; row < params->rows; ++row, input += inputs) {
    for (int32_t o = 0; o < params->output_channels; ++o) {
      const int8_t *w = weights + o * inputs;
      int32_t sum = bias[o];
      for (ptrdiff_t i = 0; i < inputs; ++i) {
        sum += input[i] * w[i];
      }
      *output++ = sum;
    }
  }
}
