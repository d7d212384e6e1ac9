/* wide_mul_scalar: product of activations of 8 or 16 bits, or of one and a constant, requantized.
 *
 * a        int8 or int16, broadcast as a_stride says, zero_point a_zero_point
 * b        the same with b_stride and b_zero_point; NULL where the constant is the second operand
 * constant int16, broadcast as b_stride says; NULL where b is there
 * multiplier, shift  int32[1], or int32[count[3]] when per_channel is 1
 * output   int8 or int16 [count[0]][count[1]][count[2]][count[3]]; may be written over an operand of the same size
 *
 *   acc = (a - a_zero_point) * (b - b_zero_point)  (or * constant)
 *   output = requantize(acc), saturated to [low, high]
 *
 * Accumulator: |acc| <= 2^30, as int16 is symmetric.
 * Reference: Mul.int_ref in qcc/ir/ops/elementwise.py, Requantize.int_ref.
 */
#include "qcc_integer_registers.h"
#include "qcc_wide.h"

void qcc_wide_mul_scalar(const qcc_wide_binary_params *params, const void *a, const void *b,
                         const int16_t *QCC_RESTRICT constant, const int32_t *QCC_RESTRICT multiplier,
                         const int32_t *QCC_RESTRICT shift, void *output) {
  const qcc_wide_binary_params p = *params;
  ptrdiff_t at = 0;
  for (int32_t i0 = 0; i0 < p.count[0]; ++i0) {
    for (int32_t i1 = 0; i1 < p.count[1]; ++i1) {
      for (int32_t i2 = 0; i2 < p.count[2]; ++i2) {
        const ptrdiff_t a_row = i0 * p.a_stride[0] + i1 * p.a_stride[1] + i2 * p.a_stride[2];
        const ptrdiff_t b_row = i0 * p.b_stride[0] + i1 * p.b_stride[1] + i2 * p.b_stride[2];
        for (int32_t i = 0; i < p.count[3]; ++i, ++at) {
          const int32_t c = p.per_channel ? i : 0;
          const ptrdiff_t b_at = b_row + i * p.b_stride[3];
          const int32_t a_value = qcc_wide_load(a, a_row + i * p.a_stride[3], p.a_bytes) - p.a_zero_point;
          const int32_t b_value = b ? qcc_wide_load(b, b_at, p.b_bytes) - p.b_zero_point : constant[b_at];
          qcc_wide_store(output, at, p.output_bytes, (int64_t)a_value * b_value, multiplier[c], shift[c],
                         p.output_zero_point, p.low, p.high);
        }
      }
    }
  }
}
