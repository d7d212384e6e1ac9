/* 2-D convolution as an implicit matrix product, with requantization and a residual operand; over qcc_dot.
 *
 * input    int8[batch][input_height][input_width][input_channels]
 * skip     int8, as the output, or NULL
 * weights  int8[blocks][kernel_height][runs][quads][vectors][16]: blocks of 16 output channels (4 vectors; the last block has
 *          as many as it needs), zero where there is no channel. A run is what lies side by side in the input: a whole
 *          kernel row, or one tap where dilation_width is not 1. 16 bytes are four taps of four channels, in the order of
 *          qcc_dot. The last quads of a run (one to four) are the last ones of the 16 bytes at its end; bytes
 *          that an earlier quad has too meet zeros there
 * bias     int32[output channels rounded up to 4], the zero_points of the input and of skip folded in
 * skip_multiplier  int32[the same], or NULL
 * scale    int32[the same / 4][2][4], see qcc_neon.h
 * output   int8[batch][output_height][output_width], pixels output_step bytes apart; may be written over skip
 * workspace  where there is padding, or a run has less than 16 bytes: 16 bytes, the image as the taps reach it, and 4 bytes
 *
 * One group; any stride, dilation and padding. A tile is up to 5 pixels of one line by 16 channels, all taps, then
 * requantization: 20 vectors of sums, 5 of activations, of which one lane meets each vector of weights, and 4 of weights.
 * Where there is no padding, 1x1 windows see the image as one line.
 * Reference: Conv2d.int_ref, Dense.int_ref, Add.int_ref, Requantize.int_ref.
 */
#ifndef QCC_NEON_CONV2D_H
#define QCC_NEON_CONV2D_H

#include "qcc_neon_tiles.h"

#if defined(__aarch64__)
#define QCC_CONV_ROWS 5
#define QCC_CONV_EACH_ROWS(form, vectors) \
  form(1, vectors) form(2, vectors) form(3, vectors) form(4, vectors) form(5, vectors)
#else
#define QCC_CONV_ROWS 2
#define QCC_CONV_EACH_ROWS(form, vectors) form(1, vectors) form(2, vectors)
#endif

/* A quad of all pixels. The next one's weights wait for its last sum: loaded earlier, they would take registers from sums. */
#define QCC_QUAD(lane)                                                      \
  do {                                                                      \
    int8x16_t column[4];                                                    \
    w = qcc_load_vectors(vectors, column, w);                               \
    QCC_UNROLL                                                              \
    for (int r = 0; r < rows; ++r) {                                        \
      qcc_dot(vectors, acc + 4 * r, column, x[r], lane);                    \
    }                                                                       \
    __asm__("" : "+r"(w), "+w"(acc[4 * (rows - 1) + vectors - 1]));         \
  } while (0)

/* `tiles` tiles side by side in each of `lines` lines. */
QCC_INLINE void qcc_conv_tiles(const int rows, const int vectors, const qcc_conv_image *shared, const int8_t *first,
                               const int8_t *first_skip, int8_t *first_output, int32_t tiles, int32_t lines) {
  const qcc_conv_image image = *shared; /* in registers: stores of bytes might change what is in memory */
  for (; lines > 0; --lines, first += image.row, first_output += image.output_row) {
    const int8_t *start = first, *skip = first_skip;
    int8_t *output = first_output;
    for (int32_t tile = tiles; tile > 0; --tile, start += rows * image.pixel) {
      int32x4_t acc[4 * QCC_CONV_ROWS];
      QCC_UNROLL
      for (int r = 0; r < rows; ++r) {
        const int32_t *bias = image.bias;
        __asm__ volatile("" : "+r"(bias)); /* two vectors in one load take the place of two moves */
        QCC_UNROLL
        for (int v = 0; v < vectors; ++v) {
          acc[4 * r + v] = vld1q_s32(bias + 4 * v);
        }
      }
      const int8_t *w = image.weights, *run = start;
      const ptrdiff_t pixel = image.pixel;
      int32_t left = image.runs;
      for (int32_t i = image.all_runs; i > 0; --i) {
        int8x16_t x[QCC_CONV_ROWS];
        const int8_t *from = run;
        for (int32_t k = image.chunks; k > 0; --k, from += 16) {
          QCC_UNROLL
          for (int r = 0; r < rows; ++r) {
            x[r] = vld1q_s8(from + r * pixel);
          }
          QCC_QUAD(0);
          QCC_QUAD(1);
          QCC_QUAD(2);
          QCC_QUAD(3);
        }
        if (image.groups) {
          from = run + image.tail;
          QCC_UNROLL
          for (int r = 0; r < rows; ++r) {
            x[r] = vld1q_s8(from + r * pixel);
          }
          if (image.groups == 4) {
            QCC_QUAD(0);
          }
          if (image.groups >= 3) {
            QCC_QUAD(1);
          }
          if (image.groups >= 2) {
            QCC_QUAD(2);
          }
          QCC_QUAD(3);
        }
        run += image.run_step;
        if (--left == 0) {
          run += image.line_step;
          left = image.runs;
        }
      }
      if (skip) {
        int8x16_t x[QCC_CONV_ROWS];
        QCC_UNROLL
        for (int r = 0; r < rows; ++r, skip += image.output_step) {
          x[r] = qcc_load_bytes(skip, image.channels);
        }
        QCC_UNROLL
        for (int v = 0; v < vectors; ++v) {
          const int32x4_t multiplier = vld1q_s32(image.skip_multiplier + 4 * v);
          QCC_UNROLL
          for (int r = 0; r < rows; ++r) {
            acc[4 * r + v] = vmlaq_s32(acc[4 * r + v], qcc_widened(x[r], v), multiplier);
          }
        }
      }
      QCC_UNROLL
      for (int v = 0; v < vectors; ++v) {
        const int32x4_t m = vld1q_s32(image.scale + 8 * v), k = vld1q_s32(image.scale + 8 * v + 4);
        QCC_UNROLL
        for (int r = 0; r < rows; ++r) {
          acc[4 * r + v] = qcc_scaled(acc[4 * r + v], m, k);
        }
      }
      int8x16_t y[QCC_CONV_ROWS];
      QCC_UNROLL
      for (int r = 0; r < rows; ++r) {
        const int32x4_t *q = acc + 4 * r, last = q[vectors - 1];
        y[r] = qcc_narrowed(q[0], vectors > 1 ? q[1] : last, vectors > 2 ? q[2] : last, last, 0, image.saturation);
      }
      qcc_store_tile(rows, vectors, &image, y, output);
      output += rows * image.output_step;
    }
    if (first_skip) {
      first_skip += image.output_row;
    }
  }
}

typedef void qcc_conv_function(const qcc_conv_image *, const int8_t *, const int8_t *, int8_t *, int32_t, int32_t);

/* The same with sizes known to the compiler, so that the sums stay in registers. */
#define QCC_CONV_FUNCTION(rows, vectors)                                                                         \
  static void tiles_##rows##x##vectors(const qcc_conv_image *image, const int8_t *start, const int8_t *skip,     \
                                       int8_t *output, int32_t tiles, int32_t lines) {                           \
    qcc_conv_tiles(rows, vectors, image, start, skip, output, tiles, lines);                                     \
  }
#define QCC_CONV_NAME(rows, vectors) tiles_##rows##x##vectors,
#define QCC_CONV_SIZES(vectors)                                                                                  \
  QCC_CONV_EACH_ROWS(QCC_CONV_FUNCTION, vectors)                                                                 \
  static qcc_conv_function *const tiles_of_##vectors[QCC_CONV_ROWS] = {QCC_CONV_EACH_ROWS(QCC_CONV_NAME, vectors)};
QCC_CONV_SIZES(1)
QCC_CONV_SIZES(2)
QCC_CONV_SIZES(3)
QCC_CONV_SIZES(4)

/* `lines` lines of output pixels: tiles that differ by one pixel at most. */
static void qcc_conv_lines(int32_t vectors, const qcc_conv_image *image, const int8_t *start, const int8_t *skip,
                           int8_t *output, int32_t width, int32_t lines) {
  qcc_conv_function *const *sizes =
      vectors == 4 ? tiles_of_4 : vectors == 3 ? tiles_of_3 : vectors == 2 ? tiles_of_2 : tiles_of_1;
  const int32_t tiles = (width + QCC_CONV_ROWS - 1) / QCC_CONV_ROWS;
  const int32_t few = width / tiles, more = width % tiles; /* `more` tiles have few + 1 pixels */
  if (more) {
    const ptrdiff_t pixels = (ptrdiff_t)more * (few + 1);
    sizes[few](image, start, skip, output, more, lines);
    start += pixels * image->pixel;
    output += pixels * image->output_step;
    if (skip) {
      skip += pixels * image->output_step;
    }
  }
  sizes[few - 1](image, start, skip, output, tiles - more, lines);
}

#endif
