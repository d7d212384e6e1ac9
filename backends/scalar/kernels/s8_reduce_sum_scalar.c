/* Int8 sum or mean over any axes with requantization.
 *
 *   acc = bias + sum over r0, r1, r2 of input[sum ki * kept_strides[i] + sum ri * reduced_strides[i]]
 *   output[k0][k1][k2] = requantize(acc), saturated to [low, high]
 *
 * input: int8; output: int8[kept[0]][kept[1]][kept[2]]; they do not overlap. multiplier, shift
 * int32[requantize_channels]; the channel of an output is its position modulo that number. Fewer than 2^23 elements
 * are added, so any partial sum fits int32.
 * Reference: ReduceSum.int_ref and ReduceMean.int_ref in qcc/ir/ops/reduce.py, Requantize.int_ref.
 */
#include "qcc_integer.h"
#include "qcc_requantize.h"

/* Outputs side by side: neighbours share cache lines whichever axes are reduced. */
#define BLOCK 32

void qcc_s8_reduce_sum_scalar(const qcc_reduce_sum_params *params, const int8_t *QCC_RESTRICT input,
                              const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                              int8_t *QCC_RESTRICT output) {
  const int32_t *kept = params->kept;
  const int32_t *ks = params->kept_strides;
  const int32_t *reduced = params->reduced;
  const int32_t *rs = params->reduced_strides;
  int32_t sums[BLOCK];
  int32_t channel = 0;
  for (int32_t k0 = 0; k0 < kept[0]; ++k0) {
    for (int32_t k1 = 0; k1 < kept[1]; ++k1) {
      for (int32_t k2 = 0; k2 < kept[2]; k2 += BLOCK) {
        const int32_t width = kept[2] - k2 < BLOCK ? kept[2] - k2 : BLOCK;
        const int8_t *block = input + ((ptrdiff_t)k0 * ks[0] + (ptrdiff_t)k1 * ks[1] + (ptrdiff_t)k2 * ks[2]);
        for (int32_t i = 0; i < width; ++i) {
          sums[i] = params->bias;
        }
        for (int32_t r0 = 0; r0 < reduced[0]; ++r0) {
          for (int32_t r1 = 0; r1 < reduced[1]; ++r1) {
            const int8_t *x = block + ((ptrdiff_t)r0 * rs[0] + (ptrdiff_t)r1 * rs[1]);
            for (int32_t r2 = 0; r2 < reduced[2]; ++r2, x += rs[2]) {
              for (int32_t i = 0; i < width; ++i) {
                sums[i] += x[(ptrdiff_t)i * ks[2]];
              }
            }
          }
        }
        for (int32_t i = 0; i < width; ++i) {
          *output++ = qcc_requantize_s8(sums[i], multiplier[channel], shift[channel], params->output_zero_point,
                                        params->low, params->high);
          channel = channel + 1 < params->requantize_channels ? channel + 1 : 0;
        }
      }
    }
  }
}
