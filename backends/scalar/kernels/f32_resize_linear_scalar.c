/* Float bilinear resize.
 *
 *   output[n][i][j][c] = (x00 (1 - u) + x10 u) (1 - v) + (x01 (1 - u) + x11 u) v
 *
 * with u = row_weights[i], v = column_weights[j], xab = input[n][rows[i][a]][columns[j][b]][c].
 * input float[batch][input_height][input_width][channels]; output float[batch][output_height][output_width][channels];
 * they do not overlap.
 * Reference: ResizeLinear.float_ref in qcc/ir/ops/resize.py.
 */
#include "qcc_float.h"

void qcc_f32_resize_linear_scalar(const qcc_f32_resize_linear_params *params, const float *QCC_RESTRICT input,
                                  const int32_t *QCC_RESTRICT rows, const float *QCC_RESTRICT row_weights,
                                  const int32_t *QCC_RESTRICT columns, const float *QCC_RESTRICT column_weights,
                                  float *QCC_RESTRICT output) {
  const int32_t channels = params->channels;
  const ptrdiff_t row = (ptrdiff_t)params->input_width * channels;
  for (int32_t n = 0; n < params->batch; ++n, input += params->input_height * row) {
    for (int32_t i = 0; i < params->output_height; ++i) {
      const float *upper = input + row * rows[2 * i];
      const float *lower = input + row * rows[2 * i + 1];
      const float u = row_weights[i];
      for (int32_t j = 0; j < params->output_width; ++j) {
        const ptrdiff_t left = (ptrdiff_t)columns[2 * j] * channels;
        const ptrdiff_t right = (ptrdiff_t)columns[2 * j + 1] * channels;
        const float v = column_weights[j];
        for (int32_t c = 0; c < channels; ++c) {
          const float first = upper[left + c] * (1.0f - u) + lower[left + c] * u;
          const float second = upper[right + c] * (1.0f - u) + lower[right + c] * u;
          *output++ = first * (1.0f - v) + second * v;
        }
      }
    }
  }
}
