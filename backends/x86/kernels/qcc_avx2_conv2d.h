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
#include "qcc_regions.h"

enum { QCC_MAX_ROWS = 12 };

/* Pixels of the output that need the same taps, as the tiles see them. */
typedef struct {
  const int8_t *data;       /* the first tap of the first pixel */
  ptrdiff_t line, pixel;    /* bytes from tap to tap downwards, from pixel to pixel */
  ptrdiff_t run_step;       /* bytes from run to run */
  int32_t runs, groups;     /* runs in a kernel row, groups of 32 bits in a run */
  int32_t left_out;         /* groups of a kernel row that meet nothing but zeros */
  int32_t kernel_height;
  int32_t width, next;      /* pixels of a row, and of a row of the output */
} qcc_region;

/* One tile: `rows` pixels by `vectors` * 8 channels, all taps; the first `valid` pixels are stored. */
QCC_INLINE void qcc_conv_tile(const int rows, const int vectors, const qcc_region *in, const ptrdiff_t *offset,
                              const ptrdiff_t *place, const qcc_weight *w, const int32_t *bias, const qcc_epilogue *e,
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
    w += 8 * QCC_GROUP * vectors * (ptrdiff_t)in->left_out;
  }
  QCC_UNROLL
  for (int r = 0; r < rows; r += 2) {
    if (r < valid) {
      qcc_finish(vectors, e, acc + r * vectors, acc + (r + 1) * vectors, place[r], place[r + 1], r + 1 < valid);
    }
  }
}

/* The same with the numbers of rows and vectors known to the compiler, so that the tile stays in registers. */
#define QCC_TILE(rows, vectors)                                                                                    \
  static void qcc_tile_##rows##x##vectors(const qcc_region *in, const ptrdiff_t *offset, const ptrdiff_t *place,           \
                                          const qcc_weight *w, const int32_t *bias, const qcc_epilogue *e,             \
                                          int32_t valid) {                                                             \
    qcc_conv_tile(rows, vectors, in, offset, place, w, bias, e, valid);                                                \
  }
QCC_TILE(6, 2)
QCC_TILE(4, 2)
QCC_TILE(2, 2)
QCC_TILE(12, 1)
QCC_TILE(6, 1)
QCC_TILE(2, 1)

/* `count` pixels, a row of `width` after the other, of one block of channels; start: the first in the output. */
static void qcc_conv_block(const int vectors, const qcc_avx2_conv2d_params *p, const qcc_region *in, ptrdiff_t row_step,
                           int32_t count, int32_t start, const qcc_weight *w, const int32_t *bias,
                           const qcc_epilogue *e) {
  const ptrdiff_t wrap = row_step - in->width * p->stride_width * in->pixel;
  ptrdiff_t from = 0, to = start * e->step;
  int32_t column = 0, rows;
  for (int32_t first = 0; first < count; first += rows) {
    const int32_t left = count - first;
    ptrdiff_t offset[QCC_MAX_ROWS];
    ptrdiff_t place[QCC_MAX_ROWS];
    if (vectors == 1) {
      rows = left > 6 ? 12 : left > 2 ? 6 : 2;
    } else {
      rows = left > 4 ? 6 : left > 2 ? 4 : 2;
    }
    for (int32_t r = 0; r < rows; ++r) {
      offset[r] = from;
      place[r] = to;
      if (first + r < count - 1) { /* rows beyond the last pixel repeat it */
        const int ends = ++column == in->width;
        column = ends ? 0 : column;
        from += p->stride_width * in->pixel + (ends ? wrap : 0);
        to += e->step + (ends ? e->step * (in->next - in->width) : 0);
      }
    }
    switch (rows * vectors == 12 ? vectors : 8 * vectors + rows) {
      case 1: qcc_tile_12x1(in, offset, place, w, bias, e, left); break;
      case 2: qcc_tile_6x2(in, offset, place, w, bias, e, left); break;
      case 8 + 6: qcc_tile_6x1(in, offset, place, w, bias, e, left); break;
      case 8 + 2: qcc_tile_2x1(in, offset, place, w, bias, e, left); break;
      case 16 + 4: qcc_tile_4x2(in, offset, place, w, bias, e, left); break;
      default: qcc_tile_2x2(in, offset, place, w, bias, e, left); break;
    }
  }
}

QCC_INLINE void qcc_conv2d(const qcc_avx2_conv2d_params *p, const int8_t *input, const int8_t *skip,
                           const qcc_weight *weights, const int32_t *bias, const int32_t *skip_multiplier,
                           const float *scale, int8_t *output, int8_t *workspace) {
  const int32_t width = qcc_reach(p->output_width, p->stride_width, p->kernel_width, p->dilation_width);
  const ptrdiff_t pixel = (ptrdiff_t)QCC_ELEMENT_BYTES * p->input_channels;
  const int32_t taps = p->dilation_width == 1 ? p->kernel_width : 1; /* in a run */
  const int32_t runs = p->kernel_width / taps, groups = (taps * p->input_channels + QCC_GROUP - 1) / QCC_GROUP;
  const ptrdiff_t line = width * pixel; /* of the image */
  const ptrdiff_t vector = (ptrdiff_t)p->kernel_height * runs * groups * 8 * QCC_GROUP;
  qcc_region in;
  qcc_band row[3], column[3];
  in.pixel = pixel;
  in.line = p->dilation_height * line;
  in.runs = runs;
  in.run_step = p->dilation_width * pixel;
  in.next = p->output_width;
  qcc_whole(row, p->output_height, p->kernel_height);
  qcc_whole(column, p->output_width, p->kernel_width);
  if (QCC_ELEMENT_BYTES == 2 || p->pad_value == -128) { /* as an element, the padding is 0 */
    qcc_bands(row, p->output_height, p->input_height, p->stride_height, p->kernel_height, p->dilation_height, p->pad_top);
    if (runs == 1 && p->input_channels % QCC_GROUP == 0) {
      qcc_bands(column, p->output_width, p->input_width, p->stride_width, p->kernel_width, 1, p->pad_left);
    }
  }
  const qcc_output saturation = qcc_saturation(p->output_zero_point, p->low, p->high);
  const ptrdiff_t image = (ptrdiff_t)p->input_height * p->input_width * p->input_channels;
  for (int32_t n = 0; n < p->batch; ++n, input += image) {
    for (int32_t y = 0; y < p->output_height; y += p->band) {
      const int32_t rows = p->output_height - y < p->band ? p->output_height - y : p->band;
      const int32_t height = qcc_reach(rows, p->stride_height, p->kernel_height, p->dilation_height);
      const ptrdiff_t start = ((ptrdiff_t)n * p->output_height + y) * p->output_width * p->output_channels;
      qcc_copy_padded(QCC_ELEMENT_BYTES, p, input, workspace, y * p->stride_height, height, width, p->pad_value);
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
        for (int k = 0; k < 9; ++k) {
          const int i = (k + 4) % 9; /* the most pixels first: the weights come to the cache */
          const int32_t first = row[i / 3].first > y ? row[i / 3].first - y : 0;
          const int32_t end = row[i / 3].first + row[i / 3].count - y, count = (end < rows ? end : rows) - first;
          const qcc_band *r = row + i / 3, *c = column + i % 3;
          const int32_t place = first * p->output_width + c->first;
          if (count <= 0 || c->count == 0) {
            continue;
          }
          in.data = workspace + (first * p->stride_height + r->tap * p->dilation_height) * line +
                    (c->first * p->stride_width + c->tap) * pixel;
          in.kernel_height = r->taps;
          in.groups = c->taps == p->kernel_width ? groups : c->taps * p->input_channels / QCC_GROUP;
          in.left_out = runs * (groups - in.groups);
          in.width = c->count;
          const ptrdiff_t skipped = (ptrdiff_t)r->tap * runs * groups + c->tap * p->input_channels / QCC_GROUP;
          const int vectors = left > 8 ? 2 : 1;
          const qcc_weight *from = w + skipped * 8 * QCC_GROUP * vectors;
          if (vectors == 2) {
            qcc_conv_block(2, p, &in, p->stride_height * line, count * c->count, place, from, bias + o, &e);
          } else {
            qcc_conv_block(1, p, &in, p->stride_height * line, count * c->count, place, from, bias + o, &e);
          }
        }
        w += vector * (left > 8 ? 2 : 1);
      }
    }
  }
}

#endif
