/* s8_mul_constant_scalar: product of an activation and a constant with broadcasting, requantized.
 *
 * a        int8, broadcast as a_stride says, zero_point a_zero_point
 * b        int16, broadcast as b_stride says, zero_point subtracted
 * multiplier, shift  int32[1], or int32[count[3]] when per_channel is 1
 * output   int8[count[0]][count[1]][count[2]][count[3]]; may be written over an operand of the same size
 *
 *   acc = (a - a_zero_point) * b
 *   output = requantize(acc), saturated to [low, high]
 *
 * Accumulator: |acc| <= 255 * 2^15.
 * Reference: Mul.int_ref in qcc/ir/ops/elementwise.py, Requantize.int_ref.
 */
#include "qcc_kernels.h"
#include "qcc_requantize.h"

void qcc_s8_mul_constant_scalar(const qcc_binary_params *params, const int8_t *a, const int16_t *QCC_RESTRICT b,
                                const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                int8_t *output) {
  const qcc_binary_params p = *params;
  for (int32_t i0 = 0; i0 < p.count[0]; ++i0) {
    for (int32_t i1 = 0; i1 < p.count[1]; ++i1) {
      for (int32_t i2 = 0; i2 < p.count[2]; ++i2) {
        const int8_t *a_row = a + (i0 * p.a_stride[0] + i1 * p.a_stride[1] + i2 * p.a_stride[2]);
        const int16_t *b_row = b + (i0 * p.b_stride[0] + i1 * p.b_stride[1] + i2 * p.b_stride[2]);
        for (int32_t i = 0; i < p.count[3]; ++i) {
          const int32_t c = p.per_channel ? i : 0;
          const int32_t a_value = a_row[i * p.a_stride[3]] - p.a_zero_point;
          const int32_t acc = a_value * b_row[i * p.b_stride[3]];
          *output++ = qcc_requantize_s8(acc, multiplier[c], shift[c], p.output_zero_point, p.low, p.high);
        }
      }
    }
  }
}
