/* s8_depthwise_conv2d_dsp: 3x3 convolution of each channel with its own filter, strides of 1 or 2, on pairs of int16.
 *
 * input    int8[batch][input_height][input_width][channels], channels a multiple of 4
 * skip     int8, shape of the output, or NULL
 * weights  int8[channels][3][3]
 * channels int32[channels][3]: bias with all zero_points folded in, multiplier, shift - 32
 * skip_multiplier  int32[channels], or NULL
 * output   int8[batch][output_height][output_width][channels]; may be written over skip, and over the input where both have
 *          one size, the strides are 1 and pad_top is 1
 * workspace  int16[4 channels][rows][width]: what `band` rows of output read, see rows_of and width_of
 *
 *   acc = bias[c] + sum w[c][a][b] * x'[...][c] + skip * skip_multiplier[c]
 *   output = requantize(acc), saturated to [low, high]
 *
 * x' is the input surrounded by pad_value. Four channels at a time are widened and taken apart into planes, where
 * neighbours in a row are pairs. Two neighbouring outputs share their pairs: x0 x1 | x2 x3 times w0 w1 | w2 -, and
 * - w0 | w1 w2. From one band to the next, the rows that both read are moved up.
 * Accumulator: int32; every partial sum fits, as proved by the compiler.
 * Reference: Conv2d.int_ref in qcc/ir/ops/conv.py, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_arm_dsp.h"

/* Rows of the workspace that `band` rows of output read. */
static int32_t rows_of(const qcc_dsp_conv2d_params *p, int32_t band) { return (band - 1) * p->stride_height + 3; }

/* Elements of such a row: outputs are computed in twos, and pairs are read. */
static int32_t width_of(const qcc_dsp_conv2d_params *p) {
  return p->stride_width == 1 ? ((p->output_width + 1) & ~1) + 2 : 2 * p->output_width + 2;
}

/* Row y of four channels into the planes, whose distance is `plane` elements. */
static void spread_row(const qcc_dsp_conv2d_params *p, const int8_t *input, int32_t y, int16_t *to, ptrdiff_t plane) {
  const int32_t width = width_of(p);
  const ptrdiff_t step = p->input_channels;
  const int32_t first = p->pad_left, end = first + p->input_width < width ? first + p->input_width : width;
  const int8_t *from = input + (ptrdiff_t)y * p->input_width * step;
  const int inside = y >= 0 && y < p->input_height;
  int32_t x = 0;
  for (; x < (inside ? first : width); ++x) {
    to[x] = to[x + plane] = to[x + 2 * plane] = to[x + 3 * plane] = (int16_t)p->pad_value;
  }
  for (; x < width;) {
    if ((x & 1) != 0 || x + 1 >= end) {
      for (ptrdiff_t c = 0; c < 4; ++c) {
        to[x + c * plane] = (int16_t)(x < end ? from[c] : p->pad_value);
      }
      from += step;
      ++x;
      continue;
    }
    uint32_t *pair = (uint32_t *)(void *)(to + x);
    const ptrdiff_t words = plane >> 1;
    const int32_t pairs = (end - x) >> 1;
    x += 2 * pairs;
    for (int32_t i = 0; i < pairs; ++i, from += 2 * step, ++pair) {
      const uint32_t a = qcc_load4(from), b = qcc_load4(from + step);
      const uint32_t lower = qcc_lower_halves(a, b), upper = qcc_upper_halves(a, b);
      pair[0] = qcc_even_bytes(lower);
      pair[words] = qcc_odd_bytes(lower);
      pair[2 * words] = qcc_even_bytes(upper);
      pair[3 * words] = qcc_odd_bytes(upper);
    }
  }
}

/* One row of the filter times two outputs that are neighbours: both at x, which moves on by `bytes`. */
#define QCC_ROW_OF_TWO(x, offset)                                  \
  __asm__("ldrd %[a], %[b], [%[w], #" offset "]\n\t"               \
          "ldrd %[c], %[d], [%[p]], #4\n\t"                        \
          "smlad %[s0], %[c], %[a], %[s0]\n\t"                     \
          "smlatb %[s1], %[c], %[a], %[s1]\n\t"                    \
          "smlabt %[s0], %[d], %[b], %[s0]\n\t"                    \
          "smlad %[s1], %[d], %[b], %[s1]\n\t"                     \
          : [s0] "+r"(s0), [s1] "+r"(s1), [p] "+r"(x), [a] "=&r"(a), [b] "=&r"(b), [c] "=&r"(c), [d] "=&r"(d) \
          : [w] "r"(filter)                                        \
          : "memory")
/* The same for one output, with a stride of 2. */
#define QCC_ROW_OF_ONE(x, offset)                                  \
  __asm__("ldrd %[a], %[b], [%[w], #" offset "]\n\t"               \
          "ldrd %[c], %[d], [%[p]], #4\n\t"                        \
          "smlad %[s0], %[c], %[a], %[s0]\n\t"                     \
          "smlabt %[s0], %[d], %[b], %[s0]\n\t"                    \
          : [s0] "+r"(s0), [p] "+r"(x), [a] "=&r"(a), [b] "=&r"(b), [c] "=&r"(c), [d] "=&r"(d) \
          : [w] "r"(filter)                                        \
          : "memory")

/* `rows` rows of output of one channel, whose plane begins at `plane`. */
static void convolve_plane(const qcc_dsp_conv2d_params *p, const int16_t *plane, int32_t rows, const int8_t *skip,
                           const uint32_t *filter, qcc_dsp_channel channel, int32_t skip_multiplier, int8_t *output) {
  const ptrdiff_t width = width_of(p), step = p->output_channels;
  const int32_t narrow = p->low > -128 || p->high < 127;
  const int32_t two = p->stride_width == 1;
  for (; rows > 0; --rows, plane += p->stride_height * width) {
    const int16_t *x0 = plane, *x1 = plane + width, *x2 = x1 + width;
    uint32_t a, b, c, d;
    for (int32_t left = p->output_width; left > 0; left -= 1 + two) {
      int32_t s0 = channel.bias;
      if (two) {
        int32_t s1 = channel.bias;
        QCC_ROW_OF_TWO(x0, "0");
        QCC_ROW_OF_TWO(x1, "8");
        QCC_ROW_OF_TWO(x2, "16");
        if (left > 1) {
          if (skip) {
            s1 += skip[step] * skip_multiplier;
          }
          s1 = qcc_dsp_requantize(s1, channel);
          if (narrow) {
            s1 = qcc_dsp_clamp(s1, p->low, p->high);
          }
          output[step] = (int8_t)s1;
        }
      } else {
        QCC_ROW_OF_ONE(x0, "0");
        QCC_ROW_OF_ONE(x1, "8");
        QCC_ROW_OF_ONE(x2, "16");
      }
      if (skip) {
        s0 += skip[0] * skip_multiplier;
        skip += left > 1 && two ? 2 * step : step;
      }
      s0 = qcc_dsp_requantize(s0, channel);
      if (narrow) {
        s0 = qcc_dsp_clamp(s0, p->low, p->high);
      }
      output[0] = (int8_t)s0;
      output += left > 1 && two ? 2 * step : step;
    }
  }
}

/* Four channels of one image. */
static void convolve_four(const qcc_dsp_conv2d_params *p, const int8_t *input, const int8_t *skip,
                          const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                          const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output, int16_t *planes) {
  const ptrdiff_t width = width_of(p), plane = rows_of(p, p->band) * width;
  const ptrdiff_t line = (ptrdiff_t)p->output_width * p->output_channels;
  const int32_t kept = 3 - p->stride_height; /* rows that a band shares with the next one */
  int32_t filled = 0;
  for (int32_t oy = 0; oy < p->output_height; oy += p->band, output += p->band * line) {
    const int32_t rows = p->output_height - oy < p->band ? p->output_height - oy : p->band;
    const int32_t needed = rows_of(p, rows);
    for (; filled < needed; ++filled) {
      spread_row(p, input, oy * p->stride_height - p->pad_top + filled, planes + filled * width, plane);
    }
    for (ptrdiff_t c = 0; c < 4; ++c) {
      const int8_t *w = weights + 9 * c;
      uint32_t filter[6]; /* w0 w1, w1 w2 of each row */
      for (int32_t a = 0; a < 3; ++a, w += 3) {
        filter[2 * a] = qcc_lower_halves((uint32_t)w[0], (uint32_t)w[1]);
        filter[2 * a + 1] = qcc_lower_halves((uint32_t)w[1], (uint32_t)w[2]);
      }
      convolve_plane(p, planes + c * plane, rows, skip ? skip + c : skip, filter,
                     qcc_dsp_channel_at(channels + 3 * c, p->output_zero_point), skip ? skip_multiplier[c] : 0,
                     output + c);
    }
    if (skip) {
      skip += p->band * line;
    }
    if (oy + rows < p->output_height) {
      for (ptrdiff_t c = 0; c < 4; ++c) {
        uint32_t *to = (uint32_t *)(void *)(planes + c * plane);
        const uint32_t *from = to + (((needed - kept) * width) >> 1);
        for (ptrdiff_t i = 0; i < (kept * width) >> 1; ++i) {
          to[i] = from[i];
        }
      }
      filled = kept;
    }
  }
}

void qcc_s8_depthwise_conv2d_dsp(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *skip,
                                 const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                                 const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output, void *workspace) {
  const qcc_dsp_conv2d_params p = *params;
  for (int32_t n = 0; n < p.batch; ++n) {
    for (int32_t c = 0; c < p.output_channels; c += 4) {
      convolve_four(&p, input + c, skip ? skip + c : skip, weights + 9 * c, channels + 3 * c,
                    skip ? skip_multiplier + c : skip_multiplier, output + c, (int16_t *)workspace);
    }
    input += (ptrdiff_t)p.input_height * p.input_width * p.input_channels;
    output += (ptrdiff_t)p.output_height * p.output_width * p.output_channels;
    if (skip) {
      skip += (ptrdiff_t)p.output_height * p.output_width * p.output_channels;
    }
  }
}
