/* Int16 max pooling: output[n][i][j][c] = largest element of the window that lies on the image.
 *
 * input int16[batch][input_height][input_width][channels]; output int16[batch][output_height][output_width][channels];
 * they do not overlap. Each window holds an element of the image.
 * Reference: MaxPool2d.int_ref in qcc/ir/ops/pool.py.
 */
#include "qcc_wide.h"

void qcc_s16_max_pool2d_scalar(const qcc_wide_max_pool2d_params *params, const int16_t *QCC_RESTRICT input,
                              int16_t *QCC_RESTRICT output) {
  const qcc_wide_max_pool2d_params *p = params;
  const int32_t channels = p->channels;
  const ptrdiff_t image = (ptrdiff_t)p->input_height * p->input_width * channels;
  for (int32_t n = 0; n < p->batch; ++n, input += image) {
    for (int32_t i = 0; i < p->output_height; ++i) {
      for (int32_t j = 0; j < p->output_width; ++j, output += channels) {
        for (int32_t c = 0; c < channels; ++c) {
          output[c] = -32768;
        }
        for (int32_t a = 0; a < p->kernel_height; ++a) {
          const int32_t row = i * p->stride_height - p->pad_top + a * p->dilation_height;
          for (int32_t b = 0; b < p->kernel_width; ++b) {
            const int32_t column = j * p->stride_width - p->pad_left + b * p->dilation_width;
            if (row < 0 || row >= p->input_height || column < 0 || column >= p->input_width) {
              continue;
            }
            const int16_t *x = input + ((ptrdiff_t)row * p->input_width + column) * channels;
            for (int32_t c = 0; c < channels; ++c) {
              output[c] = x[c] > output[c] ? x[c] : output[c];
            }
          }
        }
      }
    }
  }
}
