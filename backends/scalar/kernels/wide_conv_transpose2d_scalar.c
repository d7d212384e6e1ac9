/* Transposed convolution with tensors of 8 or 16 bits, requantization and an optional residual operand.
 *
 *   acc[n][i sh + a dh - top][j sw + b dw - left][o] += sum over c of w[o][a][b][c] * (input[n][i][j][group(o) + c]
 *                                                                                   - input_zero_point)
 *
 * starting from bias[o] + (skip - skip_zero_point) * skip_multiplier[o]; output = requantize(acc), saturated to
 * [low, high]. Computed output by output, as s8_conv_transpose2d_scalar does.
 *
 * input   int8 or int16 [batch][input_height][input_width][input_channels]
 * skip    int8 or int16, shape of the output, or NULL
 * weights int8[output_channels][kernel_height][kernel_width][input_channels / groups]
 * bias    int64[output_channels]; skip_multiplier (or NULL), multiplier, shift  int32[output_channels]
 * output  int8 or int16 [batch][output_height][output_width][output_channels]; may be written over skip
 * Accumulator: int64.
 * Reference: ConvTranspose2d.int_ref in qcc/ir/ops/conv_transpose.py, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_integer_registers.h"
#include "qcc_wide.h"

/* The input row (or column) that a tap at `position` reads, -1 when it reads none. */
static int32_t source(int32_t position, int32_t stride, int32_t size) {
  if (position < 0 || position % stride != 0 || position / stride >= size) {
    return -1;
  }
  return position / stride;
}

/* Sum of all taps for one output element; the image of its group begins at element `image` of the input. */
static int64_t sum_taps(const qcc_wide_conv_transpose2d_params *p, const void *input, ptrdiff_t image,
                        const int8_t *QCC_RESTRICT weights, int32_t y, int32_t x) {
  const int32_t depth = p->input_channels / p->groups;
  int64_t sum = 0;
  for (int32_t a = 0; a < p->kernel_height; ++a) {
    const int32_t i = source(y + p->pad_top - a * p->dilation_height, p->stride_height, p->input_height);
    for (int32_t b = 0; b < p->kernel_width; ++b, weights += depth) {
      const int32_t j = source(x + p->pad_left - b * p->dilation_width, p->stride_width, p->input_width);
      if (i < 0 || j < 0) {
        continue;
      }
      const ptrdiff_t from = image + ((ptrdiff_t)i * p->input_width + j) * p->input_channels;
      for (int32_t c = 0; c < depth; ++c) {
        sum += (qcc_wide_load(input, from + c, p->input_bytes) - p->input_zero_point) * weights[c];
      }
    }
  }
  return sum;
}

void qcc_wide_conv_transpose2d_scalar(const qcc_wide_conv_transpose2d_params *params, const void *QCC_RESTRICT input,
                                      const void *skip, const int8_t *QCC_RESTRICT weights,
                                      const int64_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                      const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                      void *output) {
  const qcc_wide_conv_transpose2d_params *p = params;
  const int32_t depth = p->input_channels / p->groups;
  const int32_t per_group = p->output_channels / p->groups;
  const ptrdiff_t filter = (ptrdiff_t)p->kernel_height * p->kernel_width * depth;
  const ptrdiff_t size = (ptrdiff_t)p->input_height * p->input_width * p->input_channels;
  ptrdiff_t at = 0;
  for (int32_t n = 0; n < p->batch; ++n) {
    for (int32_t y = 0; y < p->output_height; ++y) {
      for (int32_t x = 0; x < p->output_width; ++x) {
        for (int32_t o = 0; o < p->output_channels; ++o, ++at) {
          const ptrdiff_t image = n * size + (ptrdiff_t)(o / per_group) * depth;
          int64_t acc = bias[o] + sum_taps(p, input, image, weights + filter * o, y, x);
          if (skip != NULL) {
            acc += (int64_t)(qcc_wide_load(skip, at, p->skip_bytes) - p->skip_zero_point) * skip_multiplier[o];
          }
          qcc_wide_store(output, at, p->output_bytes, acc, multiplier[o], shift[o], p->output_zero_point, p->low,
                         p->high);
        }
      }
    }
  }
}
