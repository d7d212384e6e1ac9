/* Int8 transposed convolution with requantization and an optional residual operand.
 *
 *   acc[n][i sh + a dh - top][j sw + b dw - left][o] += sum over c of w[o][a][b][c] * (input[n][i][j][group(o) + c]
 *                                                                                   - input_zero_point)
 *
 * starting from bias[o] + (skip - skip_zero_point) * skip_multiplier[o]; output = requantize(acc), saturated to
 * [low, high]. Computed output by output: tap (a, b) reaches row y where y + top - a dh is a multiple of sh inside the
 * image, and columns likewise. The zero_point stays out of the bias, as each output has taps of its own.
 *
 * input   int8[batch][input_height][input_width][input_channels]
 * skip    int8, shape of the output, or NULL
 * weights int8[output_channels][kernel_height][kernel_width][input_channels / groups]
 * bias, skip_multiplier (or NULL), multiplier, shift  int32[output_channels]
 * output  int8[batch][output_height][output_width][output_channels]; may be written over skip
 * Accumulator: int32; every partial sum fits, as proved by the compiler.
 * Reference: ConvTranspose2d.int_ref in qcc/ir/ops/conv_transpose.py, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_integer.h"
#include "qcc_requantize.h"

/* The input row (or column) that a tap at `position` reads, -1 when it reads none. */
static int32_t source(int32_t position, int32_t stride, int32_t size) {
  if (position < 0 || position % stride != 0 || position / stride >= size) {
    return -1;
  }
  return position / stride;
}

/* Sum of all taps for one output element; input is the image of the group. */
static int32_t sum_taps(const qcc_conv_transpose2d_params *p, const int8_t *QCC_RESTRICT input,
                        const int8_t *QCC_RESTRICT weights, int32_t y, int32_t x) {
  const int32_t depth = p->input_channels / p->groups;
  int32_t sum = 0;
  for (int32_t a = 0; a < p->kernel_height; ++a) {
    const int32_t i = source(y + p->pad_top - a * p->dilation_height, p->stride_height, p->input_height);
    for (int32_t b = 0; b < p->kernel_width; ++b, weights += depth) {
      const int32_t j = source(x + p->pad_left - b * p->dilation_width, p->stride_width, p->input_width);
      if (i < 0 || j < 0) {
        continue;
      }
      const int8_t *from = input + ((ptrdiff_t)i * p->input_width + j) * p->input_channels;
      for (int32_t c = 0; c < depth; ++c) {
        sum += (from[c] - p->input_zero_point) * weights[c];
      }
    }
  }
  return sum;
}

void qcc_s8_conv_transpose2d_scalar(const qcc_conv_transpose2d_params *params, const int8_t *QCC_RESTRICT input,
                                    const int8_t *skip, const int8_t *QCC_RESTRICT weights,
                                    const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                    const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                    int8_t *output) {
  const qcc_conv_transpose2d_params *p = params;
  const int32_t depth = p->input_channels / p->groups;
  const int32_t per_group = p->output_channels / p->groups;
  const ptrdiff_t filter = (ptrdiff_t)p->kernel_height * p->kernel_width * depth;
  const ptrdiff_t image = (ptrdiff_t)p->input_height * p->input_width * p->input_channels;
  ptrdiff_t at = 0;
  for (int32_t n = 0; n < p->batch; ++n, input += image) {
    for (int32_t y = 0; y < p->output_height; ++y) {
      for (int32_t x = 0; x < p->output_width; ++x) {
        for (int32_t o = 0; o < p->output_channels; ++o, ++at) {
          int32_t acc = bias[o] + sum_taps(p, input + (ptrdiff_t)(o / per_group) * depth, weights + filter * o, y, x);
          if (skip != NULL) {
            acc += (skip[at] - p->skip_zero_point) * skip_multiplier[o];
          }
          output[at] = qcc_requantize_s8(acc, multiplier[o], shift[o], p->output_zero_point, p->low, p->high);
        }
      }
    }
  }
}
