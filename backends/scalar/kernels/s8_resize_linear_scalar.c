/* Int8 bilinear resize with requantization.
 *
 *   acc = (x00 (one - u) + x10 u) (one - v) + (x01 (one - u) + x11 u) v
 *   output[n][i][j][c] = requantize(acc), saturated to [low, high]
 *
 * with u = row_weights[i], v = column_weights[j] in [0, one], one = 128, xab = input[n][rows[i][a]][columns[j][b]][c]
 * - input_zero_point. |acc| <= 255 * one^2 < 2^23.
 * input int8[batch][input_height][input_width][channels]; output int8[batch][output_height][output_width][channels];
 * they do not overlap. multiplier, shift int32[requantize_channels].
 * Reference: ResizeLinear.int_ref in qcc/ir/ops/resize.py, Requantize.int_ref.
 */
#include "qcc_integer.h"
#include "qcc_requantize.h"

void qcc_s8_resize_linear_scalar(const qcc_resize_linear_params *params, const int8_t *QCC_RESTRICT input,
                                 const int32_t *QCC_RESTRICT rows, const int32_t *QCC_RESTRICT row_weights,
                                 const int32_t *QCC_RESTRICT columns, const int32_t *QCC_RESTRICT column_weights,
                                 const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                 int8_t *QCC_RESTRICT output) {
  const int32_t channels = params->channels;
  const int32_t one = params->one;
  const int32_t per_channel = params->requantize_channels != 1;
  /* the weights add up to one^2, so the zero_point is subtracted once */
  const int32_t bias = -params->input_zero_point * one * one;
  const ptrdiff_t row = (ptrdiff_t)params->input_width * channels;
  for (int32_t n = 0; n < params->batch; ++n, input += params->input_height * row) {
    for (int32_t i = 0; i < params->output_height; ++i) {
      const int8_t *upper = input + row * rows[2 * i];
      const int8_t *lower = input + row * rows[2 * i + 1];
      const int32_t u = row_weights[i];
      for (int32_t j = 0; j < params->output_width; ++j) {
        const ptrdiff_t left = (ptrdiff_t)columns[2 * j] * channels;
        const ptrdiff_t right = (ptrdiff_t)columns[2 * j + 1] * channels;
        const int32_t v = column_weights[j];
        for (int32_t c = 0; c < channels; ++c) {
          const int32_t first = upper[left + c] * (one - u) + lower[left + c] * u;
          const int32_t second = upper[right + c] * (one - u) + lower[right + c] * u;
          const int32_t acc = bias + first * (one - v) + second * v;
          const int32_t m = per_channel ? c : 0;
          *output++ = qcc_requantize_s8(acc, multiplier[m], shift[m], params->output_zero_point, params->low,
                                        params->high);
        }
      }
    }
  }
}
