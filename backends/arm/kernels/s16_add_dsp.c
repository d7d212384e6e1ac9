/* s16_add_dsp: sum or difference of two activations of 8 or 16 bits, or one of them alone, requantized.
 *
 * a, b     int8 or int16 [count]; b is NULL where nothing is added
 * output   int8 or int16 [count]; may be written over an operand that is as wide
 *
 *   acc = a * a_multiplier + b * b_multiplier + bias
 *   output = requantize(acc), saturated to [low, high]
 *
 * Accumulator: int32, wraps around; the compiler proves where it ends.
 * Reference: Add.int_ref in qcc/ir/ops/elementwise.py, Requantize.int_ref in qcc/ir/ops/quant.py.
 */
#include "qcc_arm_dsp_wide.h"

/* The sizes of the operands as literals. */
static inline __attribute__((always_inline)) void add(const qcc_dsp_wide_add_params *params, const void *a, const void *b,
                                                      void *output, int32_t a_bytes, int32_t b_bytes,
                                                      int32_t output_bytes) {
  const qcc_dsp_wide_add_params p = *params;
  const qcc_dsp_channel c = qcc_dsp_wide_channel(p.multiplier, p.shift, p.output_zero_point);
  for (ptrdiff_t i = 0; i < p.count; ++i) {
    int32_t acc = qcc_dsp_mac(p.bias, qcc_dsp_load(a, i, a_bytes), p.a_multiplier);
    if (b) {
      acc = qcc_dsp_mac(acc, qcc_dsp_load(b, i, b_bytes), p.b_multiplier);
    }
    qcc_dsp_store(output, i, output_bytes, acc, p.up, c, p.low, p.high);
  }
}

void qcc_s16_add_dsp(const qcc_dsp_wide_add_params *params, const void *a, const void *b, void *output) {
  if (b && params->a_bytes * params->b_bytes * params->output_bytes == 8) {
    add(params, a, b, output, 2, 2, 2);
  } else if (b) {
    add(params, a, b, output, params->a_bytes, params->b_bytes, params->output_bytes);
  } else {
    add(params, a, NULL, output, params->a_bytes, 1, params->output_bytes);
  }
}
