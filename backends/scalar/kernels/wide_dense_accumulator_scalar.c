/* wide_dense_accumulator_scalar: matrix product of int16 with constant weights that leaves its sums in memory.
 *
 * input    int16[rows][input_channels]
 * weights  int8[output_channels][input_channels], not repacked
 * bias     int64[output_channels]
 * output   int64[rows][output_channels]
 *
 *   output[r][o] = bias[o] + sum w[o][i] * x[r][i]
 * Reference: Dense.int_ref in qcc/ir/ops/dense.py.
 */
#include "qcc_integer_registers.h"
#include "qcc_wide.h"

void qcc_wide_dense_accumulator_scalar(const qcc_wide_dense_accumulator_params *params,
                                       const int16_t *QCC_RESTRICT input, const int8_t *QCC_RESTRICT weights,
                                       const int64_t *QCC_RESTRICT bias, int64_t *QCC_RESTRICT output) {
  const ptrdiff_t inputs = params->input_channels;
  for (int32_t row = 0; row < params->rows; ++row, input += inputs) {
    for (int32_t o = 0; o < params->output_channels; ++o) {
      const int8_t *w = weights + o * inputs;
      int64_t sum = bias[o];
      for (ptrdiff_t i = 0; i < inputs; ++i) {
        sum += input[i] * w[i];
      }
      *output++ = sum;
    }
  }
}
