/* Float transposed convolution with any strides, dilations, cropping and groups.
 *
 *   output[n][i sh + a dh - top][j sw + b dw - left][o] += sum over c of w[o][a][b][c] * input[n][i][j][group(o) + c]
 *
 * starting from bias[o], then clamped. Computed output by output: tap (a, b) reaches row y where y + top - a dh is a
 * multiple of sh inside the image, and columns likewise.
 *
 * input   float[batch][input_height][input_width][input_channels]
 * weights packed in blocks of output channels (see qcc_float.h)
 * bias    float[output_channels] or NULL
 * output  float[batch][output_height][output_width][output_channels]; overlaps nothing
 * Reference: ConvTranspose2d.float_ref in qcc/ir/ops/conv_transpose.py.
 */
#include "qcc_float.h"

/* The input row (or column) that a tap at `position` reads, -1 when it reads none. */
static int32_t source(int32_t position, int32_t stride, int32_t size) {
  if (position < 0 || position % stride != 0 || position / stride >= size) {
    return -1;
  }
  return position / stride;
}

/* One block of output channels at row y, column x; input is the image of the group. */
static void add_taps(const qcc_f32_conv_transpose2d_params *p, float *QCC_RESTRICT sums,
                     const float *QCC_RESTRICT input, const float *QCC_RESTRICT weights, int32_t y, int32_t x,
                     int32_t width) {
  const int32_t depth = p->input_channels / p->groups;
  for (int32_t a = 0; a < p->kernel_height; ++a) {
    const int32_t i = source(y + p->pad_top - a * p->dilation_height, p->stride_height, p->input_height);
    for (int32_t b = 0; b < p->kernel_width; ++b, weights += (ptrdiff_t)depth * width) {
      const int32_t j = source(x + p->pad_left - b * p->dilation_width, p->stride_width, p->input_width);
      if (i < 0 || j < 0) {
        continue;
      }
      const float *from = input + ((ptrdiff_t)i * p->input_width + j) * p->input_channels;
      for (int32_t c = 0; c < depth; ++c) {
        const float *w = weights + (ptrdiff_t)c * width;
        for (int32_t o = 0; o < width; ++o) {
          sums[o] += from[c] * w[o];
        }
      }
    }
  }
}

void qcc_f32_conv_transpose2d_scalar(const qcc_f32_conv_transpose2d_params *params, const float *QCC_RESTRICT input,
                                     const float *QCC_RESTRICT weights, const float *QCC_RESTRICT bias,
                                     float *QCC_RESTRICT output) {
  const qcc_f32_conv_transpose2d_params *p = params;
  const int32_t depth = p->input_channels / p->groups;
  const int32_t per_group = p->output_channels / p->groups;
  const ptrdiff_t filter = (ptrdiff_t)p->kernel_height * p->kernel_width * depth;
  const ptrdiff_t image = (ptrdiff_t)p->input_height * p->input_width * p->input_channels;
  float sums[QCC_F32_BLOCK];
  for (int32_t n = 0; n < p->batch; ++n, input += image) {
    for (int32_t y = 0; y < p->output_height; ++y) {
      for (int32_t x = 0; x < p->output_width; ++x, output += p->output_channels) {
        for (int32_t g = 0; g < p->groups; ++g) {
          for (int32_t first = 0; first < per_group; first += QCC_F32_BLOCK) {
            const int32_t channel = g * per_group + first;
            const int32_t rest = per_group - first;
            const int32_t width = rest < QCC_F32_BLOCK ? rest : QCC_F32_BLOCK;
            for (int32_t o = 0; o < width; ++o) {
              sums[o] = bias != NULL ? bias[channel + o] : 0.0f;
            }
            add_taps(p, sums, input + (ptrdiff_t)g * depth, weights + filter * channel, y, x, width);
            for (int32_t o = 0; o < width; ++o) {
              output[channel + o] = qcc_clamp_f32(sums[o], p->low, p->high);
            }
          }
        }
      }
    }
  }
}
