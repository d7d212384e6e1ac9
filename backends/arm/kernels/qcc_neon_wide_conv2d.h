/* 2-D convolution with tensors of 8 or 16 bits, requantization and a residual operand; over qcc_dot.
 *
 * input    int8 or int16 [batch][input_height][input_width][input_channels]
 * skip     int8 or int16, as the output, or NULL
 * weights  int8[blocks][quads][4 vectors][16]: blocks of 16 output channels, zero where there is none; the quads are four taps
 *          of the filter, zero-padded to 16. 16 bytes are four taps of four channels, in the order of qcc_dot
 * bias     int32[output channels rounded up to 16], all zero_points folded in; for int16 also 128 times the sum of weights
 * skip_multiplier  int32[the same], or NULL
 * scale    int32[the same / 4][3][4], see qcc_neon_wide.h
 * output   int8 or int16 [batch][output_height][output_width][output_channels]; may be written over a skip of its type
 * workspace  the columns of 4 output pixels, a plane of bytes for int8 and two for int16
 *
 * x = 256 * h + l + 128, with int8 h and l: the products with all h come first, then the sums move up by 8 bits, then those
 * with all l are added. The taps of four output pixels are copied into columns, taken apart on the way.
 * Accumulator: int32, wraps around; the compiler proves where it ends.
 * Reference: Conv2d.int_ref, Dense.int_ref, Add.int_ref, Requantize.int_ref.
 */
#ifndef QCC_NEON_WIDE_CONV2D_H
#define QCC_NEON_WIDE_CONV2D_H

#include "qcc_neon_wide_finish.h"

enum { QCC_WIDE_PIXELS = 4 };

/* What the tiles see; a plane of a column has `depth` bytes. */
typedef struct {
  const int8_t *columns;
  ptrdiff_t depth;
  int32_t planes;
  const int8_t *weights;
  qcc_neon_wide_layer layer;
} qcc_neon_wide_tiles;

#define QCC_WIDE_QUAD(lane)                                                 \
  do {                                                                      \
    int8x16_t column[4];                                                    \
    w = qcc_load_vectors(4, column, w);                                     \
    QCC_UNROLL                                                              \
    for (int r = 0; r < rows; ++r) {                                        \
      qcc_dot(4, acc + 4 * r, column, x[r], lane);                          \
    }                                                                       \
  } while (0)

/* All channels of `rows` pixels; `at`: element of the first output. */
QCC_INLINE void qcc_neon_wide_tile(const int rows, const qcc_neon_wide_tiles *t, const void *skip, void *output, ptrdiff_t at) {
  const int8_t *weights = t->weights;
  for (int32_t o = 0; o < t->layer.outputs; o += 16) {
    int32x4_t acc[4 * QCC_WIDE_PIXELS];
    QCC_UNROLL
    for (int i = 0; i < 4 * rows; ++i) {
      acc[i] = vdupq_n_s32(0);
    }
    for (int32_t plane = 0; plane < t->planes; ++plane) {
      const int8_t *w = weights, *column_at = t->columns + plane * t->depth;
      const ptrdiff_t step = t->planes * t->depth;
      QCC_UNROLL
      for (int i = 0; i < 4 * rows; ++i) {
        acc[i] = vshlq_n_s32(acc[i], 8);
      }
      for (ptrdiff_t k = t->depth; k > 0; k -= 16, column_at += 16) {
        int8x16_t x[QCC_WIDE_PIXELS];
        QCC_UNROLL
        for (int r = 0; r < rows; ++r) {
          x[r] = vld1q_s8(column_at + r * step);
        }
        QCC_WIDE_QUAD(0);
        QCC_WIDE_QUAD(1);
        QCC_WIDE_QUAD(2);
        QCC_WIDE_QUAD(3);
      }
    }
    weights += 16 * t->depth;
    QCC_UNROLL
    for (int v = 0; v < 4; ++v) {
      const int32x4_t bias = vld1q_s32(t->layer.bias + o + 4 * v);
      QCC_UNROLL
      for (int r = 0; r < rows; ++r) {
        acc[4 * r + v] = vaddq_s32(acc[4 * r + v], bias);
      }
    }
    qcc_neon_wide_finish(rows, &t->layer, acc, o, skip, output, at);
  }
}

static __attribute__((noinline)) void qcc_neon_wide_tile_of_4(const qcc_neon_wide_tiles *t, const void *skip, void *output,
                                                         ptrdiff_t at) {
  qcc_neon_wide_tile(QCC_WIDE_PIXELS, t, skip, output, at);
}

static __attribute__((noinline)) void qcc_neon_wide_tile_of_1(const qcc_neon_wide_tiles *t, const void *skip, void *output,
                                                         ptrdiff_t at) {
  qcc_neon_wide_tile(1, t, skip, output, at);
}

/* `count` elements of the input into the planes of a column. */
QCC_INLINE int8_t *qcc_neon_wide_split(const void *input, ptrdiff_t index, int32_t bytes, int32_t count, int8_t *to,
                                  ptrdiff_t depth) {
  const int8_t *from = (const int8_t *)input + index * bytes;
  const int8x16_t centre = vdupq_n_s8(-128);
  int32_t i = 0;
  if (bytes == 2) {
    for (; i + 16 <= count; i += 16) {
      const int8x16x2_t x = vld2q_s8(from + 2 * i);
      vst1q_s8(to + i, x.val[1]);
      vst1q_s8(to + depth + i, veorq_s8(x.val[0], centre));
    }
    for (; i + 8 <= count; i += 8) {
      const int8x8x2_t x = vld2_s8(from + 2 * i);
      vst1_s8(to + i, x.val[1]);
      vst1_s8(to + depth + i, veor_s8(x.val[0], vget_low_s8(centre)));
    }
    for (; i < count; ++i) {
      to[i] = from[2 * i + 1];
      to[depth + i] = (int8_t)(from[2 * i] ^ -128);
    }
  } else {
    for (; i + 16 <= count; i += 16) {
      vst1q_s8(to + i, vld1q_s8(from + i));
    }
    for (; i < count; ++i) {
      to[i] = from[i];
    }
  }
  return to + count;
}

/* The same of `count` times `value`. */
QCC_INLINE int8_t *qcc_neon_wide_repeat(int32_t value, int32_t bytes, int32_t count, int8_t *to, ptrdiff_t depth) {
  for (int32_t i = 0; i < count; ++i) {
    to[i] = (int8_t)(bytes == 2 ? value >> 8 : value);
    if (bytes == 2) {
      to[depth + i] = (int8_t)((value & 255) - 128);
    }
  }
  return to + count;
}

/* The column of the output pixel whose tap (0, 0) is at (y0, x0) of the image that begins at element `image`. */
QCC_INLINE void qcc_neon_wide_column(const qcc_neon_wide_conv2d_params *p, const void *input, ptrdiff_t image, int32_t y0,
                                int32_t x0, int8_t *to, ptrdiff_t depth) {
  const int32_t channels = p->input_channels, bytes = p->input_bytes;
  int8_t *const end = to + depth;
  for (int32_t a = 0; a < p->kernel_height; ++a) {
    const int32_t y = y0 + a * p->dilation_height;
    const ptrdiff_t line = image + (ptrdiff_t)y * p->input_width * channels;
    const int32_t inside = y >= 0 && y < p->input_height;
    if (inside && p->dilation_width == 1 && x0 >= 0 && x0 + p->kernel_width <= p->input_width) {
      to = qcc_neon_wide_split(input, line + (ptrdiff_t)x0 * channels, bytes, p->kernel_width * channels, to, depth);
      continue;
    }
    for (int32_t b = 0; b < p->kernel_width; ++b) {
      const int32_t x = x0 + b * p->dilation_width;
      if (inside && x >= 0 && x < p->input_width) {
        to = qcc_neon_wide_split(input, line + (ptrdiff_t)x * channels, bytes, channels, to, depth);
      } else {
        to = qcc_neon_wide_repeat(p->pad_value, bytes, channels, to, depth);
      }
    }
  }
  (void)qcc_neon_wide_repeat(0, bytes, (int32_t)(end - to), to, depth);
}

QCC_INLINE void qcc_neon_wide_conv2d(const qcc_neon_wide_conv2d_params *params, const void *input, const void *skip,
                                const int8_t *weights, const int32_t *bias, const int32_t *skip_multiplier,
                                const int32_t *scale, void *output, void *workspace) {
  const qcc_neon_wide_conv2d_params p = *params;
  const ptrdiff_t taps = (ptrdiff_t)p.kernel_height * p.kernel_width * p.input_channels;
  int8_t *const columns = (int8_t *)workspace;
  const qcc_neon_wide_tiles t = {columns,
                            (taps + 15) / 16 * 16,
                            p.input_bytes,
                            weights,
                            {bias, skip_multiplier, scale, p.output_channels, p.skip_bytes, p.output_bytes,
                             qcc_neon_wide_saturation(p.output_zero_point, p.low, p.high)}};
  ptrdiff_t image = 0, at = 0;
  int32_t oy = 0, ox = 0;
  for (int32_t pixels = p.batch * p.output_height * p.output_width; pixels > 0;) {
    const int32_t count = pixels >= QCC_WIDE_PIXELS ? QCC_WIDE_PIXELS : 1; /* the last ones one by one */
    for (int32_t j = 0; j < count; ++j) {
      qcc_neon_wide_column(&p, input, image, oy * p.stride_height - p.pad_top, ox * p.stride_width - p.pad_left,
                      columns + j * t.planes * t.depth, t.depth);
      if (++ox == p.output_width) {
        ox = 0;
        if (++oy == p.output_height) {
          oy = 0;
          image += (ptrdiff_t)p.input_height * p.input_width * p.input_channels;
        }
      }
    }
    if (count == QCC_WIDE_PIXELS) {
      qcc_neon_wide_tile_of_4(&t, skip, output, at);
    } else {
      qcc_neon_wide_tile_of_1(&t, skip, output, at);
    }
    at += (ptrdiff_t)count * p.output_channels;
    pixels -= count;
  }
}

#endif
