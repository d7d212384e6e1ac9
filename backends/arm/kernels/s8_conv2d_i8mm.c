/* s8_conv2d_i8mm: 2-D convolution and dense layers as an implicit matrix product, with requantization and a residual operand.
 *
 * input    int8[batch][input_height][input_width][input_channels]
 * skip     int8, as the output, or NULL
 * weights  int8[blocks][kernel_height][runs][halves][2 * vectors][2][8]: blocks of 16 output channels (4 vectors of four
 *          channels; the last block has as many as it needs), zero where there is no channel; 16 bytes are eight taps of two
 *          channels. A run is what lies side by side in the input: a whole kernel row, or one tap where dilation_width is
 *          not 1; its last halves (one or two) are those of the 16 bytes at its end; bytes that an earlier one has too
 *          meet zeros there
 * bias     int32[output channels rounded up to 4 / 2][4]: two channels, and the same again for the second pixel; the
 *          zero_points of the input and of skip folded in
 * skip_multiplier  int32[the same], or NULL
 * scale    int32[the same / 4][2][4], see qcc_neon.h
 * output   int8[batch][output_height][output_width], pixels output_step bytes apart; may be written over skip
 * workspace  where there is padding, or a run has less than 16 bytes: 16 bytes, the image as the taps reach it, and 16 bytes
 *
 * One group; any stride, dilation and padding. smmla multiplies eight taps of two pixels by those of two channels: a tile is
 * up to 4 pixels of one line by 16 channels. Where there is no padding, 1x1 windows see the image as one line.
 * Reference: Conv2d.int_ref, Dense.int_ref, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_neon_tiles.h"

#if !defined(__ARM_FEATURE_MATMUL_INT8)
#error "this library needs a processor with int8 matrix products: compile with -march=armv8.2-a+dotprod+i8mm"
#endif

enum { MOST_ROWS = 4 };

QCC_INLINE int8x16_t pairs(int8x16_t a, int8x16_t b, const int high) {
  const int64x2_t x = vreinterpretq_s64_s8(a), y = vreinterpretq_s64_s8(b);
  return vreinterpretq_s8_s64(high ? vzip2q_s64(x, y) : vzip1q_s64(x, y));
}

/* Eight taps of `two` pairs of pixels by 4 * vectors channels; returns the next weights. */
QCC_INLINE const int8_t *add_half(const int two, const int vectors, int32x4_t *acc, const int8x16_t *x, const int8_t *w,
                                  const int high) {
  const int8x16_t first = pairs(x[0], x[1], high), second = two ? pairs(x[2], x[3], high) : first;
  QCC_UNROLL
  for (int j = 0; j < 2 * vectors; j += 4) {
    const int some = 2 * vectors - j < 4 ? 2 * vectors - j : 4;
    int8x16_t column[4];
    w = qcc_load_vectors(some, column, w);
    __asm__("" : "+r"(w)); /* the load itself moves w on */
    QCC_UNROLL
    for (int i = 0; i < some; ++i) {
      acc[j + i] = vmmlaq_s32(acc[j + i], first, column[i]);
      if (two) {
        acc[8 + j + i] = vmmlaq_s32(acc[8 + j + i], second, column[i]);
      }
    }
  }
  return w;
}

QCC_INLINE void load_rows(const int rows, int8x16_t *x, const int8_t *from, ptrdiff_t pixel) {
  QCC_UNROLL
  for (int r = 0; r < MOST_ROWS; ++r) { /* the last pixel stands for those that do not exist */
    x[r] = vld1q_s8(from + (r < rows ? r : rows - 1) * pixel);
  }
}

/* Bytes of two pixels to the order of the sums: channels 0 to 7 (high: 8 to 15), two of each pixel in turn. */
QCC_INLINE int8x16_t in_turn(int8x16_t a, int8x16_t b, const int high) {
  const int16x8_t x = vreinterpretq_s16_s8(a), y = vreinterpretq_s16_s8(b);
  return vreinterpretq_s8_s16(high ? vzip2q_s16(x, y) : vzip1q_s16(x, y));
}

/* `tiles` tiles side by side in each of `lines` lines. */
QCC_INLINE void conv_tiles(const int rows, const int vectors, const qcc_conv_image *shared, const int8_t *first,
                           const int8_t *first_skip, int8_t *first_output, int32_t tiles, int32_t lines) {
  const qcc_conv_image image = *shared; /* in registers: stores of bytes might change what is in memory */
  const int two = rows > 2;
  for (; lines > 0; --lines, first += image.row, first_output += image.output_row) {
    const int8_t *start = first, *skip = first_skip;
    int8_t *output = first_output;
    for (int32_t tile = tiles; tile > 0; --tile, start += rows * image.pixel) {
      int32x4_t acc[16];
      QCC_UNROLL
      for (int p = 0; p <= two; ++p) {
        const int32_t *bias = image.bias;
        __asm__ volatile("" : "+r"(bias)); /* two vectors in one load take the place of two moves */
        QCC_UNROLL
        for (int j = 0; j < 2 * vectors; ++j) {
          acc[8 * p + j] = vld1q_s32(bias + 4 * j);
        }
      }
      const int8_t *w = image.weights, *run = start;
      const ptrdiff_t pixel = image.pixel;
      int32_t left = image.runs;
      for (int32_t i = image.all_runs; i > 0; --i) {
        int8x16_t x[MOST_ROWS];
        const int8_t *from = run;
        for (int32_t k = image.chunks; k > 0; --k, from += 16) {
          load_rows(rows, x, from, pixel);
          w = add_half(two, vectors, acc, x, w, 0);
          w = add_half(two, vectors, acc, x, w, 1);
        }
        if (image.groups) {
          load_rows(rows, x, run + image.tail, pixel);
          if (image.groups == 2) {
            w = add_half(two, vectors, acc, x, w, 0);
          }
          w = add_half(two, vectors, acc, x, w, 1);
        }
        run += image.run_step;
        if (--left == 0) {
          run += image.line_step;
          left = image.runs;
        }
      }
      if (skip) {
        QCC_UNROLL
        for (int p = 0; p <= two; ++p) {
          int8x16_t x[2];
          QCC_UNROLL
          for (int r = 0; r < 2; ++r) {
            x[r] = qcc_load_bytes(skip, image.channels);
            skip += 2 * p + r < rows - 1 ? image.output_step : 0;
          }
          const int8x16_t turns[2] = {in_turn(x[0], x[1], 0), in_turn(x[0], x[1], 1)};
          QCC_UNROLL
          for (int j = 0; j < 2 * vectors; ++j) {
            const int32x4_t multiplier = vld1q_s32(image.skip_multiplier + 4 * j);
            acc[8 * p + j] = vmlaq_s32(acc[8 * p + j], qcc_widened(turns[j / 4], j % 4), multiplier);
          }
        }
        skip += image.output_step;
      }
      QCC_UNROLL
      for (int j = 0; j < 2 * vectors; ++j) {
        const int32x4_t m = vld1q_s32(image.scale + 8 * j), k = vld1q_s32(image.scale + 8 * j + 4);
        QCC_UNROLL
        for (int p = 0; p <= two; ++p) {
          acc[8 * p + j] = qcc_scaled(acc[8 * p + j], m, k);
        }
      }
      int8x16_t y[MOST_ROWS];
      QCC_UNROLL
      for (int p = 0; p <= two; ++p) {
        const int32x4_t *q = acc + 8 * p;
        const int last = 2 * vectors - 1;
        const int8x16_t low = qcc_narrowed(q[0], q[1], q[vectors > 1 ? 2 : 0], q[vectors > 1 ? 3 : 1], 0, image.saturation);
        int8x16_t high = low;
        if (vectors > 2) {
          high = qcc_narrowed(q[4], q[5], q[last - 1], q[last], 0, image.saturation);
        }
        y[2 * p] = vreinterpretq_s8_s16(vuzp1q_s16(vreinterpretq_s16_s8(low), vreinterpretq_s16_s8(high)));
        y[2 * p + 1] = vreinterpretq_s8_s16(vuzp2q_s16(vreinterpretq_s16_s8(low), vreinterpretq_s16_s8(high)));
      }
      qcc_store_tile(rows, vectors, &image, y, output);
      output += rows * image.output_step;
    }
    if (first_skip) {
      first_skip += image.output_row;
    }
  }
}

typedef void conv_function(const qcc_conv_image *, const int8_t *, const int8_t *, int8_t *, int32_t, int32_t);

/* The same with sizes known to the compiler, so that the sums stay in registers. */
#define CONV_FUNCTION(rows, vectors)                                                                                      \
  static void tiles_##rows##x##vectors(const qcc_conv_image *image, const int8_t *start, const int8_t *skip, int8_t *output, \
                                       int32_t tiles, int32_t lines) {                                                    \
    conv_tiles(rows, vectors, image, start, skip, output, tiles, lines);                                                  \
  }
#define CONV_SIZES(vectors)                                                                               \
  CONV_FUNCTION(1, vectors) CONV_FUNCTION(2, vectors) CONV_FUNCTION(3, vectors) CONV_FUNCTION(4, vectors) \
  static conv_function *const tiles_of_##vectors[MOST_ROWS] = {tiles_1x##vectors, tiles_2x##vectors,      \
                                                               tiles_3x##vectors, tiles_4x##vectors};
CONV_SIZES(1)
CONV_SIZES(2)
CONV_SIZES(3)
CONV_SIZES(4)

/* `lines` lines of output pixels: whole tiles, then a smaller one. */
static void conv_lines(int32_t vectors, const qcc_conv_image *image, const int8_t *start, const int8_t *skip, int8_t *output,
                       int32_t width, int32_t lines) {
  conv_function *const *sizes =
      vectors == 4 ? tiles_of_4 : vectors == 3 ? tiles_of_3 : vectors == 2 ? tiles_of_2 : tiles_of_1;
  const int32_t tiles = width / MOST_ROWS, rest = width % MOST_ROWS;
  if (tiles) {
    sizes[MOST_ROWS - 1](image, start, skip, output, tiles, lines);
  }
  if (rest) {
    const ptrdiff_t done = (ptrdiff_t)tiles * MOST_ROWS;
    sizes[rest - 1](image, start + done * image->pixel, skip ? skip + done * image->output_step : NULL,
                    output + done * image->output_step, 1, lines);
  }
}

void qcc_s8_conv2d_i8mm(const qcc_neon_conv2d_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                        const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                        const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT scale, int8_t *output,
                        void *workspace) {
  qcc_conv_blocks(8, 2, conv_lines, params, input, skip, weights, bias, skip_multiplier, scale, output,
                  (int8_t *)workspace);
}
