/* s8_avg_pool2d_mve: average pooling, and means over neighbouring axes, with requantization, four channels at a time.
 *
 *   acc = factor * sum over the window on the image of (x - input_zero_point)
 *   output[n][i][j][c] = requantize(acc), saturated to [low, high]
 *
 * input    int8[batch][input_height][input_width][channels]
 * factors  int32[output_height][output_width] (divisor / count of each window), or NULL for 1
 * constants  int32[channels / 4][4][4]: up, multiplier, rounding with zero_point, 32 - up - shift, as in qcc_arm_mve.h,
 *          zero-padded; requantize_channels is not used
 * output   int8[batch][output_height][output_width][channels]; does not overlap input
 *
 * A mean over all pixels is a window of one row. Accumulator: int32, bounded by the compiler.
 * Reference: AvgPool2d.int_ref in qcc/ir/ops/pool.py, ReduceMean.int_ref, ReduceSum.int_ref, Requantize.int_ref.
 */
#include "qcc_arm_mve.h"

enum { FOUR = 4 };

/* acc + the sum of `count` pixels, `step` bytes apart, of the channels in `some`. */
static inline int32x4_t add_pixels(int32x4_t acc, const int8_t *x, ptrdiff_t step, int32_t count, mve_pred16_t some) {
  for (; count > 0; --count, x += step) {
    acc = vaddq_s32(acc, vldrbq_z_s32(x, some));
  }
  return acc;
}

void qcc_s8_avg_pool2d_mve(const qcc_avg_pool2d_params *params, const int8_t *QCC_RESTRICT input,
                           const int32_t *QCC_RESTRICT factors, const int32_t *QCC_RESTRICT constants,
                           int8_t *QCC_RESTRICT output) {
  const qcc_avg_pool2d_params *p = params;
  const ptrdiff_t line = (ptrdiff_t)p->input_width * p->channels;
  const ptrdiff_t step = (ptrdiff_t)p->dilation_width * p->channels;
  const int32x4_t low = vdupq_n_s32(p->low), high = vdupq_n_s32(p->high);
  for (int32_t n = 0; n < p->batch; ++n, input += line * p->input_height) {
    for (int32_t i = 0; i < p->output_height; ++i) {
      const int32_t top = i * p->stride_height - p->pad_top;
      const qcc_mve_range rows = qcc_mve_taps_inside(top, p->kernel_height, p->dilation_height, p->input_height);
      for (int32_t j = 0; j < p->output_width; ++j, output += p->channels) {
        const int32_t left = j * p->stride_width - p->pad_left;
        const qcc_mve_range columns = qcc_mve_taps_inside(left, p->kernel_width, p->dilation_width, p->input_width);
        const int32_t width = columns.end - columns.first, taps = (rows.end - rows.first) * width;
        const int32_t factor = factors ? factors[i * p->output_width + j] : 1;
        const int32_t whole = width == p->input_width && p->dilation_height * p->dilation_width == 1; /* rows are one run */
        const int8_t *x = input + (left + columns.first * p->dilation_width) * p->channels;
        for (int32_t c = 0; c < p->channels; c += FOUR, x += FOUR) {
          const mve_pred16_t some = vctp32q((uint32_t)(p->channels - c));
          const int32_t *k = constants + FOUR * c;
          int32x4_t acc = vdupq_n_s32(-taps * p->input_zero_point);
          if (whole) {
            acc = add_pixels(acc, x + (top + rows.first) * line, step, taps, some);
          } else {
            for (int32_t a = rows.first; a < rows.end; ++a) {
              acc = add_pixels(acc, x + (top + a * p->dilation_height) * line, step, width, some);
            }
          }
          acc = vmulhq_s32(vshlq_s32(vmulq_n_s32(acc, factor), vldrwq_s32(k)), vldrwq_s32(k + FOUR));
          acc = vshlq_s32(vaddq_s32(acc, vldrwq_s32(k + 2 * FOUR)), vldrwq_s32(k + 3 * FOUR));
          vstrbq_p_s32(output + c, vmaxq_s32(vminq_s32(acc, high), low), some);
        }
      }
    }
  }
}
