/* Float depthwise convolution: each channel has one filter of its own.
 *
 *   output[n][i][j][c] = clamp(bias[c] + sum over a, b of w[a][b][c] * input[n][i sh + a dh - top][j sw + b dw - left][c])
 *
 * input   float[batch][input_height][input_width][input_channels], 0 outside
 * weights float[kernel_height][kernel_width][input_channels]: the channel is fastest, as in the input
 * bias    float[input_channels] or NULL
 * output  float[batch][output_height][output_width][input_channels]; overlaps nothing
 * Reference: Conv2d.float_ref in qcc/ir/ops/conv.py.
 */
#include "qcc_float.h"

void qcc_f32_depthwise_conv2d_scalar(const qcc_f32_conv2d_params *params, const float *QCC_RESTRICT input,
                                     const float *QCC_RESTRICT weights, const float *QCC_RESTRICT bias,
                                     float *QCC_RESTRICT output) {
  const qcc_f32_conv2d_params *p = params;
  const int32_t channels = p->input_channels;
  const ptrdiff_t image = (ptrdiff_t)p->input_height * p->input_width * channels;
  for (int32_t n = 0; n < p->batch; ++n, input += image) {
    for (int32_t i = 0; i < p->output_height; ++i) {
      for (int32_t j = 0; j < p->output_width; ++j, output += channels) {
        for (int32_t c = 0; c < channels; ++c) {
          output[c] = bias != NULL ? bias[c] : 0.0f;
        }
        for (int32_t a = 0; a < p->kernel_height; ++a) {
          const int32_t row = i * p->stride_height - p->pad_top + a * p->dilation_height;
          for (int32_t b = 0; b < p->kernel_width; ++b) {
            const int32_t column = j * p->stride_width - p->pad_left + b * p->dilation_width;
            if (row < 0 || row >= p->input_height || column < 0 || column >= p->input_width) {
              continue;
            }
            const float *x = input + ((ptrdiff_t)row * p->input_width + column) * channels;
            const float *w = weights + ((ptrdiff_t)a * p->kernel_width + b) * channels;
            for (int32_t c = 0; c < channels; ++c) {
              output[c] += x[c] * w[c];
            }
          }
        }
        for (int32_t c = 0; c < channels; ++c) {
          output[c] = qcc_clamp_f32(output[c], p->low, p->high);
        }
      }
    }
  }
}
