/* Float convolution whose weights are codes, decoded as they are multiplied; a dense layer is the 1x1 case.
 *
 * A kernel includes this file after it has defined
 *   qcc_code               the element of its weights
 *   QCC_ROWS(filter)       rows of a block, for filters of so many weights
 *   decode(block, k, scale, width, w)  w[o] = weight k of channel o of the block: one float product code * scale, where
 *                          there are scales
 *
 * input   float[batch][input_height][input_width][input_channels], 0 outside
 * weights for each group of channels, for each block of up to QCC_F32_BLOCK of its output channels:
 *         qcc_code[QCC_ROWS(filter)][channels of the block]; a filter is its weights in the order a, b, c
 * scale   for each of these blocks: float[groups of weights][channels of the block], where weight k of a filter belongs
 *         to group k / params.group; or NULL
 * bias    float[output_channels] or NULL
 * output  float[batch][output_height][output_width][output_channels]; overlaps nothing
 * Sums run in the order of f32_conv2d_scalar: the result is that of the decoded weights.
 * Reference: StoredWeight.int_ref in qcc/ir/ops/stored.py, Conv2d.float_ref, Dense.float_ref.
 */
#ifndef QCC_STORED_CONV2D_H
#define QCC_STORED_CONV2D_H

#include "qcc_float.h"

/* sums[o] += sum over c of x[c] * weight first + c of channel o */
static inline void add_products(float *QCC_RESTRICT sums, const float *QCC_RESTRICT x,
                                const qcc_code *QCC_RESTRICT block, const float *QCC_RESTRICT scale, int32_t first,
                                int32_t depth, int32_t group, int32_t width) {
  int32_t c = 0;
  while (c < depth) {
    const int32_t index = (first + c) / group;
    const int32_t rest = (index + 1) * group - first; /* in int32: a group is no longer than a filter */
    const int32_t end = rest < depth ? rest : depth;
    const float *of_group = scale != NULL ? scale + (ptrdiff_t)index * width : NULL;
    for (; c < end; ++c) {
      const float value = x[c];
      float w[QCC_F32_BLOCK];
      decode(block, first + c, of_group, width, w);
      for (int32_t o = 0; o < width; ++o) {
        sums[o] += value * w[o];
      }
    }
  }
}

/* One block of output channels at one position; input is the image of the group. */
static void add_window(const qcc_f32_stored_conv2d_params *p, float *sums, const float *input, const qcc_code *block,
                       const float *scale, int32_t top, int32_t left, int32_t width) {
  const int32_t depth = p->input_channels / p->groups;
  int32_t first = 0;
  for (int32_t a = 0; a < p->kernel_height; ++a) {
    const int32_t y = top + a * p->dilation_height;
    for (int32_t b = 0; b < p->kernel_width; ++b, first += depth) {
      const int32_t x = left + b * p->dilation_width;
      const float *pixel;
      if (y < 0 || y >= p->input_height || x < 0 || x >= p->input_width) {
        continue;
      }
      pixel = input + ((ptrdiff_t)y * p->input_width + x) * p->input_channels;
      if (width == QCC_F32_BLOCK) {
        add_products(sums, pixel, block, scale, first, depth, p->group, QCC_F32_BLOCK);
      } else {
        add_products(sums, pixel, block, scale, first, depth, p->group, width);
      }
    }
  }
}

static inline void stored_conv2d(const qcc_f32_stored_conv2d_params *p, const float *input, const qcc_code *weights,
                                 const float *scale, const float *bias, float *output) {
  const int32_t depth = p->input_channels / p->groups;
  const int32_t per_group = p->output_channels / p->groups;
  const int32_t filter = p->kernel_height * p->kernel_width * depth;
  const ptrdiff_t scales = scale != NULL ? (filter + p->group - 1) / p->group : 0; /* of a channel */
  const ptrdiff_t image = (ptrdiff_t)p->input_height * p->input_width * p->input_channels;
  float sums[QCC_F32_BLOCK];
  for (int32_t n = 0; n < p->batch; ++n, input += image) {
    for (int32_t i = 0; i < p->output_height; ++i) {
      for (int32_t j = 0; j < p->output_width; ++j, output += p->output_channels) {
        const int32_t top = i * p->stride_height - p->pad_top;
        const int32_t left = j * p->stride_width - p->pad_left;
        const qcc_code *block = weights;
        const float *of_block = scale;
        for (int32_t channel = 0, width; channel < p->output_channels; channel += width) {
          const int32_t g = channel / per_group;
          const int32_t rest = (g + 1) * per_group - channel;
          width = rest < QCC_F32_BLOCK ? rest : QCC_F32_BLOCK;
          for (int32_t o = 0; o < width; ++o) {
            sums[o] = bias != NULL ? bias[channel + o] : 0.0f;
          }
          add_window(p, sums, input + (ptrdiff_t)g * depth, block, of_block, top, left, width);
          for (int32_t o = 0; o < width; ++o) {
            output[channel + o] = qcc_clamp_f32(sums[o], p->low, p->high);
          }
          block += (ptrdiff_t)QCC_ROWS(filter) * width;
          of_block = scale != NULL ? of_block + scales * width : NULL;
        }
      }
    }
  }
}

#endif
