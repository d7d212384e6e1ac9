/* s16_conv2d_dsp: s8_conv2d_dsp for tensors with 8 or 16 bits.
 *
 * input    int8 or int16 [batch][input_height][input_width][input_channels]
 * skip     int8 or int16, shape of the output, or NULL
 * weights  int8[output_channels][runs][run], each run zero-padded to a multiple of 4: a run is a row of the kernel, or
 *          the channels of one tap where dilation_width is not 1. In front of int16 the second and the third of four are
 *          exchanged: sxtb16 then has neighbours in a pair, as they are in memory
 * channels int32[output_channels][4]: bias with all zero_points folded in, multiplier, shift + up - 32, up
 * skip_multiplier  int32[output_channels], or NULL
 * output   int8 or int16 [batch][output_height][output_width][output_channels]; may be written over a skip of its type
 * workspace  4 columns: int16[runs * run / 4][2][4 pixels][2]
 *
 *   acc = bias[o] + sum w[o][a][b][c] * x'[...] + skip * skip_multiplier[o]
 *   output = requantize(acc), saturated to [low, high]
 *
 * x' is the input surrounded by pad_value.
 * Accumulator: int32, wraps around; the compiler proves where it ends.
 * Reference: Conv2d.int_ref in qcc/ir/ops/conv.py, Dense.int_ref, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_arm_dsp_wide.h"

enum { PIXELS = QCC_DSP_PIXELS, QUAD = 2 * PIXELS }; /* QUAD: words of four activations of all pixels */

/* All channels of four pixels that are `step` elements apart. With a step of 0 only the first pixel counts. */
static inline __attribute__((always_inline)) void compute_tile(const qcc_dsp_wide_conv2d_params *p,
                                                               const uint32_t *columns, int32_t quads, const int8_t *w,
                                                               const int32_t *channel, const void *skip,
                                                               const int32_t *skip_multiplier, void *output,
                                                               ptrdiff_t step, int32_t bytes) {
  for (ptrdiff_t o = 0; o < p->output_channels; ++o, channel += 4) {
    int32_t s0 = channel[0], s1 = s0, s2 = s0, s3 = s0;
    w = qcc_dsp_products(w, columns, quads, &s0, &s1, &s2, &s3);
    if (skip) {
      const int32_t m = skip_multiplier[o], skip_bytes = p->skip_bytes;
      s0 = qcc_dsp_mac(s0, qcc_dsp_load(skip, o, skip_bytes), m);
      s1 = qcc_dsp_mac(s1, qcc_dsp_load(skip, o + step, skip_bytes), m);
      s2 = qcc_dsp_mac(s2, qcc_dsp_load(skip, o + 2 * step, skip_bytes), m);
      s3 = qcc_dsp_mac(s3, qcc_dsp_load(skip, o + 3 * step, skip_bytes), m);
    }
    const qcc_dsp_channel c = qcc_dsp_wide_channel(channel[1], channel[2], p->output_zero_point);
    const int32_t up = channel[3], low = p->low, high = p->high;
    qcc_dsp_store(output, o + 3 * step, bytes, s3, up, c, low, high);
    qcc_dsp_store(output, o + 2 * step, bytes, s2, up, c, low, high);
    qcc_dsp_store(output, o + step, bytes, s1, up, c, low, high);
    qcc_dsp_store(output, o, bytes, s0, up, c, low, high);
  }
}

/* A function each, so that the sums have registers enough. */
static __attribute__((noinline)) void compute_s8(const qcc_dsp_wide_conv2d_params *p, const uint32_t *columns,
                                                 int32_t quads, const int8_t *w, const int32_t *channel, void *output,
                                                 ptrdiff_t step) {
  compute_tile(p, columns, quads, w, channel, NULL, NULL, output, step, 1);
}

static __attribute__((noinline)) void compute_s16(const qcc_dsp_wide_conv2d_params *p, const uint32_t *columns,
                                                  int32_t quads, const int8_t *w, const int32_t *channel, void *output,
                                                  ptrdiff_t step) {
  compute_tile(p, columns, quads, w, channel, NULL, NULL, output, step, 2);
}

static __attribute__((noinline)) void compute_sum(const qcc_dsp_wide_conv2d_params *p, const uint32_t *columns,
                                                  int32_t quads, const int8_t *w, const int32_t *channel,
                                                  const void *skip, const int32_t *skip_multiplier, void *output,
                                                  ptrdiff_t step) {
  compute_tile(p, columns, quads, w, channel, skip, skip_multiplier, output, step, p->output_bytes);
}

/* Four activations into the column of one pixel: pairs of neighbours, or of every second one where weights are so. */
static inline void put_s16(const int16_t *from, uint32_t *column) {
  column[0] = qcc_load4((const int8_t *)from);
  column[PIXELS] = qcc_load4((const int8_t *)(from + 2));
}

static inline void put_s8(const int8_t *from, uint32_t *column) {
  const uint32_t word = qcc_load4(from);
  column[0] = qcc_even_bytes(word);
  column[PIXELS] = qcc_odd_bytes(word);
}

/* A run of `count` elements from `at` on of which those from `first` on, before `end`, are the input's; the others are
 * padding. Returns where the column goes on. */
static uint32_t *put_run(const qcc_dsp_wide_conv2d_params *p, const void *input, ptrdiff_t at, int32_t first, int32_t end,
                         int32_t count, uint32_t *column) {
  int32_t k = 0;
  if (first == 0 && end >= count) {
    if (p->input_bytes == 2) {
      const int16_t *from = (const int16_t *)input + at;
      for (; k + 4 <= count; k += 4, column += QUAD) {
        put_s16(from + k, column);
      }
    } else {
      const int8_t *from = (const int8_t *)input + at;
      for (; k + 4 <= count; k += 4, column += QUAD) {
        put_s8(from + k, column);
      }
    }
  }
  for (; k < count; k += 4, column += QUAD) {
    int16_t wide[4] = {0, 0, 0, 0};
    int8_t narrow[4] = {0, 0, 0, 0};
    for (int32_t i = k; i < k + 4 && i < count; ++i) {
      const int32_t x = i >= first && i < end ? qcc_dsp_load(input, at + i, p->input_bytes) : p->pad_value;
      wide[i - k] = (int16_t)x;
      narrow[i - k] = (int8_t)x;
    }
    if (p->input_bytes == 2) {
      put_s16(wide, column);
    } else {
      put_s8(narrow, column);
    }
  }
  return column;
}

/* The column of the output pixel whose tap (0, 0) is at (y0, x0) of the image that begins at element `image`. */
static void fill_column(const qcc_dsp_wide_conv2d_params *p, const void *input, ptrdiff_t image, int32_t y0, int32_t x0,
                        uint32_t *column) {
  const int32_t whole_rows = p->dilation_width == 1;
  const int32_t runs = whole_rows ? 1 : p->kernel_width;
  const int32_t count = (whole_rows ? p->kernel_width : 1) * p->input_channels;
  for (int32_t a = 0; a < p->kernel_height; ++a) {
    const int32_t y = y0 + a * p->dilation_height;
    const int32_t inside = y >= 0 && y < p->input_height;
    for (int32_t b = 0; b < runs; ++b) {
      const int32_t x = x0 + b * p->dilation_width;
      const int32_t first = x < 0 ? -x * p->input_channels : 0;
      const int32_t end = inside ? (p->input_width - x) * p->input_channels : 0;
      const ptrdiff_t at = image + ((ptrdiff_t)y * p->input_width + x) * p->input_channels;
      column = put_run(p, input, at, first, end, count, column);
    }
  }
}

void qcc_s16_conv2d_dsp(const qcc_dsp_wide_conv2d_params *params, const void *input, const void *skip,
                        const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                        const int32_t *QCC_RESTRICT skip_multiplier, void *output, void *workspace) {
  const qcc_dsp_wide_conv2d_params p = *params;
  const int32_t runs = p.kernel_height * (p.dilation_width == 1 ? 1 : p.kernel_width);
  const int32_t run = p.input_channels * (p.dilation_width == 1 ? p.kernel_width : 1);
  const int32_t quads = runs * ((run + 3) >> 2);
  uint32_t *const columns = (uint32_t *)workspace;
  const int8_t *residual = (const int8_t *)skip;
  int8_t *to = (int8_t *)output;
  ptrdiff_t image = 0;
  int32_t oy = 0, ox = 0;

  for (int32_t pixels = p.batch * p.output_height * p.output_width; pixels > 0;) {
    const int32_t count = pixels >= PIXELS ? PIXELS : 1; /* the last ones one by one */
    for (int32_t j = 0; j < count; ++j) {
      fill_column(&p, input, image, oy * p.stride_height - p.pad_top, ox * p.stride_width - p.pad_left, columns + j);
      if (++ox == p.output_width) {
        ox = 0;
        if (++oy == p.output_height) {
          oy = 0;
          image += (ptrdiff_t)p.input_height * p.input_width * p.input_channels;
        }
      }
    }
    const ptrdiff_t step = count == PIXELS ? p.output_channels : 0;
    if (residual) {
      compute_sum(&p, columns, quads, weights, channels, residual, skip_multiplier, to, step);
      residual += count * p.output_channels * p.skip_bytes;
    } else if (p.output_bytes == 2) {
      compute_s16(&p, columns, quads, weights, channels, to, step);
    } else {
      compute_s8(&p, columns, quads, weights, channels, to, step);
    }
    to += count * p.output_channels * p.output_bytes;
    pixels -= count;
  }
}
