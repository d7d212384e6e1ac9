/* Sum or mean of 8 or 16 bits over any axes with requantization.
 *
 *   acc = bias + sum over r0, r1, r2 of input[sum ki * kept_strides[i] + sum ri * reduced_strides[i]]
 *   output[k0][k1][k2] = requantize(acc), saturated to [low, high]
 *
 * input: int8 or int16; output: int8 or int16 [kept[0]][kept[1]][kept[2]]; they do not overlap. multiplier, shift
 * int32[requantize_channels]; the channel of an output is its position modulo that number. Accumulator: int64.
 * Reference: ReduceSum.int_ref and ReduceMean.int_ref in qcc/ir/ops/reduce.py, Requantize.int_ref.
 */
#include "qcc_integer_registers.h"
#include "qcc_wide.h"

/* Outputs side by side: neighbours share cache lines whichever axes are reduced. */
enum { BLOCK = 32 };

void qcc_wide_reduce_sum_scalar(const qcc_wide_reduce_sum_params *params, const void *QCC_RESTRICT input,
                                const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                void *QCC_RESTRICT output) {
  const qcc_wide_reduce_sum_params p = *params;
  int64_t sums[BLOCK];
  int32_t channel = 0;
  ptrdiff_t at = 0;
  for (int32_t k0 = 0; k0 < p.kept[0]; ++k0) {
    for (int32_t k1 = 0; k1 < p.kept[1]; ++k1) {
      for (int32_t k2 = 0; k2 < p.kept[2]; k2 += BLOCK) {
        const int32_t width = p.kept[2] - k2 < BLOCK ? p.kept[2] - k2 : BLOCK;
        const ptrdiff_t block = (ptrdiff_t)k0 * p.kept_strides[0] + (ptrdiff_t)k1 * p.kept_strides[1] +
                                (ptrdiff_t)k2 * p.kept_strides[2];
        for (int32_t i = 0; i < width; ++i) {
          sums[i] = p.bias;
        }
        for (int32_t r0 = 0; r0 < p.reduced[0]; ++r0) {
          for (int32_t r1 = 0; r1 < p.reduced[1]; ++r1) {
            ptrdiff_t x = block + (ptrdiff_t)r0 * p.reduced_strides[0] + (ptrdiff_t)r1 * p.reduced_strides[1];
            for (int32_t r2 = 0; r2 < p.reduced[2]; ++r2, x += p.reduced_strides[2]) {
              for (int32_t i = 0; i < width; ++i) {
                sums[i] += qcc_wide_load(input, x + (ptrdiff_t)i * p.kept_strides[2], p.input_bytes);
              }
            }
          }
        }
        for (int32_t i = 0; i < width; ++i, ++at) {
          qcc_wide_store(output, at, p.output_bytes, sums[i], multiplier[channel], shift[channel],
                         p.output_zero_point, p.low, p.high);
          channel = channel + 1 < p.requantize_channels ? channel + 1 : 0;
        }
      }
    }
  }
}
