/* Float softmax and log_softmax over the middle axis.
 *
 *   output[o][c][i] = exp(x - max) / sum exp(x - max),  or  x - max - log(sum exp(x - max))
 *
 * with x = input[o][c][i], maximum and sum over c. input, output: float[outer][count][inner]; they may be the same.
 * Reference: Softmax.float_ref and LogSoftmax.float_ref in qcc/ir/ops/softmax.py.
 */
#include "qcc_float.h"
#include "qcc_math.h"

void qcc_f32_softmax_scalar(const qcc_f32_softmax_params *params, const float *input, float *output) {
  const ptrdiff_t stride = params->inner;
  const int32_t count = params->count;
  for (int32_t o = 0; o < params->outer; ++o) {
    for (int32_t i = 0; i < params->inner; ++i) {
      const ptrdiff_t start = (ptrdiff_t)o * count * stride + i;
      const float *x = input + start;
      float *y = output + start;
      float largest = x[0];
      float total = 0.0f;
      for (int32_t c = 1; c < count; ++c) {
        largest = x[c * stride] > largest ? x[c * stride] : largest;
      }
      for (int32_t c = 0; c < count; ++c) {
        const float shifted = x[c * stride] - largest;
        const float e = qcc_expf(shifted);
        total += e;
        y[c * stride] = params->logarithm ? shifted : e;
      }
      if (params->logarithm) {
        const float offset = qcc_logf(total);
        for (int32_t c = 0; c < count; ++c) {
          y[c * stride] -= offset;
        }
      } else {
        for (int32_t c = 0; c < count; ++c) {
          y[c * stride] /= total;
        }
      }
    }
  }
}
