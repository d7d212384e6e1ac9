/* s8_depthwise_conv2d_neon: depthwise convolution with requantization and a residual operand.
 *
 * input    int8[batch][input_height][input_width][channels]
 * skip     int8, as the output, or NULL
 * weights  int8[blocks][kernel_height * kernel_width rounded up to 2][16]: blocks of 16 channels, the last one ends with the
 *          last channel and overlaps the one before; of fewer than 16 channels there is one, and zeros behind
 * bias     int32[blocks][16], the zero_points of the input and of skip folded in
 * skip_multiplier  int32[blocks][16], or NULL
 * scale    int32[blocks][4][2][4], see qcc_neon.h
 * output   int8[batch][output_height][output_width][channels]; does not overlap skip
 * workspace  the image as the taps reach it, padded, and 16 bytes
 *
 * Any stride, dilation and padding; up to 128 taps. Products of two taps are added in 16 bits, where they fit: weights lie in
 * [-127, 127], and 2 * 127 * 128 < 2^15. On 64-bit Arm a filter of 3 x 3 stays in registers.
 * Reference: Conv2d.int_ref, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_neon_image.h"

enum { MOST_TAPS = 128 };

typedef struct {
  const int8_t *weights;
  const int32_t *bias, *skip_multiplier, *scale;
  int32_t channels, pairs;
  ptrdiff_t step, output_step;
  int32_t clamps;
  qcc_neon_output saturation;
} depthwise_block;

/* acc += x * w + x1 * w1 */
QCC_INLINE void add_pair(int32x4_t *acc, int8x16_t x, int8x16_t w, int8x16_t x1, int8x16_t w1) {
  int16x8_t low = vmull_s8(vget_low_s8(x), vget_low_s8(w)), high = vmull_high_s8(x, w);
  low = vmlal_s8(low, vget_low_s8(x1), vget_low_s8(w1));
  high = vmlal_high_s8(high, x1, w1);
  acc[0] = vaddw_s16(acc[0], vget_low_s16(low));
  acc[1] = vaddw_high_s16(acc[1], low);
  acc[2] = vaddw_s16(acc[2], vget_low_s16(high));
  acc[3] = vaddw_high_s16(acc[3], high);
}

/* acc += x * w */
QCC_INLINE void add_tap(int32x4_t *acc, int8x16_t x, int8x16_t w) {
  const int16x8_t low = vmull_s8(vget_low_s8(x), vget_low_s8(w)), high = vmull_high_s8(x, w);
  acc[0] = vaddw_s16(acc[0], vget_low_s16(low));
  acc[1] = vaddw_high_s16(acc[1], low);
  acc[2] = vaddw_s16(acc[2], vget_low_s16(high));
  acc[3] = vaddw_high_s16(acc[3], high);
}

#if !defined(__aarch64__)
/* The next of 3 x 3 taps: rows lie offset[3] apart, columns offset[1]. */
QCC_INLINE int8x16_t next_tap(const int tap, const int8_t **x, const ptrdiff_t *offset) {
  const int8x16_t taken = vld1q_s8(*x);
  *x += tap % 3 < 2 ? offset[1] : offset[3] - 2 * offset[1];
  __asm__("" : "+r"(*x)); /* the load itself moves it on */
  return taken;
}

QCC_INLINE int8x16_t next_weights(const int8_t **w) {
  __asm__ volatile("" : "+r"(*w)); /* no register for each address */
  const int8x16_t taken = vld1q_s8(*w);
  *w += 16;
  return taken;
}
#endif

/* A line of output. nine: filters of 3 x 3. offset: of each tap. */
QCC_INLINE void line_of(const int nine, const depthwise_block *b, const ptrdiff_t *offset, const int8_t *x,
                        const int8_t *skip, int8_t *output, int32_t count) {
#if defined(__aarch64__)
  int8x16_t w[9];
  if (nine) {
    QCC_UNROLL
    for (int t = 0; t < 9; ++t) {
      w[t] = vld1q_s8(b->weights + 16 * t);
    }
  }
#endif
  const int32_t *bias = b->bias;
  const ptrdiff_t step = b->step, output_step = b->output_step;
  const int32_t clamps = b->clamps, channels = b->channels, pairs = b->pairs;
  const qcc_neon_output saturation = b->saturation;
  for (; count > 0; --count, x += step, output += output_step) {
    __asm__ volatile("" : "+r"(bias)); /* two vectors in one load take the place of two moves */
    int32x4_t acc[4] = {vld1q_s32(bias), vld1q_s32(bias + 4), vld1q_s32(bias + 8), vld1q_s32(bias + 12)};
    if (nine) {
#if defined(__aarch64__)
      QCC_UNROLL
      for (int t = 0; t < 8; t += 2) {
        add_pair(acc, vld1q_s8(x + offset[t]), w[t], vld1q_s8(x + offset[t + 1]), w[t + 1]);
      }
      add_tap(acc, vld1q_s8(x + offset[8]), w[8]);
#else /* too few registers for the filter */
      const int8_t *from = x, *w = b->weights;
      QCC_UNROLL
      for (int t = 0; t < 8; t += 2) {
        const int8x16_t w0 = next_weights(&w), x0 = next_tap(t, &from, offset);
        const int8x16_t w1 = next_weights(&w), x1 = next_tap(t + 1, &from, offset);
        add_pair(acc, x0, w0, x1, w1);
      }
      add_tap(acc, vld1q_s8(from), vld1q_s8(w));
#endif
    } else {
      for (int32_t t = 0; t < pairs; ++t) {
        const int8_t *from = b->weights + 32 * t;
        add_pair(acc, vld1q_s8(x + offset[2 * t]), vld1q_s8(from), vld1q_s8(x + offset[2 * t + 1]), vld1q_s8(from + 16));
      }
    }
    if (skip) {
      qcc_add_skip(4, acc, qcc_load_bytes(skip, channels), b->skip_multiplier);
      skip += output_step;
    }
    const int32_t *scale = b->scale;
    QCC_UNROLL
    for (int v = 0; v < 4; ++v) {
      acc[v] = qcc_scaled_by(acc[v], &scale);
    }
    int8x16_t y = qcc_narrowed(acc[0], acc[1], acc[2], acc[3], 0, saturation);
    if (clamps) {
      y = vminq_s8(vmaxq_s8(y, saturation.low), saturation.high);
    }
    qcc_store_bytes(output, y, channels);
  }
}

static void line_of_nine(const depthwise_block *b, const ptrdiff_t *offset, const int8_t *x, const int8_t *skip,
                         int8_t *output, int32_t count) {
  const ptrdiff_t offsets[9] = {offset[0], offset[1], offset[2], offset[3], offset[4],
                                offset[5], offset[6], offset[7], offset[8]};
  line_of(1, b, offsets, x, skip, output, count);
}

static void line_of_any(const depthwise_block *b, const ptrdiff_t *offset, const int8_t *x, const int8_t *skip,
                        int8_t *output, int32_t count) {
  line_of(0, b, offset, x, skip, output, count);
}

void qcc_s8_depthwise_conv2d_neon(const qcc_neon_conv2d_params *params, const int8_t *QCC_RESTRICT input,
                                  const int8_t *skip, const int8_t *QCC_RESTRICT weights,
                                  const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                  const int32_t *QCC_RESTRICT scale, int8_t *output, void *workspace) {
  const qcc_neon_conv2d_params *p = params;
  const int32_t channels = p->input_channels, taps = p->kernel_height * p->kernel_width;
  const int32_t height = (p->output_height - 1) * p->stride_height + (p->kernel_height - 1) * p->dilation_height + 1;
  const int32_t width = (p->output_width - 1) * p->stride_width + (p->kernel_width - 1) * p->dilation_width + 1;
  const ptrdiff_t line = (ptrdiff_t)width * channels;
  int8_t *image = (int8_t *)workspace;
  ptrdiff_t offset[MOST_TAPS];
  for (int32_t t = 0; t < taps; ++t) {
    offset[t] = t / p->kernel_width * p->dilation_height * line + (ptrdiff_t)(t % p->kernel_width) * p->dilation_width * channels;
  }
  if (taps % 2) {
    offset[taps] = 0; /* meets zeros */
  }
  depthwise_block b;
  b.channels = channels < 16 ? channels : 16;
  b.pairs = (taps + 1) / 2;
  b.step = (ptrdiff_t)p->stride_width * channels;
  b.output_step = p->output_step;
  b.clamps = p->low > -128 || p->high < 127;
  b.saturation = qcc_saturation(p->output_zero_point, p->low, p->high);
  for (int32_t n = 0; n < p->batch; ++n, input += (ptrdiff_t)p->input_height * p->input_width * channels) {
    qcc_pad(p, input, image, height, width);
    for (int32_t c = 0, i = 0; c < channels; c += 16, ++i) {
      const int32_t first = c + 16 > channels && channels > 16 ? channels - 16 : c;
      b.weights = weights + (ptrdiff_t)32 * b.pairs * i;
      b.bias = bias + 16 * i;
      b.skip_multiplier = skip_multiplier ? skip_multiplier + 16 * i : NULL;
      b.scale = scale + 32 * i;
      for (int32_t y = 0; y < p->output_height; ++y) {
        const int8_t *x = image + y * p->stride_height * line + first;
        const ptrdiff_t at = ((ptrdiff_t)n * p->output_height + y) * p->output_width * p->output_step + first;
        if (p->kernel_height == 3 && p->kernel_width == 3) {
          line_of_nine(&b, offset, x, skip ? skip + at : NULL, output + at, p->output_width);
        } else {
          line_of_any(&b, offset, x, skip ? skip + at : NULL, output + at, p->output_width);
        }
      }
    }
  }
}
