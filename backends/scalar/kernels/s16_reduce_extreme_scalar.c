/* Int16 maximum or minimum over any axes.
 *
 *   output[k0][k1][k2] = extreme over r0, r1, r2 of input[sum ki * kept_strides[i] + sum ri * reduced_strides[i]]
 *
 * input: int16; output: int16[kept[0]][kept[1]][kept[2]]; they do not overlap.
 * Reference: ReduceMax.int_ref and ReduceMin.int_ref in qcc/ir/ops/reduce.py.
 */
#include "qcc_wide.h"

void qcc_s16_reduce_extreme_scalar(const qcc_wide_reduce_extreme_params *params, const int16_t *QCC_RESTRICT input,
                                  int16_t *QCC_RESTRICT output) {
  const int32_t *kept = params->kept;
  const int32_t *ks = params->kept_strides;
  const int32_t *reduced = params->reduced;
  const int32_t *rs = params->reduced_strides;
  for (int32_t k0 = 0; k0 < kept[0]; ++k0) {
    for (int32_t k1 = 0; k1 < kept[1]; ++k1, output += kept[2]) {
      const int16_t *block = input + ((ptrdiff_t)k0 * ks[0] + (ptrdiff_t)k1 * ks[1]);
      for (int32_t k2 = 0; k2 < kept[2]; ++k2) {
        output[k2] = params->minimum ? 32767 : -32768;
      }
      for (int32_t r0 = 0; r0 < reduced[0]; ++r0) {
        for (int32_t r1 = 0; r1 < reduced[1]; ++r1) {
          const int16_t *x = block + ((ptrdiff_t)r0 * rs[0] + (ptrdiff_t)r1 * rs[1]);
          for (int32_t r2 = 0; r2 < reduced[2]; ++r2, x += rs[2]) {
            for (int32_t k2 = 0; k2 < kept[2]; ++k2) {
              const int16_t value = x[(ptrdiff_t)k2 * ks[2]];
              if (params->minimum ? value < output[k2] : value > output[k2]) {
                output[k2] = value;
              }
            }
          }
        }
      }
    }
  }
}
