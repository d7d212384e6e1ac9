/* s8_requantize_scalar: activations at one scale and zero_point to another.
 *
 * input    int8[rows][channels]
 * multiplier, shift  int32[channels]
 * output   int8[rows][channels]; may be written over input
 *
 *   output = requantize(input - input_zero_point), saturated to [low, high]
 *
 * Accumulator: |acc| <= 255.
 * Reference: Requantize.int_ref in qcc/ir/ops/quant.py.
 */
#include "qcc_kernels.h"
#include "qcc_requantize.h"

void qcc_s8_requantize_scalar(const qcc_requantize_params *params, const int8_t *input,
                              const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                              int8_t *output) {
  const qcc_requantize_params p = *params;
  for (int32_t row = 0; row < p.rows; ++row) {
    for (int32_t c = 0; c < p.channels; ++c) {
      const int32_t acc = *input++ - p.input_zero_point;
      *output++ = qcc_requantize_s8(acc, multiplier[c], shift[c], p.output_zero_point, p.low, p.high);
    }
  }
}
