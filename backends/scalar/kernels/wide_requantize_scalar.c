/* wide_requantize_scalar: activations at one scale, zero_point and type to another, 8 or 16 bits each.
 *
 * input    int8 or int16 [rows][channels]
 * multiplier, shift  int32[channels]
 * output   int8 or int16 [rows][channels]; may be written over input where it is no wider
 *
 *   output = requantize(input - input_zero_point), saturated to [low, high]
 *
 * Accumulator: |acc| <= 2^15.
 * Reference: Requantize.int_ref in qcc/ir/ops/quant.py.
 */
#include "qcc_integer_registers.h"
#include "qcc_wide.h"

void qcc_wide_requantize_scalar(const qcc_wide_requantize_params *params, const void *input,
                                const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                void *output) {
  const qcc_wide_requantize_params p = *params;
  ptrdiff_t at = 0;
  for (int32_t row = 0; row < p.rows; ++row) {
    for (int32_t c = 0; c < p.channels; ++c, ++at) {
      const int32_t acc = qcc_wide_load(input, at, p.input_bytes) - p.input_zero_point;
      qcc_wide_store(output, at, p.output_bytes, acc, multiplier[c], shift[c], p.output_zero_point, p.low, p.high);
    }
  }
}
