/* s16_add_neon: sum or difference of two activations of 8 or 16 bits, or one of them alone, requantized.
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
#include "qcc_neon_wide.h"

void qcc_s16_add_neon(const qcc_neon_wide_add_params *params, const void *a, const void *b, void *output) {
  const qcc_neon_wide_add_params p = *params;
  const qcc_neon_wide_output o = qcc_neon_wide_saturation(p.output_zero_point, p.low, p.high);
  const int32x4_t bias = vdupq_n_s32(p.bias), multiplier = vdupq_n_s32(p.multiplier);
  const int32x4_t up = vdupq_n_s32(p.up), down = vdupq_n_s32(p.down);
  for (int32_t i = 0; i < p.count; i += 8) {
    const int32_t left = p.count - i;
    const int16x8_t x = left >= 8 ? qcc_neon_wide_load(a, i, p.a_bytes) : qcc_neon_wide_load_few(a, i, p.a_bytes, left);
    int32x4_t low = vmlaq_n_s32(bias, vmovl_s16(vget_low_s16(x)), p.a_multiplier);
    int32x4_t high = vmlaq_n_s32(bias, vmovl_s16(vget_high_s16(x)), p.a_multiplier);
    if (b) {
      const int16x8_t y = left >= 8 ? qcc_neon_wide_load(b, i, p.b_bytes) : qcc_neon_wide_load_few(b, i, p.b_bytes, left);
      low = vmlaq_n_s32(low, vmovl_s16(vget_low_s16(y)), p.b_multiplier);
      high = vmlaq_n_s32(high, vmovl_s16(vget_high_s16(y)), p.b_multiplier);
    }
    low = qcc_neon_wide_scaled(low, multiplier, up, down);
    high = qcc_neon_wide_scaled(high, multiplier, up, down);
    const int16x8_t z = qcc_neon_wide_narrowed(low, high, o);
    if (left >= 8) {
      qcc_neon_wide_put(output, i, p.output_bytes, z);
    } else {
      qcc_neon_wide_put_few(output, i, p.output_bytes, left, z);
    }
  }
}
