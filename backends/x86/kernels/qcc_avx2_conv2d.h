/* 2-D convolution as an implicit matrix product, with requantization and a residual operand; over qcc_dot.
 *
 * input    int8[batch][input_height][input_width][input_channels]
 * skip     int8, shape of the output, or NULL
 * weights  qcc_weight[blocks][kernel_height][runs][ceil(run / QCC_GROUP)][vectors][8][QCC_GROUP]: blocks of 16 output channels (2
 *          vectors, in the order of qcc_avx2.h; a last block of 8 or fewer has 1), zero where there is no channel. A run is
 *          what lies side by side in the input: a whole kernel row, or one tap where dilation_width is not 1
 * bias     int32[output channels rounded up to 8 or 16], in the order of the vectors, with what activations as elements need
 *          and the zero_point of the input folded in
 * skip_multiplier  int32[the same], or NULL
 * scale    float[the same], certified
 * output   int8[batch][output_height][output_width][output_channels]; may be written over skip
 * workspace  the padded image under `band` rows of output as elements, and 4 bytes
 *
 * One group; any stride, dilation and padding. A band of the image is copied, padded and made into elements, then every
 * block of channels reads it from the first-level cache. A register tile is 6 pixels by 16 channels, or 12 by 8.
 * Reference: Conv2d.int_ref, Add.int_ref, Requantize.int_ref.
 */
#ifndef QCC_AVX2_CONV2D_H
#define QCC_AVX2_CONV2D_H

#include "qcc_avx2_image.h"

enum { QCC_MAX_ROWS = 12 };

/* A band as the tiles see it. */
typedef struct {
  const int8_t *data;
  ptrdiff_t line, pixel;    /* bytes from tap to tap downwards, from pixel to pixel */
  ptrdiff_t run_step;       /* bytes from run to run */
  int32_t runs, groups;     /* runs in a kernel row, groups of 32 bits in a run */
  int32_t kernel_height;
} qcc_band;

/* One tile: `rows` pixels by `vectors` * 8 channels, all taps; the first `valid` pixels are stored. */
QCC_INLINE void qcc_conv_tile(const int rows, const int vectors, const qcc_band *in, const ptrdiff_t *offset,
                              const qcc_weight *w, const int32_t *bias, const qcc_epilogue *e, ptrdiff_t first,
                              int32_t valid) {
  __m256i acc[QCC_MAX_ROWS + 1];
  QCC_UNROLL
  for (int i = 0; i < rows * vectors; ++i) {
    acc[i] = qcc_load(bias + 8 * (i % vectors));
  }
  const int8_t *line = in->data;
  for (int32_t a = 0; a < in->kernel_height; ++a, line += in->line) {
    const int8_t *run = line;
    for (int32_t b = 0; b < in->runs; ++b, run += in->run_step) {
      const int8_t *x[QCC_MAX_ROWS];
      QCC_UNROLL
      for (int r = 0; r < rows; ++r) {
        x[r] = run + offset[r];
      }
      for (int32_t k = 0; k < in->groups; ++k) {
        __m256i column[2];
        QCC_UNROLL
        for (int v = 0; v < vectors; ++v) {
          column[v] = qcc_weights(w + 8 * QCC_GROUP * v);
        }
        QCC_UNROLL
        for (int r = 0; r < rows; ++r) {
          int32_t word;
          __builtin_memcpy(&word, x[r] + (ptrdiff_t)4 * k, 4);
          const __m256i row = _mm256_set1_epi32(word);
          QCC_UNROLL
          for (int v = 0; v < vectors; ++v) {
            qcc_dot(&acc[r * vectors + v], row, column[v]);
          }
        }
        w += 8 * QCC_GROUP * vectors;
      }
    }
  }
  QCC_UNROLL
  for (int r = 0; r < rows; r += 2) {
    if (r < valid) {
      qcc_finish(vectors, e, acc + r * vectors, acc + (r + 1) * vectors, first + r, r + 1 < valid);
    }
  }
}

/* The same with the numbers of rows and vectors known to the compiler, so that the tile stays in registers. */
#define QCC_TILE(rows, vectors)                                                                                    \
  static void qcc_tile_##rows##x##vectors(const qcc_band *in, const ptrdiff_t *offset, const qcc_weight *w,            \
                                          const int32_t *bias, const qcc_epilogue *e, ptrdiff_t first, int32_t valid) { \
    qcc_conv_tile(rows, vectors, in, offset, w, bias, e, first, valid);                                            \
  }
QCC_TILE(6, 2)
QCC_TILE(4, 2)
QCC_TILE(2, 2)
QCC_TILE(12, 1)
QCC_TILE(6, 1)
QCC_TILE(2, 1)

/* `count` pixels, a row of `width` after the other, of one block of channels. */
static void qcc_conv_block(const int vectors, const qcc_avx2_conv2d_params *p, const qcc_band *in, ptrdiff_t row_step,
                           int32_t count, const qcc_weight *w, const int32_t *bias, const qcc_epilogue *e) {
  int32_t oy = 0, ox = 0, rows;
  for (int32_t first = 0; first < count; first += rows) {
    const int32_t left = count - first;
    ptrdiff_t offset[QCC_MAX_ROWS];
    if (vectors == 1) {
      rows = left > 6 ? 12 : left > 2 ? 6 : 2;
    } else {
      rows = left > 4 ? 6 : left > 2 ? 4 : 2;
    }
    for (int32_t r = 0; r < rows; ++r) {
      offset[r] = oy * row_step + ox * p->stride_width * in->pixel;
      if (first + r < count - 1 && ++ox == p->output_width) { /* rows beyond the last pixel repeat it */
        ox = 0;
        ++oy;
      }
    }
    switch (rows * vectors == 12 ? vectors : 8 * vectors + rows) {
      case 1: qcc_tile_12x1(in, offset, w, bias, e, first, left); break;
      case 2: qcc_tile_6x2(in, offset, w, bias, e, first, left); break;
      case 8 + 6: qcc_tile_6x1(in, offset, w, bias, e, first, left); break;
      case 8 + 2: qcc_tile_2x1(in, offset, w, bias, e, first, left); break;
      case 16 + 4: qcc_tile_4x2(in, offset, w, bias, e, first, left); break;
      default: qcc_tile_2x2(in, offset, w, bias, e, first, left); break;
    }
  }
}

QCC_INLINE void qcc_conv2d(const qcc_avx2_conv2d_params *p, const int8_t *input, const int8_t *skip,
                           const qcc_weight *weights, const int32_t *bias, const int32_t *skip_multiplier,
                           const float *scale, int8_t *output, int8_t *workspace) {
  const int32_t width = qcc_reach(p->output_width, p->stride_width, p->kernel_width, p->dilation_width);
  const ptrdiff_t pixel = (ptrdiff_t)QCC_ELEMENT_BYTES * p->input_channels;
  const int32_t taps = p->dilation_width == 1 ? p->kernel_width : 1; /* in a run */
  qcc_band in;
  in.data = workspace;
  in.pixel = pixel;
  in.line = p->dilation_height * width * pixel;
  in.runs = p->kernel_width / taps;
  in.run_step = p->dilation_width * pixel;
  in.groups = (taps * p->input_channels + QCC_GROUP - 1) / QCC_GROUP;
  in.kernel_height = p->kernel_height;
  const ptrdiff_t vector = (ptrdiff_t)p->kernel_height * in.runs * in.groups * 8 * QCC_GROUP;
  const qcc_output saturation = qcc_saturation(p->output_zero_point, p->low, p->high);
  const ptrdiff_t image = (ptrdiff_t)p->input_height * p->input_width * p->input_channels;
  for (int32_t n = 0; n < p->batch; ++n, input += image) {
    for (int32_t y = 0; y < p->output_height; y += p->band) {
      const int32_t rows = p->output_height - y < p->band ? p->output_height - y : p->band;
      const int32_t height = qcc_reach(rows, p->stride_height, p->kernel_height, p->dilation_height);
      const ptrdiff_t start = ((ptrdiff_t)n * p->output_height + y) * p->output_width * p->output_channels;
      qcc_copy_padded(QCC_ELEMENT_BYTES, p, input, workspace, y * p->stride_height, height, width);
      qcc_fill(1, workspace + height * width * pixel, 0, 4); /* a last group may read it */
      const qcc_weight *w = weights;
      for (int32_t o = 0; o < p->output_channels; o += 16) {
        const int32_t left = p->output_channels - o;
        const qcc_epilogue e = {scale + o,
                                skip_multiplier ? skip_multiplier + o : NULL,
                                skip ? skip + start + o : NULL,
                                output + start + o,
                                p->output_channels,
                                left < 16 ? left : 16,
                                p->skip_zero_point,
                                saturation};
        if (left > 8) {
          qcc_conv_block(2, p, &in, p->stride_height * width * pixel, rows * p->output_width, w, bias + o, &e);
        } else {
          qcc_conv_block(1, p, &in, p->stride_height * width * pixel, rows * p->output_width, w, bias + o, &e);
        }
        w += vector * (left > 8 ? 2 : 1);
      }
    }
  }
}

#endif
