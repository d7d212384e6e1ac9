/* 2-D convolution with requantization and an optional residual operand, on pairs of int16.
 *
 * input    int8[batch][input_height][input_width][input_channels]
 * skip     int8, shape of the output, or NULL
 * weights  int8[output_channels][runs][run], each run zero-padded to a multiple of 4: a run is a row of the kernel, or
 *          the channels of one tap where dilation_width is not 1
 * channels int32[output_channels][QCC_DSP_CHANNEL], see qcc_arm_dsp.h; all zero_points are folded in the bias
 * skip_multiplier  int32[output_channels], or NULL
 * output   int8[batch][output_height][output_width][output_channels]; may be written over skip, and over the input where
 *          the kernel is 1x1 with strides of 1 and there are no more output channels than input channels
 * workspace  4 columns: int16[runs * run / 4][2][4 pixels][2]; s8_conv2d_short_dsp, for columns of up to SHORT elements, has
 *          them on the stack
 *
 *   acc = bias[o] + sum w[o][a][b][c] * x'[...] + skip * skip_multiplier[o]
 *   output = requantize(acc), saturated to [low, high]
 *
 * x' is the input surrounded by pad_value. The inputs of four output pixels are widened into columns that lie side by
 * side; then each channel in turn widens four weights at a time for 16 products.
 * Accumulator: int32; every partial sum fits, as proved by the compiler.
 * Reference: Conv2d.int_ref in qcc/ir/ops/conv.py, Add.int_ref, Requantize.int_ref.
 */
#ifndef QCC_DSP_CONV2D_H
#define QCC_DSP_CONV2D_H

#include "qcc_arm_dsp.h"

enum { PIXELS = QCC_DSP_PIXELS, QUAD = 2 * PIXELS, SHORT = 32 }; /* QUAD: words of four activations of all pixels */

/* Columns of four pixels, and what all channels share. */
typedef struct {
  const int8_t *weights;
  const int32_t *channels;
  const int32_t *skip_multiplier;
  uint32_t *columns;
  int32_t quads, outputs;
  int32_t zero_point, low, high;
  int32_t narrow; /* [low, high] is not all of int8 */
} tile;

/* All channels of four pixels that are `step` bytes apart. With a step of 0 only the first pixel counts. */
static inline __attribute__((always_inline)) void compute_tile(const tile *t, const int8_t *skip, int8_t *output,
                                                               ptrdiff_t step) {
  const int8_t *w = t->weights;
  const int32_t *channel = t->channels, *skip_multiplier = t->skip_multiplier;
  int8_t *const end = output + t->outputs;
  do {
    int32_t s0 = channel[0], s1 = s0, s2 = s0, s3 = s0;
    w = qcc_dsp_products(w, t->columns, t->quads, &s0, &s1, &s2, &s3);
    if (skip) {
      const int32_t m = *skip_multiplier++;
      s0 += skip[0] * m;
      s1 += skip[step] * m;
      s2 += skip[2 * step] * m;
      s3 += skip[3 * step] * m;
      ++skip;
    }
    const qcc_dsp_channel c = qcc_dsp_channel_at(channel, t->zero_point);
    s0 = qcc_dsp_requantize(s0, c);
    s1 = qcc_dsp_requantize(s1, c);
    s2 = qcc_dsp_requantize(s2, c);
    s3 = qcc_dsp_requantize(s3, c);
    if (t->narrow) {
      s0 = qcc_dsp_clamp(s0, t->low, t->high);
      s1 = qcc_dsp_clamp(s1, t->low, t->high);
      s2 = qcc_dsp_clamp(s2, t->low, t->high);
      s3 = qcc_dsp_clamp(s3, t->low, t->high);
    }
    output[3 * step] = (int8_t)s3;
    output[2 * step] = (int8_t)s2;
    output[step] = (int8_t)s1;
    output[0] = (int8_t)s0;
    channel += QCC_DSP_CHANNEL;
  } while (++output != end);
}

/* Two functions, so that the one without a residual operand has registers enough. */
static __attribute__((noinline)) void compute_sum(const tile *t, const int8_t *skip, int8_t *output, ptrdiff_t step) {
  compute_tile(t, skip, output, step);
}

static __attribute__((noinline)) void compute_plain(const tile *t, int8_t *output, ptrdiff_t step) {
  compute_tile(t, NULL, output, step);
}

/* Widens `count` bytes into the column of one pixel; returns where it goes on. */
static uint32_t *widen(const int8_t *from, int32_t count, uint32_t *column) {
  int32_t quads = count >> 2;
  for (; quads >= 4; quads -= 4, from += 16, column += 4 * QUAD) {
    for (int i = 0; i < 4; ++i) {
      const uint32_t word = qcc_load4(from + 4 * i);
      column[i * QUAD] = qcc_even_bytes(word);
      column[i * QUAD + PIXELS] = qcc_odd_bytes(word);
    }
  }
  for (; quads > 0; --quads, from += 4, column += QUAD) {
    const uint32_t word = qcc_load4(from);
    column[0] = qcc_even_bytes(word);
    column[PIXELS] = qcc_odd_bytes(word);
  }
  if ((count & 3) != 0) {
    uint32_t word = 0;
    for (int32_t i = 0; i < (count & 3); ++i) {
      word |= (uint32_t)(uint8_t)from[i] << (8 * i);
    }
    column[0] = qcc_even_bytes(word);
    column[PIXELS] = qcc_odd_bytes(word);
    column += QUAD;
  }
  return column;
}

/* A run of `count` elements of which those from `first` on, before `end`, are at from[first]; the others are padding. */
static uint32_t *widen_padded(const int8_t *from, int32_t first, int32_t end, int32_t count, int32_t pad_value,
                              uint32_t *column) {
  for (int32_t k = 0; k < count; k += 4, column += QUAD) {
    uint32_t word = 0;
    for (int32_t i = k; i < k + 4; ++i) {
      const int32_t value = i >= first && i < end ? from[i] : pad_value;
      word |= (uint32_t)(uint8_t)value << (8 * (i & 3));
    }
    column[0] = qcc_even_bytes(word);
    column[PIXELS] = qcc_odd_bytes(word);
  }
  return column;
}

/* The column of the output pixel whose tap (0, 0) is at (y0, x0). */
static void fill_column(const qcc_dsp_conv2d_params *p, const int8_t *input, int32_t y0, int32_t x0,
                        uint32_t *column) {
  const int32_t whole_rows = p->dilation_width == 1;
  const int32_t runs = whole_rows ? 1 : p->kernel_width;
  const int32_t taps = whole_rows ? p->kernel_width : 1;
  const int32_t count = taps * p->input_channels;
  if (whole_rows && y0 >= 0 && y0 + (p->kernel_height - 1) * p->dilation_height < p->input_height && x0 >= 0 &&
      x0 + taps <= p->input_width) {
    const ptrdiff_t pitch = (ptrdiff_t)p->dilation_height * p->input_width * p->input_channels;
    const int8_t *from = input + ((ptrdiff_t)y0 * p->input_width + x0) * p->input_channels;
    for (int32_t a = p->kernel_height; a > 0; --a, from += pitch) {
      column = widen(from, count, column);
    }
    return;
  }
  for (int32_t a = 0; a < p->kernel_height; ++a) {
    const int32_t y = y0 + a * p->dilation_height;
    const int32_t inside = y >= 0 && y < p->input_height;
    for (int32_t b = 0; b < runs; ++b) {
      const int32_t x = x0 + b * p->dilation_width;
      const int8_t *from = input + ((ptrdiff_t)y * p->input_width + x) * p->input_channels;
      if (inside && x >= 0 && x + taps <= p->input_width) {
        column = widen(from, count, column);
      } else {
        const int32_t first = x < 0 ? -x * p->input_channels : 0;
        const int32_t end = inside ? (p->input_width - x) * p->input_channels : 0;
        column = widen_padded(from, first, end, count, p->pad_value, column);
      }
    }
  }
}

static void convolve(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *skip,
                     const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                     const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output, uint32_t *columns) {
  const qcc_dsp_conv2d_params p = *params;
  const int32_t runs = p.kernel_height * (p.dilation_width == 1 ? 1 : p.kernel_width);
  const int32_t run = p.input_channels * (p.dilation_width == 1 ? p.kernel_width : 1);
  const int32_t pointwise = p.kernel_height * p.kernel_width * p.stride_height * p.stride_width == 1 &&
                            p.input_width == p.output_width && p.input_height == p.output_height;
  const tile t = {weights,           channels,          skip_multiplier,
                  columns,           runs * ((run + 3) >> 2), p.output_channels,
                  p.output_zero_point, p.low,           p.high,
                  p.low > -128 || p.high < 127};
  int32_t oy = 0, ox = 0;

  for (int32_t pixels = p.batch * p.output_height * p.output_width; pixels > 0;) {
    const int32_t count = pixels >= PIXELS ? PIXELS : 1; /* the last ones one by one */
    for (int32_t j = 0; j < count; ++j) {
      if (pointwise) {
        (void)widen(input, p.input_channels, columns + j);
        input += p.input_channels;
      } else {
        fill_column(&p, input, oy * p.stride_height - p.pad_top, ox * p.stride_width - p.pad_left, columns + j);
        if (++ox == p.output_width) {
          ox = 0;
          if (++oy == p.output_height) {
            oy = 0;
            input += (ptrdiff_t)p.input_height * p.input_width * p.input_channels;
          }
        }
      }
    }
    const ptrdiff_t step = count == PIXELS ? p.output_channels : 0;
    if (skip) {
      compute_sum(&t, skip, output, step);
      skip += count * p.output_channels;
    } else {
      compute_plain(&t, output, step);
    }
    output += count * p.output_channels;
    pixels -= count;
  }
}

#endif
