/* Float local response normalization over neighbouring channels.
 *
 *   output[r][c] = input[r][c] / (bias + alpha / size * sum of input[r][d]^2 over the window of c) ^ beta
 *
 * The window of c is d = c - (size - 1) / 2 ... c + size - 1 - (size - 1) / 2, cut at the first and last channel.
 * input, output: float[rows][channels]; they do not overlap.
 * Reference: Lrn.float_ref in qcc/ir/ops/norm.py.
 */
#include "qcc_float.h"
#include "qcc_math.h"

void qcc_f32_lrn_scalar(const qcc_f32_lrn_params *params, const float *QCC_RESTRICT input,
                        float *QCC_RESTRICT output) {
  const int32_t channels = params->channels;
  const int32_t before = (params->size - 1) / 2;
  const int32_t after = params->size - 1 - before;
  for (int32_t r = 0; r < params->rows; ++r, input += channels, output += channels) {
    for (int32_t c = 0; c < channels; ++c) {
      const int32_t first = c > before ? c - before : 0;
      const int32_t last = after < channels - 1 - c ? c + after : channels - 1;
      float squares = 0.0f;
      for (int32_t d = first; d <= last; ++d) {
        squares += input[d] * input[d];
      }
      output[c] = input[c] / qcc_powf(params->bias + params->alpha / (float)params->size * squares, params->beta);
    }
  }
}
