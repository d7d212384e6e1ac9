/* Index of the largest element along the middle axis, as a float.
 *
 *   output[o][i] = the first c, or the last one, with the largest input[o][c][i]; the first NaN, if there is one
 *
 * input: float[outer][count][inner]; output: float[outer][inner].
 * Reference: ArgMax.float_ref in qcc/ir/ops/indexing.py.
 */
#include "qcc_float.h"
#include "qcc_math.h"

void qcc_f32_arg_max_scalar(const qcc_f32_arg_max_params *params, const float *QCC_RESTRICT input,
                            float *QCC_RESTRICT output) {
  const ptrdiff_t stride = params->inner;
  for (int32_t o = 0; o < params->outer; ++o) {
    for (int32_t i = 0; i < params->inner; ++i) {
      const float *x = input + (ptrdiff_t)o * params->count * stride + i;
      float largest = x[0];
      int32_t found = 0;
      for (int32_t c = 1; c < params->count && !qcc_is_nan(largest); ++c) {
        const float value = x[c * stride];
        if (value > largest || qcc_is_nan(value) || (value == largest && params->last != 0)) {
          largest = value;
          found = c;
        }
      }
      *output++ = (float)found;
    }
  }
}
