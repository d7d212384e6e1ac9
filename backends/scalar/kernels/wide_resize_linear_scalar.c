/* Bilinear resize of 8 or 16 bits with requantization.
 *
 *   acc = (x00 (one - u) + x10 u) (one - v) + (x01 (one - u) + x11 u) v
 *   output[n][i][j][c] = requantize(acc), saturated to [low, high]
 *
 * with u = row_weights[i], v = column_weights[j] in [0, one], one = 128, xab = input[n][rows[i][a]][columns[j][b]][c]
 * - input_zero_point. |acc| <= 2^15 * one^2 = 2^29.
 * input, output: int8 or int16 [batch][height][width][channels]; they do not overlap. multiplier, shift
 * int32[requantize_channels].
 * Reference: ResizeLinear.int_ref in qcc/ir/ops/resize.py, Requantize.int_ref.
 */
#include "qcc_integer_registers.h"
#include "qcc_wide.h"

void qcc_wide_resize_linear_scalar(const qcc_wide_resize_linear_params *params, const void *QCC_RESTRICT input,
                                   const int32_t *QCC_RESTRICT rows, const int32_t *QCC_RESTRICT row_weights,
                                   const int32_t *QCC_RESTRICT columns, const int32_t *QCC_RESTRICT column_weights,
                                   const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                   void *QCC_RESTRICT output) {
  const qcc_wide_resize_linear_params p = *params;
  const int32_t one = p.one;
  const int32_t per_channel = p.requantize_channels != 1;
  const int32_t bias = -p.input_zero_point * one * one; /* the weights add up to one^2 */
  const ptrdiff_t row = (ptrdiff_t)p.input_width * p.channels;
  ptrdiff_t at = 0;
  for (int32_t n = 0; n < p.batch; ++n) {
    for (int32_t i = 0; i < p.output_height; ++i) {
      const ptrdiff_t image = n * p.input_height * row;
      const ptrdiff_t upper = image + row * rows[2 * i], lower = image + row * rows[2 * i + 1];
      const int32_t u = row_weights[i];
      for (int32_t j = 0; j < p.output_width; ++j) {
        const ptrdiff_t left = (ptrdiff_t)columns[2 * j] * p.channels;
        const ptrdiff_t right = (ptrdiff_t)columns[2 * j + 1] * p.channels;
        const int32_t v = column_weights[j];
        for (int32_t c = 0; c < p.channels; ++c, ++at) {
          const int32_t first = qcc_wide_load(input, upper + left + c, p.input_bytes) * (one - u) +
                                qcc_wide_load(input, lower + left + c, p.input_bytes) * u;
          const int32_t second = qcc_wide_load(input, upper + right + c, p.input_bytes) * (one - u) +
                                 qcc_wide_load(input, lower + right + c, p.input_bytes) * u;
          const int32_t acc = bias + first * (one - v) + second * v;
          const int32_t m = per_channel ? c : 0;
          qcc_wide_store(output, at, p.output_bytes, acc, multiplier[m], shift[m], p.output_zero_point, p.low,
                         p.high);
        }
      }
    }
  }
}
