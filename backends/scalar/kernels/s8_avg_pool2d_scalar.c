/* Int8 average pooling with requantization.
 *
 *   acc = factor * sum over the window on the image of (x - input_zero_point)
 *   output[n][i][j][c] = requantize(acc), saturated to [low, high]
 *
 * input int8[batch][input_height][input_width][channels]; output int8[batch][output_height][output_width][channels];
 * they do not overlap. factors int32[output_height][output_width] (divisor / count of each window), or NULL for 1.
 * multiplier, shift int32[requantize_channels]. Accumulator: int32, bounded by the compiler.
 * Reference: AvgPool2d.int_ref in qcc/ir/ops/pool.py, Requantize.int_ref.
 */
#include "qcc_integer.h"
#include "qcc_requantize.h"

#define BLOCK 32

/* Sums of up to BLOCK channels over the window at (top, left). */
static void add_window(const qcc_avg_pool2d_params *p, int32_t *sums, const int8_t *input, int32_t top, int32_t left,
                       int32_t width) {
  for (int32_t a = 0; a < p->kernel_height; ++a) {
    const int32_t row = top + a * p->dilation_height;
    for (int32_t b = 0; b < p->kernel_width; ++b) {
      const int32_t column = left + b * p->dilation_width;
      if (row < 0 || row >= p->input_height || column < 0 || column >= p->input_width) {
        continue;
      }
      const int8_t *x = input + ((ptrdiff_t)row * p->input_width + column) * p->channels;
      for (int32_t c = 0; c < width; ++c) {
        sums[c] += x[c] - p->input_zero_point;
      }
    }
  }
}

void qcc_s8_avg_pool2d_scalar(const qcc_avg_pool2d_params *params, const int8_t *QCC_RESTRICT input,
                              const int32_t *QCC_RESTRICT factors, const int32_t *QCC_RESTRICT multiplier,
                              const int32_t *QCC_RESTRICT shift, int8_t *QCC_RESTRICT output) {
  const qcc_avg_pool2d_params *p = params;
  const ptrdiff_t image = (ptrdiff_t)p->input_height * p->input_width * p->channels;
  const int32_t per_channel = p->requantize_channels != 1;
  int32_t sums[BLOCK];
  for (int32_t n = 0; n < p->batch; ++n, input += image) {
    for (int32_t i = 0; i < p->output_height; ++i) {
      for (int32_t j = 0; j < p->output_width; ++j) {
        const int32_t factor = factors != NULL ? factors[(ptrdiff_t)i * p->output_width + j] : 1;
        const int32_t top = i * p->stride_height - p->pad_top;
        const int32_t left = j * p->stride_width - p->pad_left;
        for (int32_t first = 0; first < p->channels; first += BLOCK) {
          const int32_t rest = p->channels - first;
          const int32_t width = rest < BLOCK ? rest : BLOCK;
          for (int32_t c = 0; c < BLOCK; ++c) {
            sums[c] = 0;
          }
          add_window(p, sums, input + first, top, left, width);
          for (int32_t c = 0; c < width; ++c) {
            const int32_t m = per_channel ? first + c : 0;
            *output++ = qcc_requantize_s8(sums[c] * factor, multiplier[m], shift[m], p->output_zero_point, p->low,
                                          p->high);
          }
        }
      }
    }
  }
}
