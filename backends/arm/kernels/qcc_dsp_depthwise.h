/* 3x3 convolution of each channel with its own filter, strides of 1 or 2, on pairs of int16.
 *
 * input    int8[batch][input_height][input_width][channels], channels a multiple of 4
 * weights  int8[channels][3][3]
 * channels int32[channels][QCC_DSP_CHANNEL], see qcc_arm_dsp.h; all zero_points are folded in the bias
 * output   int8[batch][output_height][output_width][channels]; may be written over the input where both have one size, the
 *          strides are 1 and pad_top is 1
 * workspace  int16[4 channels][rows][width]: what `band` rows of output read, see rows_of and width_of
 *
 *   acc = bias[c] + sum w[c][a][b] * x'[...][c]
 *   output = requantize(acc), saturated to [low, high]
 *
 * x' is the input surrounded by pad_value. Four channels at a time are widened and taken apart into planes, where
 * neighbours in a row are pairs. Two neighbouring outputs share their pairs: x0 x1 | x2 x3 times w0 w1 | w2 -, and
 * - w0 | w1 w2. From one band to the next, the rows that both read are moved up.
 * Accumulator: int32; every partial sum fits, as proved by the compiler.
 * Reference: Conv2d.int_ref in qcc/ir/ops/conv.py, Add.int_ref, Requantize.int_ref.
 */
#ifndef QCC_DSP_DEPTHWISE_H
#define QCC_DSP_DEPTHWISE_H

#include "qcc_arm_dsp.h"

/* Rows of the workspace that `band` rows of output read. */
static int32_t rows_of(const qcc_dsp_conv2d_params *p, int32_t band) { return (band - 1) * p->stride_height + 3; }

/* Elements of such a row: outputs are computed in twos, and pairs are read. */
static int32_t width_of(const qcc_dsp_conv2d_params *p) {
  return p->stride_width == 1 ? ((p->output_width + 1) & ~1) + 2 : 2 * p->output_width + 2;
}

/* Four channels of two neighbours as a pair in each of four planes, whose distance is `words`. */
static inline void spread_pair(uint32_t a, uint32_t b, uint32_t *to, ptrdiff_t words) {
  const uint32_t lower = qcc_lower_halves(a, b), upper = qcc_upper_halves(a, b);
  to[0] = qcc_even_bytes(lower);
  to[words] = qcc_odd_bytes(lower);
  to[2 * words] = qcc_even_bytes(upper);
  to[3 * words] = qcc_odd_bytes(upper);
}

/* Row y of four channels into the planes. */
static void spread_row(const qcc_dsp_conv2d_params *p, const int8_t *input, int32_t y, uint32_t *to, ptrdiff_t words) {
  const int32_t width = width_of(p), first = p->pad_left, inside = y >= 0 && y < p->input_height;
  const int32_t end = inside ? first + p->input_width : first;
  const ptrdiff_t step = p->input_channels;
  const uint32_t padding = 0x01010101u * (uint8_t)p->pad_value;
  const int8_t *from = input + ((ptrdiff_t)y * p->input_width - first) * step;
  for (int32_t x = 0; x < width;) {
    const int32_t pairs = x >= first ? ((end < width ? end : width) - x) >> 1 : 0;
    if (pairs > 0) {
      x += 2 * pairs;
      for (int32_t i = 0; i < pairs; ++i, from += 2 * step, ++to) {
        spread_pair(qcc_load4(from), qcc_load4(from + step), to, words);
      }
    } else {
      const uint32_t a = x >= first && x < end ? qcc_load4(from) : padding;
      const uint32_t b = x + 1 >= first && x + 1 < end ? qcc_load4(from + step) : padding;
      spread_pair(a, b, to, words);
      from += 2 * step;
      x += 2;
      ++to;
    }
  }
}

/* A row of the filter (w0 w1 and w1 w2 at %[w] + offset) times the elements at x, which moves on. */
#define QCC_ROW(x, offset)                   \
  "ldrd %[a], %[b], [%[w], #" offset "]\n\t" \
  "ldrd %[c], %[d], [%[" x "]], #4\n\t"      \
  "smlad %[s0], %[c], %[a], %[s0]\n\t"       \
  "smlabt %[s0], %[d], %[b], %[s0]\n\t"
/* The same for the right neighbour. */
#define QCC_NEIGHBOUR                   \
  "smlatb %[s1], %[c], %[a], %[s1]\n\t" \
  "smlad %[s1], %[d], %[b], %[s1]\n\t"
#define QCC_POINTERS [x0] "+r"(x0), [x1] "+r"(x1), [x2] "+r"(x2)
#define QCC_LOADED [a] "=&r"(a), [b] "=&r"(b), [c] "=&r"(c), [d] "=&r"(d)

/* `rows` rows of output of one channel, whose plane begins at `plane`. */
static void convolve_plane(const qcc_dsp_conv2d_params *p, const int16_t *plane, int32_t rows, const uint32_t *filter,
                           qcc_dsp_channel channel, int8_t *output) {
  const ptrdiff_t width = width_of(p), step = p->output_channels;
  const int32_t narrow = p->low > -128 || p->high < 127;
  const int32_t twos = p->stride_width == 1 ? p->output_width >> 1 : 0;
  for (; rows > 0; --rows, plane += p->stride_height * width) {
    const int16_t *x0 = plane, *x1 = plane + width, *x2 = x1 + width;
    uint32_t a, b, c, d;
    for (int32_t left = twos; left > 0; --left) {
      int32_t s0 = channel.bias, s1 = s0;
      __asm__(QCC_ROW("x0", "0") QCC_NEIGHBOUR QCC_ROW("x1", "8") QCC_NEIGHBOUR QCC_ROW("x2", "16") QCC_NEIGHBOUR
              : [s0] "+r"(s0), [s1] "+r"(s1), QCC_POINTERS, QCC_LOADED
              : [w] "r"(filter)
              : "memory");
      s0 = qcc_dsp_requantize(s0, channel);
      s1 = qcc_dsp_requantize(s1, channel);
      if (narrow) {
        s0 = qcc_dsp_clamp(s0, p->low, p->high);
        s1 = qcc_dsp_clamp(s1, p->low, p->high);
      }
      *output = (int8_t)s0;
      output += step;
      *output = (int8_t)s1;
      output += step;
    }
    for (int32_t left = p->output_width - 2 * twos; left > 0; --left) {
      int32_t s0 = channel.bias;
      __asm__(QCC_ROW("x0", "0") QCC_ROW("x1", "8") QCC_ROW("x2", "16")
              : [s0] "+r"(s0), QCC_POINTERS, QCC_LOADED
              : [w] "r"(filter)
              : "memory");
      s0 = qcc_dsp_requantize(s0, channel);
      *output = (int8_t)(narrow ? qcc_dsp_clamp(s0, p->low, p->high) : s0);
      output += step;
    }
  }
}

/* Four channels of one image. */
static void convolve_four(const qcc_dsp_conv2d_params *p, const int8_t *input, const int8_t *QCC_RESTRICT weights,
                          const int32_t *QCC_RESTRICT channels, int8_t *output, int16_t *planes) {
  const ptrdiff_t width = width_of(p), plane = rows_of(p, p->band) * width;
  const ptrdiff_t line = (ptrdiff_t)p->output_width * p->output_channels;
  const int32_t kept = 3 - p->stride_height; /* rows that a band shares with the next one */
  int32_t filled = 0;
  for (int32_t oy = 0; oy < p->output_height; oy += p->band, output += p->band * line) {
    const int32_t rows = p->output_height - oy < p->band ? p->output_height - oy : p->band;
    const int32_t needed = rows_of(p, rows), y = oy * p->stride_height - p->pad_top;
    for (; filled < needed; ++filled) {
      spread_row(p, input, y + filled, (uint32_t *)(void *)(planes + filled * width), plane >> 1);
    }
    for (ptrdiff_t c = 0; c < 4; ++c) {
      const int8_t *w = weights + 9 * c;
      uint32_t filter[6]; /* w0 w1, w1 w2 of each row */
      for (int32_t a = 0; a < 3; ++a, w += 3) {
        filter[2 * a] = qcc_lower_halves((uint32_t)w[0], (uint32_t)w[1]);
        filter[2 * a + 1] = qcc_lower_halves((uint32_t)w[1], (uint32_t)w[2]);
      }
      convolve_plane(p, planes + c * plane, rows, filter, qcc_dsp_channel_at(channels + QCC_DSP_CHANNEL * c, p->output_zero_point),
                     output + c);
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

/* QCC_DEPTHWISE: the name of the kernel. */
void QCC_DEPTHWISE(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *QCC_RESTRICT weights,
                   const int32_t *QCC_RESTRICT channels, int8_t *output, void *workspace) {
  const qcc_dsp_conv2d_params p = *params;
  for (int32_t n = 0; n < p.batch; ++n) {
    for (int32_t c = 0; c < p.output_channels; c += 4) {
      convolve_four(&p, input + c, weights + 9 * c, channels + QCC_DSP_CHANNEL * c, output + c, (int16_t *)workspace);
    }
    input += (ptrdiff_t)p.input_height * p.input_width * p.input_channels;
    output += (ptrdiff_t)p.output_height * p.output_width * p.output_channels;
  }
}

#endif
