/* s8_depthwise_conv2d_mve: 3x3 convolution of each channel with its own filter, 16 channels at a time.
 *
 * input    int8[batch][input_height][input_width][channels]
 * weights  int8[channels / 16][9][16], zero-padded
 * channels int32[channels / 16][4][4][4]: the constants of qcc_arm_mve.h for channels 0 4 8 12, then 2 6 10 14,
 *          1 5 9 13 and 3 7 11 15 of sixteen; zero_points are folded in the bias
 * output   int8[batch][output_height][output_width][channels]
 * workspace  int8[channels]: padding
 *
 *   acc = bias[c] + sum w[a][b][c] * x'[...][c]
 *   output = requantize(acc), saturated to [low, high]
 *
 * x' is the input surrounded by pad_value. Products of two taps fit an int16 together, as no weight is -128; they are
 * widened in turns of even and odd lanes, and narrowed in the same order.
 * Accumulator: int32; every partial sum fits, as proved by the compiler.
 * Reference: Conv2d.int_ref in qcc/ir/ops/conv.py, Requantize.int_ref.
 */
#include "qcc_arm_mve.h"

enum { VECTOR = 16, TAPS = 9, CONSTANTS = 16 };

static inline int8x16_t load(const int8_t *from, int32_t whole, mve_pred16_t some) {
  return whole ? vldrbq_s8(from) : vldrbq_z_s8(from, some);
}

/* 16 channels of an output pixel, or, where not `whole`, those of the predicate. */
static inline __attribute__((always_inline)) void compute_pixel(const qcc_dsp_conv2d_params *p, const int8_t *const *taps,
                                                                ptrdiff_t offset, const int8_t *w, const int32_t *channels,
                                                                int32_t whole, mve_pred16_t some, int8_t *output) {
  int32x4_t acc0 = vldrwq_s32(channels), acc1 = vldrwq_s32(channels + CONSTANTS);
  int32x4_t acc2 = vldrwq_s32(channels + 2 * CONSTANTS), acc3 = vldrwq_s32(channels + 3 * CONSTANTS);
#pragma GCC unroll 9
  for (int t = 0; t < TAPS; t += 2) {
    int8x16_t x = load(taps[t] + offset, whole, some), v = vldrbq_s8(w + t * VECTOR);
    int16x8_t even = vmullbq_int_s8(x, v), odd = vmulltq_int_s8(x, v);
    if (t + 1 < TAPS) {
      x = load(taps[t + 1] + offset, whole, some);
      v = vldrbq_s8(w + (t + 1) * VECTOR);
      even = vaddq_s16(even, vmullbq_int_s8(x, v));
      odd = vaddq_s16(odd, vmulltq_int_s8(x, v));
    }
    acc0 = vaddq_s32(acc0, vmovlbq_s16(even));
    acc1 = vaddq_s32(acc1, vmovltq_s16(even));
    acc2 = vaddq_s32(acc2, vmovlbq_s16(odd));
    acc3 = vaddq_s32(acc3, vmovltq_s16(odd));
  }
  acc0 = qcc_mve_requantize(acc0, channels);
  acc1 = qcc_mve_requantize(acc1, channels + CONSTANTS);
  acc2 = qcc_mve_requantize(acc2, channels + 2 * CONSTANTS);
  acc3 = qcc_mve_requantize(acc3, channels + 3 * CONSTANTS);
  int16x8_t even = vdupq_n_s16(0), odd = even;
  even = vqmovntq_s32(vqmovnbq_s32(even, acc0), acc1);
  odd = vqmovntq_s32(vqmovnbq_s32(odd, acc2), acc3);
  int8x16_t y = vqmovntq_s16(vqmovnbq_s16(vdupq_n_s8(0), even), odd);
  y = vminq_s8(vmaxq_s8(y, vdupq_n_s8((int8_t)p->low)), vdupq_n_s8((int8_t)p->high));
  if (whole) {
    vstrbq_s8(output, y);
  } else {
    vstrbq_p_s8(output, y, some);
  }
}

void qcc_s8_depthwise_conv2d_mve(const qcc_dsp_conv2d_params *params, const int8_t *QCC_RESTRICT input,
                                 const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                                 int8_t *output, void *workspace) {
  const qcc_dsp_conv2d_params p = *params;
  int8_t *padding = (int8_t *)workspace;
  for (int32_t c = 0; c < p.input_channels; ++c) {
    padding[c] = (int8_t)p.pad_value;
  }
  for (int32_t n = 0; n < p.batch; ++n, input += (ptrdiff_t)p.input_height * p.input_width * p.input_channels) {
    for (int32_t oy = 0; oy < p.output_height; ++oy) {
      for (int32_t ox = 0; ox < p.output_width; ++ox, output += p.output_channels) {
        const int8_t *taps[TAPS];
        const int8_t **tap = taps;
        for (int32_t a = 0; a < 3; ++a) {
          const int32_t y = oy * p.stride_height - p.pad_top + a * p.dilation_height;
          const int32_t x = ox * p.stride_width - p.pad_left;
          const int8_t *line = input + ((ptrdiff_t)y * p.input_width + x) * p.input_channels;
          const int32_t inside = y >= 0 && y < p.input_height;
          for (int32_t b = 0, at = x; b < 3; ++b, at += p.dilation_width) {
            *tap++ = inside && at >= 0 && at < p.input_width ? line : padding;
            line += p.dilation_width * p.input_channels;
          }
        }
        const int8_t *w = weights;
        const int32_t *constants = channels;
        ptrdiff_t c = 0;
        for (; c + VECTOR <= p.output_channels; c += VECTOR) {
          compute_pixel(&p, taps, c, w, constants, 1, 0, output + c);
          w += TAPS * VECTOR;
          constants += 4 * CONSTANTS;
        }
        if (c < p.output_channels) {
          compute_pixel(&p, taps, c, w, constants, 0, vctp8q((uint32_t)(p.output_channels - c)), output + c);
        }
      }
    }
  }
}
