/* wide_depthwise_conv2d_scalar: convolution of each channel with its own filter, with tensors of 8 or 16 bits.
 *
 * input    int8 or int16 [batch][input_height][input_width][channels]
 * skip     int8 or int16, shape of the output, or NULL
 * weights  int8[kernel_height][kernel_width][channels]
 * bias     int64[channels], the zero_point of the input folded in
 * skip_multiplier  int32[channels], or NULL
 * multiplier, shift  int32[channels]
 * output   int8 or int16 [batch][output_height][output_width][channels]; may be written over skip
 *
 *   acc = bias[c] + sum w[a][b][c] * x'[...][c] + (skip - skip_zero_point) * skip_multiplier[c]
 *   output = requantize(acc), saturated to [low, high]
 *
 * x' is the input surrounded by pad_value. Any stride, dilation and padding; input_channels = output_channels = groups.
 * Accumulator: int32 for the products, of which there are at most QCC_WIDE_RUN; int64 for acc.
 * Reference: Conv2d.int_ref in qcc/ir/ops/conv.py, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_integer_registers.h"
#include "qcc_wide.h"

enum { TILE = 64 }; /* channels whose sums are on the stack at a time */

/* sums[c] += w[c] * x[offset + c] */
static void add_tap(const void *input, ptrdiff_t offset, int32_t bytes, const int8_t *QCC_RESTRICT weights,
                    int32_t count, int32_t *QCC_RESTRICT sums) {
  if (bytes == 2) {
    const int16_t *QCC_RESTRICT x = (const int16_t *)input + offset;
    for (int32_t c = 0; c < count; ++c) {
      sums[c] += x[c] * weights[c];
    }
  } else {
    const int8_t *QCC_RESTRICT x = (const int8_t *)input + offset;
    for (int32_t c = 0; c < count; ++c) {
      sums[c] += x[c] * weights[c];
    }
  }
}

/* One output pixel, `count` channels from `first` on. (y0, x0): position of tap (0, 0) in image n. */
static void accumulate(const qcc_wide_conv2d_params *p, const void *input, int32_t n, int32_t y0, int32_t x0,
                       const int8_t *weights, int32_t first, int32_t count, int32_t *sums) {
  const ptrdiff_t channels = p->input_channels;
  weights += first;
  for (int32_t a = 0; a < p->kernel_height; ++a) {
    const int32_t y = y0 + a * p->dilation_height;
    for (int32_t b = 0; b < p->kernel_width; ++b, weights += channels) {
      const int32_t x = x0 + b * p->dilation_width;
      if (y >= 0 && y < p->input_height && x >= 0 && x < p->input_width) {
        const ptrdiff_t pixel = ((ptrdiff_t)n * p->input_height + y) * p->input_width + x;
        add_tap(input, pixel * channels + first, p->input_bytes, weights, count, sums);
      } else if (p->pad_value != 0) {
        for (int32_t c = 0; c < count; ++c) {
          sums[c] += p->pad_value * weights[c];
        }
      }
    }
  }
}

void qcc_wide_depthwise_conv2d_scalar(const qcc_wide_conv2d_params *params, const void *QCC_RESTRICT input,
                                      const void *skip, const int8_t *QCC_RESTRICT weights,
                                      const int64_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                      const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                      void *output) {
  const qcc_wide_conv2d_params p = *params;
  int32_t sums[TILE];
  ptrdiff_t at = 0;
  for (int32_t n = 0; n < p.batch; ++n) {
    for (int32_t oy = 0; oy < p.output_height; ++oy) {
      for (int32_t ox = 0; ox < p.output_width; ++ox) {
        const int32_t y0 = oy * p.stride_height - p.pad_top;
        const int32_t x0 = ox * p.stride_width - p.pad_left;
        for (int32_t first = 0; first < p.output_channels; first += TILE) {
          const int32_t remaining = p.output_channels - first;
          const int32_t count = remaining < TILE ? remaining : TILE;
          for (int32_t c = 0; c < TILE; ++c) {
            sums[c] = 0;
          }
          accumulate(&p, input, n, y0, x0, weights, first, count, sums);
          for (int32_t c = first; c < first + count; ++c, ++at) {
            int64_t acc = bias[c] + sums[c - first];
            if (skip) {
              acc += (int64_t)(qcc_wide_load(skip, at, p.skip_bytes) - p.skip_zero_point) * skip_multiplier[c];
            }
            qcc_wide_store(output, at, p.output_bytes, acc, multiplier[c], shift[c], p.output_zero_point, p.low,
                           p.high);
          }
        }
      }
    }
  }
}
