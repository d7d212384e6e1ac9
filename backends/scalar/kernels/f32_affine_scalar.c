/* Float batch normalization at inference: output[r][c] = input[r][c] * multiplier[c] + offset[c].
 *
 * input, output: float[rows][channels]; they may be the same. multiplier, offset: float[channels].
 * Reference: BatchNorm.as_affine in qcc/ir/ops/norm.py.
 */
#include "qcc_float.h"

void qcc_f32_affine_scalar(const qcc_f32_affine_params *params, const float *input,
                           const float *QCC_RESTRICT multiplier, const float *QCC_RESTRICT offset, float *output) {
  for (int32_t r = 0; r < params->rows; ++r) {
    for (int32_t c = 0; c < params->channels; ++c) {
      output[c] = input[c] * multiplier[c] + offset[c];
    }
    input += params->channels;
    output += params->channels;
  }
}
