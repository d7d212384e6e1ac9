/* Average pooling of 8 or 16 bits with requantization.
 *
 *   acc = factor * sum over the window on the image of (x - input_zero_point)
 *   output[n][i][j][c] = requantize(acc), saturated to [low, high]
 *
 * input, output: int8 or int16 [batch][height][width][channels]; they do not overlap. factors
 * int32[output_height][output_width] (divisor / count of each window), or NULL for 1. multiplier, shift
 * int32[requantize_channels]. Accumulator: int64.
 * Reference: AvgPool2d.int_ref in qcc/ir/ops/pool.py, Requantize.int_ref.
 */
#include "qcc_integer_registers.h"
#include "qcc_wide.h"

enum { BLOCK = 32 };

/* Sums of `count` channels from `first` on over the window at (top, left) of image n. */
static void add_window(const qcc_wide_avg_pool2d_params *p, int64_t *sums, const void *input, int32_t n, int32_t top,
                       int32_t left, int32_t first, int32_t count) {
  for (int32_t a = 0; a < p->kernel_height; ++a) {
    const int32_t row = top + a * p->dilation_height;
    for (int32_t b = 0; b < p->kernel_width; ++b) {
      const int32_t column = left + b * p->dilation_width;
      const ptrdiff_t pixel = ((ptrdiff_t)n * p->input_height + row) * p->input_width + column;
      if (row < 0 || row >= p->input_height || column < 0 || column >= p->input_width) {
        continue;
      }
      for (int32_t c = 0; c < count; ++c) {
        sums[c] += qcc_wide_load(input, pixel * p->channels + first + c, p->input_bytes) - p->input_zero_point;
      }
    }
  }
}

void qcc_wide_avg_pool2d_scalar(const qcc_wide_avg_pool2d_params *params, const void *QCC_RESTRICT input,
                                const int32_t *QCC_RESTRICT factors, const int32_t *QCC_RESTRICT multiplier,
                                const int32_t *QCC_RESTRICT shift, void *QCC_RESTRICT output) {
  const qcc_wide_avg_pool2d_params *p = params;
  const int32_t per_channel = p->requantize_channels != 1;
  int64_t sums[BLOCK];
  ptrdiff_t at = 0;
  for (int32_t n = 0; n < p->batch; ++n) {
    for (int32_t i = 0; i < p->output_height; ++i) {
      for (int32_t j = 0; j < p->output_width; ++j) {
        const int32_t factor = factors != NULL ? factors[(ptrdiff_t)i * p->output_width + j] : 1;
        const int32_t top = i * p->stride_height - p->pad_top;
        const int32_t left = j * p->stride_width - p->pad_left;
        for (int32_t first = 0; first < p->channels; first += BLOCK) {
          const int32_t rest = p->channels - first;
          const int32_t count = rest < BLOCK ? rest : BLOCK;
          for (int32_t c = 0; c < BLOCK; ++c) {
            sums[c] = 0;
          }
          add_window(p, sums, input, n, top, left, first, count);
          for (int32_t c = 0; c < count; ++c, ++at) {
            const int32_t m = per_channel ? first + c : 0;
            qcc_wide_store(output, at, p->output_bytes, sums[c] * factor, multiplier[m], shift[m],
                           p->output_zero_point, p->low, p->high);
          }
        }
      }
    }
  }
}
