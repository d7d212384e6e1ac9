/* Float layer and instance normalization: the middle axis gets mean 0 and variance 1, then scale and bias.
 *
 *   output[o][c][i] = (x - mean) / sqrt(variance + epsilon) * scale[p] + bias[p]
 *
 * with x = input[o][c][i], mean and variance over c, p = o, c, i times parameter_strides. input, output:
 * float[outer][count][inner]; they may be the same. bias may be NULL. Two passes: the variance is the mean of
 * squared differences, so that a large mean does not cancel.
 * Reference: LayerNorm.float_ref and InstanceNorm.float_ref in qcc/ir/ops/norm.py.
 */
#include "qcc_float.h"
#include "qcc_math.h"

void qcc_f32_normalize_scalar(const qcc_f32_normalize_params *params, const float *input,
                              const float *QCC_RESTRICT scale, const float *QCC_RESTRICT bias, float *output) {
  const ptrdiff_t stride = params->inner;
  const int32_t count = params->count;
  const int32_t *steps = params->parameter_strides;
  for (int32_t o = 0; o < params->outer; ++o) {
    for (int32_t i = 0; i < params->inner; ++i) {
      const ptrdiff_t start = (ptrdiff_t)o * count * stride + i;
      const float *x = input + start;
      float *y = output + start;
      ptrdiff_t p = (ptrdiff_t)o * steps[0] + (ptrdiff_t)i * steps[2];
      float mean = 0.0f;
      float variance = 0.0f;
      float factor;
      for (int32_t c = 0; c < count; ++c) {
        mean += x[c * stride];
      }
      mean /= (float)count;
      for (int32_t c = 0; c < count; ++c) {
        const float difference = x[c * stride] - mean;
        variance += difference * difference;
      }
      factor = 1.0f / qcc_sqrtf(variance / (float)count + params->epsilon);
      for (int32_t c = 0; c < count; ++c, p += steps[1]) {
        const float value = (x[c * stride] - mean) * factor * scale[p];
        y[c * stride] = bias != NULL ? value + bias[p] : value;
      }
    }
  }
}
