/* Float convolution with any strides, dilations, padding and groups; a dense layer is the 1x1 case.
 *
 *   output[n][i][j][o] = clamp(bias[o] + sum over a, b, c of w[o][a][b][c] * input[n][i sh + a dh - top]
 *                                                                             [j sw + b dw - left][group(o) + c])
 *
 * input   float[batch][input_height][input_width][input_channels], 0 outside
 * weights packed in blocks of output channels (see qcc_float.h), so that the inner loop runs over consecutive
 *         outputs: each keeps its own sum, in the order a, b, c, and no sum is reassociated
 * bias    float[output_channels] or NULL
 * output  float[batch][output_height][output_width][output_channels]; overlaps nothing
 * Reference: Conv2d.float_ref in qcc/ir/ops/conv.py, Dense.float_ref in qcc/ir/ops/dense.py.
 */
#include "qcc_float.h"

/* sums[o] += sum over c of x[c] * w[c][o] */
static inline void add_products(float *QCC_RESTRICT sums, const float *QCC_RESTRICT x,
                                const float *QCC_RESTRICT w, int32_t depth, int32_t width) {
  for (int32_t c = 0; c < depth; ++c) {
    const float value = x[c];
    for (int32_t o = 0; o < width; ++o) {
      sums[o] += value * w[o];
    }
    w += width;
  }
}

/* One block of output channels at one position; input is the image of the group. */
static void add_window(const qcc_f32_conv2d_params *p, float *sums, const float *input, const float *weights,
                       int32_t top, int32_t left, int32_t width) {
  const int32_t depth = p->input_channels / p->groups;
  for (int32_t a = 0; a < p->kernel_height; ++a) {
    const int32_t row = top + a * p->dilation_height;
    for (int32_t b = 0; b < p->kernel_width; ++b, weights += (ptrdiff_t)depth * width) {
      const int32_t column = left + b * p->dilation_width;
      if (row < 0 || row >= p->input_height || column < 0 || column >= p->input_width) {
        continue;
      }
      const float *x = input + ((ptrdiff_t)row * p->input_width + column) * p->input_channels;
      if (width == QCC_F32_BLOCK) {
        add_products(sums, x, weights, depth, QCC_F32_BLOCK);
      } else {
        add_products(sums, x, weights, depth, width);
      }
    }
  }
}

void qcc_f32_conv2d_scalar(const qcc_f32_conv2d_params *params, const float *QCC_RESTRICT input,
                           const float *QCC_RESTRICT weights, const float *QCC_RESTRICT bias,
                           float *QCC_RESTRICT output) {
  const qcc_f32_conv2d_params *p = params;
  const int32_t depth = p->input_channels / p->groups;
  const int32_t per_group = p->output_channels / p->groups;
  const ptrdiff_t filter = (ptrdiff_t)p->kernel_height * p->kernel_width * depth;
  const ptrdiff_t image = (ptrdiff_t)p->input_height * p->input_width * p->input_channels;
  float sums[QCC_F32_BLOCK];
  for (int32_t n = 0; n < p->batch; ++n, input += image) {
    for (int32_t i = 0; i < p->output_height; ++i) {
      for (int32_t j = 0; j < p->output_width; ++j, output += p->output_channels) {
        const int32_t top = i * p->stride_height - p->pad_top;
        const int32_t left = j * p->stride_width - p->pad_left;
        for (int32_t g = 0; g < p->groups; ++g) {
          for (int32_t first = 0; first < per_group; first += QCC_F32_BLOCK) {
            const int32_t channel = g * per_group + first;
            const int32_t rest = per_group - first;
            const int32_t width = rest < QCC_F32_BLOCK ? rest : QCC_F32_BLOCK;
            for (int32_t o = 0; o < width; ++o) {
              sums[o] = bias != NULL ? bias[channel + o] : 0.0f;
            }
            add_window(p, sums, input + (ptrdiff_t)g * depth, weights + filter * channel, top, left, width);
            for (int32_t o = 0; o < width; ++o) {
              output[channel + o] = qcc_clamp_f32(sums[o], p->low, p->high);
            }
          }
        }
      }
    }
  }
}
