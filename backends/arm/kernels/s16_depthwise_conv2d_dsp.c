/* s16_depthwise_conv2d_dsp: convolution of each channel with its own filter, for tensors with 8 or 16 bits.
 *
 * input    int8 or int16 [batch][input_height][input_width][channels], channels a multiple of 4
 * skip     int8 or int16, shape of the output, or NULL
 * weights  int16[channels / 4][taps][4]: channels 0 1 2 3 in front of int16, 0 2 1 3 in front of int8, as sxtb16 has them
 * channels int32[channels][4]: bias with all zero_points folded in, multiplier, shift + up - 32, up
 * skip_multiplier  int32[channels], or NULL
 * output   int8 or int16 [batch][output_height][output_width][channels]; may be written over a skip of its type
 * workspace  where each tap of a pixel is, const void *[taps], then a pixel of pad_value
 *
 *   acc = bias[c] + sum w[c][a][b] * x'[...][c] + skip * skip_multiplier[c]
 *   output = requantize(acc), saturated to [low, high]
 *
 * x' is the input surrounded by pad_value: taps outside read the pixel that has it.
 * Accumulator: int32, wraps around; the compiler proves where it ends.
 * Reference: Conv2d.int_ref in qcc/ir/ops/conv.py, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_arm_dsp_wide.h"

/* acc plus the product of the lower halves. */
static inline int32_t mac_lower(int32_t acc, uint32_t a, uint32_t b) {
  __asm__("smlabb %0, %1, %2, %0" : "+r"(acc) : "r"(a), "r"(b));
  return acc;
}

/* acc plus the product of the upper halves. */
static inline int32_t mac_upper(int32_t acc, uint32_t a, uint32_t b) {
  __asm__("smlatt %0, %1, %2, %0" : "+r"(acc) : "r"(a), "r"(b));
  return acc;
}

/* Adds the residual operand, requantizes and stores channel c. */
static inline __attribute__((always_inline)) void finish(const qcc_dsp_wide_conv2d_params *p, int32_t sum,
                                                         const int32_t *channel, ptrdiff_t c, const void *skip,
                                                         const int32_t *skip_multiplier, void *output,
                                                         int32_t output_bytes) {
  if (skip) {
    sum = qcc_dsp_mac(sum, qcc_dsp_load(skip, c, p->skip_bytes), skip_multiplier[c]);
  }
  const qcc_dsp_channel n = qcc_dsp_wide_channel(channel[1], channel[2], p->output_zero_point);
  qcc_dsp_store(output, c, output_bytes, sum, channel[3], n, p->low, p->high);
}

/* All channels of a pixel whose taps are at `at`. */
static inline __attribute__((always_inline)) void compute_pixel(const qcc_dsp_wide_conv2d_params *p,
                                                                const int8_t *const *at, const int16_t *weights,
                                                                const int32_t *channel, const void *skip,
                                                                const int32_t *skip_multiplier, void *output,
                                                                int32_t input_bytes, int32_t output_bytes) {
  const int8_t *const *const end = at + p->kernel_height * p->kernel_width;
  for (ptrdiff_t c = 0; c < p->output_channels; c += 4, channel += 16) {
    int32_t s0 = channel[0], s1 = channel[4], s2 = channel[8], s3 = channel[12];
    const ptrdiff_t offset = c * input_bytes;
    for (const int8_t *const *tap = at; tap != end; ++tap, weights += 4) {
      const uint32_t v = qcc_load4((const int8_t *)weights), w = qcc_load4((const int8_t *)(weights + 2));
      if (input_bytes == 2) {
        const uint32_t x = qcc_load4(*tap + offset), y = qcc_load4(*tap + offset + 4);
        s0 = mac_lower(s0, x, v);
        s1 = mac_upper(s1, x, v);
        s2 = mac_lower(s2, y, w);
        s3 = mac_upper(s3, y, w);
      } else {
        const uint32_t word = qcc_load4(*tap + offset);
        const uint32_t x = qcc_even_bytes(word), y = qcc_odd_bytes(word);
        s0 = mac_lower(s0, x, v);
        s2 = mac_upper(s2, x, v);
        s1 = mac_lower(s1, y, w);
        s3 = mac_upper(s3, y, w);
      }
    }
    finish(p, s0, channel, c, skip, skip_multiplier, output, output_bytes);
    finish(p, s1, channel + 4, c + 1, skip, skip_multiplier, output, output_bytes);
    finish(p, s2, channel + 8, c + 2, skip, skip_multiplier, output, output_bytes);
    finish(p, s3, channel + 12, c + 3, skip, skip_multiplier, output, output_bytes);
  }
}

/* A function each, so that the sums have registers enough. */
static __attribute__((noinline)) void compute_s16(const qcc_dsp_wide_conv2d_params *p, const int8_t *const *at,
                                                  const int16_t *weights, const int32_t *channel, void *output) {
  compute_pixel(p, at, weights, channel, NULL, NULL, output, 2, 2);
}

static __attribute__((noinline)) void compute_any(const qcc_dsp_wide_conv2d_params *p, const int8_t *const *at,
                                                  const int16_t *weights, const int32_t *channel, const void *skip,
                                                  const int32_t *skip_multiplier, void *output) {
  if (p->input_bytes == 2) {
    compute_pixel(p, at, weights, channel, skip, skip_multiplier, output, 2, p->output_bytes);
  } else {
    compute_pixel(p, at, weights, channel, skip, skip_multiplier, output, 1, p->output_bytes);
  }
}

/* The addresses of the taps of the pixel whose tap (0, 0) is at (y0, x0). */
static void find_taps(const qcc_dsp_wide_conv2d_params *p, const int8_t *input, int32_t y0, int32_t x0,
                      const int8_t *padding, const int8_t **at) {
  const ptrdiff_t pixel = (ptrdiff_t)p->output_channels * p->input_bytes;
  for (int32_t a = 0; a < p->kernel_height; ++a) {
    const int32_t y = y0 + a * p->dilation_height;
    for (int32_t b = 0; b < p->kernel_width; ++b) {
      const int32_t x = x0 + b * p->dilation_width;
      const int32_t inside = y >= 0 && y < p->input_height && x >= 0 && x < p->input_width;
      *at++ = inside ? input + ((ptrdiff_t)y * p->input_width + x) * pixel : padding;
    }
  }
}

void qcc_s16_depthwise_conv2d_dsp(const qcc_dsp_wide_conv2d_params *params, const void *QCC_RESTRICT input,
                                  const void *skip, const int16_t *QCC_RESTRICT weights,
                                  const int32_t *QCC_RESTRICT channels, const int32_t *QCC_RESTRICT skip_multiplier,
                                  void *output, void *workspace) {
  const qcc_dsp_wide_conv2d_params p = *params;
  const ptrdiff_t image = (ptrdiff_t)p.input_height * p.input_width * p.output_channels * p.input_bytes;
  const int8_t **const at = (const int8_t **)workspace;
  void *const padding = at + p.kernel_height * p.kernel_width;
  const int8_t *from = (const int8_t *)input, *residual = (const int8_t *)skip;
  int8_t *to = (int8_t *)output;
  for (int32_t c = 0; c < p.output_channels; ++c) {
    if (p.input_bytes == 2) {
      ((int16_t *)padding)[c] = (int16_t)p.pad_value;
    } else {
      ((int8_t *)padding)[c] = (int8_t)p.pad_value;
    }
  }
  for (int32_t n = 0; n < p.batch; ++n, from += image) {
    for (int32_t oy = 0; oy < p.output_height; ++oy) {
      for (int32_t ox = 0; ox < p.output_width; ++ox, to += p.output_channels * p.output_bytes) {
        find_taps(&p, from, oy * p.stride_height - p.pad_top, ox * p.stride_width - p.pad_left, (const int8_t *)padding,
                  at);
        if (!residual && p.input_bytes == 2 && p.output_bytes == 2) {
          compute_s16(&p, at, weights, channels, to);
        } else {
          compute_any(&p, at, weights, channels, residual, skip_multiplier, to);
        }
        if (residual) {
          residual += p.output_channels * p.skip_bytes;
        }
      }
    }
  }
}
