/* s8_depthwise_conv2d_scalar: convolution of each channel with its own filter, requantization, optional residual.
 *
 * input    int8[batch][input_height][input_width][channels]
 * skip     int8, shape of the output, or NULL
 * weights  int8[kernel_height][kernel_width][channels]: channels last, so that they are the vector
 * bias     int32[channels], the zero_point of the input folded in
 * skip_multiplier  int32[channels], or NULL
 * multiplier, shift  int32[channels]
 * output   int8[batch][output_height][output_width][channels]; may be written over skip
 *
 *   acc = bias[c] + sum w[a][b][c] * x'[...][c] + (skip - skip_zero_point) * skip_multiplier[c]
 *   output = requantize(acc), saturated to [low, high]
 *
 * x' is the input surrounded by pad_value. Any stride, dilation and padding; input_channels = output_channels = groups.
 * Accumulator: int32; every partial sum fits, as proved by the compiler.
 * Reference: Conv2d.int_ref in qcc/ir/ops/conv.py, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_kernels.h"
#include "qcc_requantize.h"

enum { TILE = 64 }; /* channels whose accumulators are on the stack at a time */

/* One output pixel, `count` channels from weights, bias ... on. (y0, x0): position of tap (0, 0) in input. */
static void accumulate(const qcc_conv2d_params *p, const int8_t *QCC_RESTRICT input, int32_t y0, int32_t x0,
                       const int8_t *QCC_RESTRICT weights, int32_t count, int32_t *QCC_RESTRICT sums) {
  const ptrdiff_t channels = p->input_channels;
  for (int32_t a = 0; a < p->kernel_height; ++a) {
    const int32_t y = y0 + a * p->dilation_height;
    for (int32_t b = 0; b < p->kernel_width; ++b, weights += channels) {
      const int32_t x = x0 + b * p->dilation_width;
      if (y >= 0 && y < p->input_height && x >= 0 && x < p->input_width) {
        const int8_t *QCC_RESTRICT pixel = input + ((ptrdiff_t)y * p->input_width + x) * channels;
        for (int32_t c = 0; c < count; ++c) {
          sums[c] += pixel[c] * weights[c];
        }
      } else {
        for (int32_t c = 0; c < count; ++c) {
          sums[c] += p->pad_value * weights[c];
        }
      }
    }
  }
}

void qcc_s8_depthwise_conv2d_scalar(const qcc_conv2d_params *params, const int8_t *QCC_RESTRICT input,
                                    const int8_t *skip, const int8_t *QCC_RESTRICT weights,
                                    const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                    const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                    int8_t *output) {
  const qcc_conv2d_params p = *params;
  const ptrdiff_t image = (ptrdiff_t)p.input_height * p.input_width * p.input_channels;
  int32_t sums[TILE];
  for (int32_t n = 0; n < p.batch; ++n, input += image) {
    for (int32_t oy = 0; oy < p.output_height; ++oy) {
      for (int32_t ox = 0; ox < p.output_width; ++ox) {
        const int32_t y0 = oy * p.stride_height - p.pad_top;
        const int32_t x0 = ox * p.stride_width - p.pad_left;
        for (int32_t first = 0; first < p.output_channels; first += TILE) {
          const int32_t remaining = p.output_channels - first;
          const int32_t count = remaining < TILE ? remaining : TILE;
          for (int32_t c = 0; c < count; ++c) {
            sums[c] = bias[first + c];
          }
          accumulate(&p, input + first, y0, x0, weights + first, count, sums);
          for (int32_t c = 0; c < count; ++c) {
            const int32_t channel = first + c;
            int32_t acc = sums[c];
            if (skip) {
              acc += (*skip++ - p.skip_zero_point) * skip_multiplier[channel];
            }
            *output++ = qcc_requantize_s8(acc, multiplier[channel], shift[channel], p.output_zero_point, p.low,
                                          p.high);
          }
        }
      }
    }
  }
}
