/* s8_depthwise_conv2d_dotprod: depthwise convolution with requantization and a residual operand.
 *
 * input    int8[batch][input_height][input_width][channels]
 * skip     int8, as the output, or NULL
 * weights  int8[blocks][lines][kernel_width][quads][4][4][4]: blocks of 16 channels, the last one ends with the last channel
 *          and overlaps the one before; of fewer than 16 channels there is one, and zeros behind. The innermost 4 are taps of
 *          a column: quads * 4 rows of the image, which `lines` lines of output share, each with its own shift
 * bias     int32[blocks][16], the zero_points of the input and of skip folded in
 * skip_multiplier  int32[blocks][16], or NULL
 * scale    int32[blocks][4][2][4], see qcc_neon.h
 * output   int8[batch][output_height][output_width][channels]; does not overlap skip
 * workspace  64 * quads bytes for each column of the image that taps reach
 *
 * quads = ceil(kernel_height / 4); lines = (4 * quads - kernel_height) / stride_height + 1, or 1 where dilation_height is
 * not 1. Any stride, dilation and padding. For each block, the rows that the taps of some lines of output reach are
 * interleaved first (st4), so that a dot product meets the taps of one channel. A filter of 3 columns stays in registers.
 * Reference: Conv2d.int_ref, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_neon.h"

#if !defined(__ARM_FEATURE_DOTPROD)
#error "this library needs a processor with the dot product extension: compile with -march=armv8.2-a+dotprod"
#endif

/* Constants of a block, and where its columns are. */
typedef struct {
  const int8_t *weights;
  const int32_t *bias, *skip_multiplier, *scale;
  int32_t channels, quads, taps;
  ptrdiff_t step, dilation; /* bytes of columns from output to output, from tap to tap */
  ptrdiff_t output_step;
  int32_t clamps;
  qcc_neon_output saturation;
} depthwise_block;

/* Four rows of `count` pixels of 16 channels to columns, all of the same `step`. A function of its own: inlined, gcc 12
 * takes the vectors to st4 through memory. */
QCC_RARE int8_t *interleave_image(const int8_t *r0, const int8_t *r1, const int8_t *r2, const int8_t *r3, ptrdiff_t step,
                                  int32_t count, int8_t *to, ptrdiff_t column) {
  for (ptrdiff_t at = 0, end = count * step; at != end; at += step, to += column) {
    const int8x16x4_t x = {{vld1q_s8(r0 + at), vld1q_s8(r1 + at), vld1q_s8(r2 + at), vld1q_s8(r3 + at)}};
    vst4q_s8(to, x);
  }
  return to;
}

/* The same where some rows are padding: each row has its own step. */
QCC_RARE int8_t *interleave_edge(const int8_t *const *rows, const ptrdiff_t *step, int32_t count, int8_t *to,
                                 ptrdiff_t column) {
  const int8_t *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
  const ptrdiff_t s0 = step[0], s1 = step[1], s2 = step[2], s3 = step[3];
  for (; count > 0; --count, to += column, r0 += s0, r1 += s1, r2 += s2, r3 += s3) {
    const int8x16x4_t x = {{vld1q_s8(r0), vld1q_s8(r1), vld1q_s8(r2), vld1q_s8(r3)}};
    vst4q_s8(to, x);
  }
  return to;
}

/* Four rows of `count` pixels of up to 16 channels to columns; rows[r] NULL: outside of the image. */
static void interleave(const int8_t *const *rows, int32_t pad_value, int32_t count, ptrdiff_t pixel, int32_t channels,
                       int8_t *to, ptrdiff_t column) {
  int8_t pad[16];
  vst1q_s8(pad, vdupq_n_s8((int8_t)pad_value));
  const int8_t *from[4];
  ptrdiff_t step[4];
  for (int r = 0; r < 4; ++r) {
    from[r] = rows[r] ? rows[r] : pad;
    step[r] = rows[r] ? pixel : 0;
  }
  /* whole vectors, which may reach into the next pixels but not beyond the row */
  const int32_t whole = channels == 16 ? count : count * pixel < 16 ? 0 : (int32_t)((count * pixel - 16) / pixel) + 1;
  to = rows[0] && rows[1] && rows[2] && rows[3]
           ? interleave_image(from[0], from[1], from[2], from[3], pixel, whole, to, column)
           : interleave_edge(from, step, whole, to, column);
  for (int32_t i = whole; i < count; ++i, to += column) {
    for (int r = 0; r < 4; ++r) {
      for (int32_t c = 0; c < channels; ++c) {
        to[4 * c + r] = from[r][i * step[r] + c];
      }
    }
  }
}

QCC_INLINE void add_column(const int vectors, int32x4_t *acc, const int8_t *x, const int8x16_t *w) {
  const int8x16x4_t column = vld1q_s8_x4(x);
  QCC_UNROLL
  for (int v = 0; v < vectors; ++v) {
    acc[v] = vdotq_s32(acc[v], column.val[v], w[v]);
  }
}

/* 16 channels of a pixel under a filter of three columns and one quad. */
QCC_INLINE int8x16_t pixel_of_three(const depthwise_block *b, const int8x16_t *w, const int32x4_t *m, const int32x4_t *k,
                                    const int32_t *bias, const int8_t *x, ptrdiff_t dilation) {
  __asm__ volatile("" : "+r"(bias)); /* two vectors in one load take the place of two moves */
  int32x4_t acc[4] = {vld1q_s32(bias), vld1q_s32(bias + 4), vld1q_s32(bias + 8), vld1q_s32(bias + 12)};
  add_column(4, acc, x, w);
  add_column(4, acc, x + dilation, w + 4);
  add_column(4, acc, x + 2 * dilation, w + 8);
  QCC_UNROLL
  for (int v = 0; v < 4; ++v) {
    acc[v] = qcc_scaled(acc[v], m[v], k[v]);
  }
  return qcc_narrowed(acc[0], acc[1], acc[2], acc[3], 0, b->saturation);
}

/* A line of output. three: filters of three columns and one quad. */
QCC_INLINE void line_of(const int three, const int vectors, const depthwise_block *b, const int8_t *x, const int8_t *skip,
                        int8_t *output, int32_t count) {
  int8x16_t w[12];
  int32x4_t m[4], k[4];
  if (three) {
    QCC_UNROLL
    for (int i = 0; i < 3; ++i) {
      QCC_UNROLL
      for (int v = 0; v < vectors; ++v) {
        w[4 * i + v] = vld1q_s8(b->weights + 64 * i + 16 * v);
      }
    }
  }
  QCC_UNROLL
  for (int v = 0; v < vectors; ++v) {
    m[v] = vld1q_s32(b->scale + 8 * v);
    k[v] = vld1q_s32(b->scale + 8 * v + 4);
  }
  const int32_t *bias = b->bias;
  const ptrdiff_t step = b->step, dilation = b->dilation, output_step = b->output_step;
  const int32_t clamps = b->clamps, channels = b->channels;
  const qcc_neon_output saturation = b->saturation;
  if (three && vectors == 4 && !skip && channels == 16) { /* the most frequent, two pixels at a time */
    const int8_t *next = x + step;
    int8_t *next_output = output + output_step;
    for (; count > 1; count -= 2, x += 2 * step, next += 2 * step, output += 2 * output_step, next_output += 2 * output_step) {
      int8x16_t y = pixel_of_three(b, w, m, k, bias, x, dilation), z = pixel_of_three(b, w, m, k, bias, next, dilation);
      if (clamps) {
        y = vminq_s8(vmaxq_s8(y, saturation.low), saturation.high);
        z = vminq_s8(vmaxq_s8(z, saturation.low), saturation.high);
      }
      vst1q_s8(output, y);
      vst1q_s8(next_output, z);
    }
  }
  for (; count > 0; --count, x += step, output += output_step) {
    __asm__ volatile("" : "+r"(bias)); /* two vectors in one load take the place of two moves */
    int32x4_t acc[4] = {vld1q_s32(bias), vld1q_s32(bias + 4), vld1q_s32(bias + 8), vld1q_s32(bias + 12)};
    if (three) {
      add_column(vectors, acc, x, w);
      add_column(vectors, acc, x + dilation, w + 4);
      add_column(vectors, acc, x + 2 * dilation, w + 8);
    } else {
      const int8_t *from = b->weights, *column = x;
      for (int32_t t = 0; t < b->taps; ++t, column += dilation) {
        for (int32_t q = 0; q < b->quads; ++q, from += 64) {
          const int8x16x4_t weights = vld1q_s8_x4(from);
          add_column(vectors, acc, column + 64 * q, weights.val);
        }
      }
    }
    if (skip) {
      qcc_add_skip(4, acc, qcc_load_bytes(skip, channels), b->skip_multiplier);
      skip += output_step;
    }
    QCC_UNROLL
    for (int v = 0; v < vectors; ++v) {
      acc[v] = qcc_scaled(acc[v], m[v], k[v]);
    }
    int8x16_t y = qcc_narrowed(acc[0], acc[1], acc[vectors - 2], acc[vectors - 1], 0, saturation);
    if (clamps) {
      y = vminq_s8(vmaxq_s8(y, saturation.low), saturation.high);
    }
    if (vectors == 2 && channels == 8) {
      vst1_s8(output, vget_low_s8(y));
    } else {
      qcc_store_bytes(output, y, channels);
    }
  }
}

static void line_of_three(const depthwise_block *b, const int8_t *x, const int8_t *skip, int8_t *output, int32_t count) {
  line_of(1, 4, b, x, skip, output, count);
}

static void line_of_three_narrow(const depthwise_block *b, const int8_t *x, const int8_t *skip, int8_t *output,
                                 int32_t count) {
  line_of(1, 2, b, x, skip, output, count);
}

static void line_of_any(const depthwise_block *b, const int8_t *x, const int8_t *skip, int8_t *output, int32_t count) {
  line_of(0, 4, b, x, skip, output, count);
}

void qcc_s8_depthwise_conv2d_dotprod(const qcc_neon_conv2d_params *params, const int8_t *QCC_RESTRICT input,
                                     const int8_t *skip, const int8_t *QCC_RESTRICT weights,
                                     const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                     const int32_t *QCC_RESTRICT scale, int8_t *output, void *workspace) {
  const qcc_neon_conv2d_params *p = params;
  const int32_t channels = p->input_channels, quads = (p->kernel_height + 3) / 4;
  const int32_t lines = p->dilation_height > 1 ? 1 : (4 * quads - p->kernel_height) / p->stride_height + 1;
  const ptrdiff_t pixel = channels, row_bytes = pixel * p->input_width, column = 64 * quads;
  const int32_t width = (p->output_width - 1) * p->stride_width + (p->kernel_width - 1) * p->dilation_width + 1;
  const int32_t left = p->pad_left < width ? p->pad_left : width;
  const int32_t inside = p->input_width < width - left ? p->input_width : width - left;
  int8_t *columns = (int8_t *)workspace;
  depthwise_block b;
  b.quads = quads;
  b.taps = p->kernel_width;
  b.step = p->stride_width * column;
  b.dilation = p->dilation_width * column;
  b.output_step = p->output_step;
  b.clamps = p->low > -128 || p->high < 127;
  b.saturation = qcc_saturation(p->output_zero_point, p->low, p->high);
  b.channels = channels < 16 ? channels : 16;
  const int three = quads == 1 && p->kernel_width == 3;
  void (*const compute)(const depthwise_block *, const int8_t *, const int8_t *, int8_t *, int32_t) =
      !three ? line_of_any : channels <= 8 ? line_of_three_narrow : line_of_three;
  const ptrdiff_t filter = 64 * (ptrdiff_t)quads * p->kernel_width;
  const int8_t *none[4] = {NULL, NULL, NULL, NULL};
  for (int32_t n = 0; n < p->batch; ++n, input += p->input_height * row_bytes) {
    const int8_t *w = weights;
    for (int32_t c = 0, i = 0; c < channels; c += 16, ++i) {
      const int32_t first = c + 16 > channels && channels > 16 ? channels - 16 : c;
      b.bias = bias + 16 * i;
      b.skip_multiplier = skip_multiplier ? skip_multiplier + 16 * i : NULL;
      b.scale = scale + 32 * i;
      for (int32_t q = 0; q < quads; ++q) { /* the columns beside the image stay the same */
        interleave(none, p->pad_value, left, pixel, 16, columns + 64 * q, column);
        interleave(none, p->pad_value, width - left - inside, pixel, 16, columns + 64 * q + (left + inside) * column, column);
      }
      for (int32_t y = 0; y < p->output_height; y += lines) {
        const int32_t top = y * p->stride_height - p->pad_top;
        for (int32_t q = 0; q < quads; ++q) {
          const int8_t *rows[4];
          for (int32_t r = 0; r < 4; ++r) {
            const int32_t row = top + (4 * q + r) * p->dilation_height;
            rows[r] = row < 0 || row >= p->input_height ? NULL : input + row * row_bytes + first;
          }
          interleave(rows, p->pad_value, inside, pixel, b.channels, columns + 64 * q + left * column, column);
        }
        for (int32_t l = 0; l < lines && y + l < p->output_height; ++l) {
          const ptrdiff_t at = ((ptrdiff_t)n * p->output_height + y + l) * p->output_width * p->output_step + first;
          b.weights = w + l * filter;
          compute(&b, columns, skip ? skip + at : NULL, output + at, p->output_width);
        }
      }
      w += lines * filter;
    }
  }
}
