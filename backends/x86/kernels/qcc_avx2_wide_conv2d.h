/* 2-D convolution and dense layers with tensors of 8 or 16 bits, with requantization and a residual operand; over qcc_dot16.
 *
 * input    int8 or int16 [batch][input_height][input_width][input_channels]
 * skip     int8 or int16, shape of the output, or NULL
 * weights  int8[blocks][kernel_height][runs][ceil(run / 2)][vectors][8][2]: blocks of `vectors` * 8 output channels, and what
 *          is left over in blocks of 4, 2 and 1 vectors; zero where there is no channel. A run is what lies side by side in
 *          the input: a whole kernel row, or one tap where dilation_width is not 1
 * bias     int32[output channels rounded up to 8 or 16], in the order of qcc_avx2.h, all zero_points folded in
 * skip_multiplier  int32[the same], or NULL
 * multiplier, shift  int32[the same], see qcc_requantize.h
 * output   int8 or int16 [batch][output_height][output_width][output_channels]; may be written over a skip of its type
 * workspace  the padded image under `band` rows of output as int16, and 4 bytes
 *
 * One group; any stride, dilation and padding. A band of the image is copied, padded and widened, then every block of
 * channels reads it from the first-level cache. A register tile is 6 pixels by 16 channels, or 12 by 8; where there is one
 * pixel, up to 64 channels.
 * Accumulator: int32, wraps around; the compiler proves where it ends, with the residual operand.
 * Reference: Conv2d.int_ref, Dense.int_ref, Add.int_ref, Requantize.int_ref.
 */
#ifndef QCC_AVX2_WIDE_CONV2D_H
#define QCC_AVX2_WIDE_CONV2D_H

#include "qcc_avx2_wide.h"

enum { QCC_WIDE_ROWS = 12, QCC_WIDE_VECTORS = 8 };

/* A band as the tiles see it. */
typedef struct {
  const int16_t *data;
  ptrdiff_t line, pixel; /* elements from tap to tap downwards, from pixel to pixel */
  ptrdiff_t row;         /* from row of output to row of output */
  ptrdiff_t run_step;    /* from run to run */
  int32_t lines, runs, words;
  int32_t width, count; /* output pixels of a row, and all */
} qcc_wide_band;

/* The constants of a block of channels, and where its results go. */
typedef struct {
  const int8_t *weights;
  const int32_t *bias, *skip_multiplier;
  const void *skip;
  void *output;
  ptrdiff_t at, step; /* element of the first pixel, and from pixel to pixel */
  int32_t channels;
  qcc_wide_output saturation;
  qcc_wide_scale scale[QCC_WIDE_VECTORS];
} qcc_wide_block;

/* One tile: `rows` pixels by `vectors` * 8 channels, all taps; the first `valid` pixels are stored. */
QCC_INLINE void qcc_wide_tile(const int rows, const int vectors, const qcc_wide_band *in, const ptrdiff_t *offset,
                              const qcc_wide_block *block, int32_t first, int32_t valid) {
  __m256i acc[QCC_WIDE_ROWS];
  const int8_t *w = block->weights;
  QCC_UNROLL
  for (int i = 0; i < rows * vectors; ++i) {
    acc[i] = qcc_load(block->bias + 8 * (i % vectors));
  }
  const int16_t *line = in->data;
  for (int32_t a = 0; a < in->lines; ++a, line += in->line) {
    const int16_t *run = line;
    for (int32_t b = 0; b < in->runs; ++b, run += in->run_step) {
      const int16_t *x[QCC_WIDE_ROWS];
      QCC_UNROLL
      for (int r = 0; r < rows; ++r) {
        x[r] = run + offset[r];
      }
      for (int32_t k = 0; k < in->words; ++k, w += 16 * vectors) {
        __m256i column[QCC_WIDE_VECTORS];
        QCC_UNROLL
        for (int v = 0; v < vectors; ++v) {
          column[v] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(w + 16 * v)));
        }
        QCC_UNROLL
        for (int r = 0; r < rows; ++r) {
          int32_t word;
          __builtin_memcpy(&word, x[r] + (ptrdiff_t)2 * k, 4);
          const __m256i row = _mm256_set1_epi32(word);
          QCC_UNROLL
          for (int v = 0; v < vectors; ++v) {
            qcc_dot16(&acc[r * vectors + v], row, column[v]);
          }
        }
      }
    }
  }
  __m256i sums[QCC_WIDE_ROWS]; /* in memory: calls below would have gcc 12 keep some of them there in the loops above */
  QCC_UNROLL
  for (int i = 0; i < rows * vectors; ++i) {
    qcc_store(sums + i, acc[i]);
  }
  for (int r = 0; r < rows && r < valid; ++r) {
    QCC_UNROLL
    for (int v = 0; v < vectors; v += 2) {
      const int pair = vectors == 1 ? 1 : 2;
      const ptrdiff_t at = block->at + (first + r) * block->step + 8 * v;
      const int32_t left = block->channels - 8 * v;
      if (block->skip) {
        const __m256i x = qcc_wide_loads(block->skip, at, block->saturation.skip_bytes, left);
        qcc_wide_add(pair, sums + r * vectors + v, x, block->skip_multiplier + 8 * v);
      }
      qcc_wide_put(pair, sums + r * vectors + v, block->scale + v, &block->saturation, block->output, at, left);
    }
  }
}

/* The same with the numbers of rows and vectors known to the compiler, so that the tile stays in registers. */
#define QCC_WIDE_TILE(rows, vectors)                                                                               \
  static void qcc_wide_tile_##rows##x##vectors(const qcc_wide_band *in, const ptrdiff_t *offset,                   \
                                               const qcc_wide_block *block, int32_t first, int32_t valid) {        \
    qcc_wide_tile(rows, vectors, in, offset, block, first, valid);                                                 \
  }
QCC_WIDE_TILE(6, 2)
QCC_WIDE_TILE(4, 2)
QCC_WIDE_TILE(2, 2)
QCC_WIDE_TILE(12, 1)
QCC_WIDE_TILE(6, 1)
QCC_WIDE_TILE(2, 1)
QCC_WIDE_TILE(1, 8)
QCC_WIDE_TILE(1, 4)
QCC_WIDE_TILE(1, 2)
QCC_WIDE_TILE(1, 1)

/* All pixels of a band, a row after the other, of a block of 1 or 2 vectors. */
static void qcc_wide_pixels(const int vectors, const qcc_wide_band *in, int32_t stride_width, const qcc_wide_block *block) {
  int32_t oy = 0, ox = 0, rows;
  for (int32_t first = 0; first < in->count; first += rows) {
    const int32_t left = in->count - first;
    ptrdiff_t offset[QCC_WIDE_ROWS];
    if (vectors == 1) {
      rows = left > 6 ? 12 : left > 2 ? 6 : left > 1 ? 2 : 1;
    } else {
      rows = left > 4 ? 6 : left > 2 ? 4 : left > 1 ? 2 : 1;
    }
    for (int32_t r = 0; r < rows; ++r) {
      offset[r] = oy * in->row + ox * stride_width * in->pixel;
      if (first + r < in->count - 1 && ++ox == in->width) { /* rows beyond the last pixel repeat it */
        ox = 0;
        ++oy;
      }
    }
    switch (16 * vectors + rows) {
      case 16 + 12: qcc_wide_tile_12x1(in, offset, block, first, left); break;
      case 16 + 6: qcc_wide_tile_6x1(in, offset, block, first, left); break;
      case 16 + 2: qcc_wide_tile_2x1(in, offset, block, first, left); break;
      case 16 + 1: qcc_wide_tile_1x1(in, offset, block, first, left); break;
      case 32 + 6: qcc_wide_tile_6x2(in, offset, block, first, left); break;
      case 32 + 4: qcc_wide_tile_4x2(in, offset, block, first, left); break;
      case 32 + 2: qcc_wide_tile_2x2(in, offset, block, first, left); break;
      default: qcc_wide_tile_1x2(in, offset, block, first, left); break;
    }
  }
}

/* ---------------------------------------------------------------- the image */

/* `count` elements, as int16. */
QCC_INLINE void qcc_wide_elements(int16_t *to, const void *input, ptrdiff_t at, int32_t bytes, ptrdiff_t count) {
  if (bytes == 2) {
    __builtin_memcpy(to, (const int16_t *)input + at, (size_t)count * sizeof *to);
    return;
  }
  const int8_t *x = (const int8_t *)input + at;
  ptrdiff_t i = 0;
  for (; i + 16 <= count; i += 16) {
    qcc_store(to + i, _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(x + i))));
  }
  for (; i < count; ++i) {
    to[i] = x[i];
  }
}

QCC_INLINE void qcc_wide_fill(int16_t *to, int32_t value, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; ++i) {
    to[i] = (int16_t)value;
  }
}

/* The padded image number n from its row `top` on (row 0 is the first of the padding), and what a last word may read. */
QCC_INLINE void qcc_wide_pad(const qcc_avx2_wide_conv2d_params *p, const void *input, int32_t n, int16_t *to, int32_t top,
                             int32_t height, int32_t width) {
  const ptrdiff_t c = p->input_channels, line = width * c;
  const int32_t before = p->pad_left < width ? p->pad_left : width;
  const int32_t inside = p->input_width < width - before ? p->input_width : width - before;
  for (int32_t y = 0; y < height; ++y, to += line) {
    const int32_t row = top + y - p->pad_top;
    if (row < 0 || row >= p->input_height) {
      qcc_wide_fill(to, p->pad_value, line);
      continue;
    }
    const ptrdiff_t at = ((ptrdiff_t)n * p->input_height + row) * p->input_width * c;
    qcc_wide_fill(to, p->pad_value, before * c);
    qcc_wide_elements(to + before * c, input, at, p->input_bytes, inside * c);
    qcc_wide_fill(to + (before + inside) * c, p->pad_value, (width - before - inside) * c);
  }
  qcc_wide_fill(to, 0, 2);
}

/* ---------------------------------------------------------------- all */

QCC_INLINE int32_t qcc_wide_reach(int32_t count, int32_t stride, int32_t kernel, int32_t dilation) {
  return (count - 1) * stride + (kernel - 1) * dilation + 1;
}

QCC_INLINE void qcc_wide_conv2d(const qcc_avx2_wide_conv2d_params *p, const void *input, const void *skip,
                                const int8_t *weights, const int32_t *bias, const int32_t *skip_multiplier,
                                const int32_t *multiplier, const int32_t *shift, void *output, void *workspace) {
  const int32_t width = qcc_wide_reach(p->output_width, p->stride_width, p->kernel_width, p->dilation_width);
  const int32_t taps = p->dilation_width == 1 ? p->kernel_width : 1; /* in a run */
  qcc_wide_band in;
  in.data = (const int16_t *)workspace;
  in.pixel = p->input_channels;
  in.line = p->dilation_height * width * in.pixel;
  in.row = p->stride_height * width * in.pixel;
  in.lines = p->kernel_height;
  in.runs = p->kernel_width / taps;
  in.run_step = p->dilation_width * in.pixel;
  in.words = (taps * p->input_channels + 1) / 2;
  in.width = p->output_width;
  const ptrdiff_t words = (ptrdiff_t)in.lines * in.runs * in.words;
  const ptrdiff_t line = (ptrdiff_t)p->output_width * p->output_channels;
  qcc_wide_block block;
  block.skip = skip;
  block.output = output;
  block.step = p->output_channels;
  block.saturation = qcc_wide_saturation(p->low, p->high, p->skip_bytes, p->output_bytes);
  for (int32_t n = 0; n < p->batch; ++n) {
    for (int32_t y = 0; y < p->output_height; y += p->band) {
      const int32_t rows = p->output_height - y < p->band ? p->output_height - y : p->band;
      const int32_t height = qcc_wide_reach(rows, p->stride_height, p->kernel_height, p->dilation_height);
      const ptrdiff_t start = ((ptrdiff_t)n * p->output_height + y) * line;
      qcc_wide_pad(p, input, n, (int16_t *)workspace, y * p->stride_height, height, width);
      in.count = rows * p->output_width;
      block.weights = weights;
      int32_t vectors = p->vectors;
      for (int32_t c = 0; c < p->output_channels; c += 8 * vectors) {
        const int32_t left = (p->output_channels - c + 7) / 8;
        const ptrdiff_t offset = 0;
        for (; vectors > left; vectors /= 2) {
        }
        block.channels = p->output_channels - c;
        block.at = start + c;
        block.bias = bias + c;
        block.skip_multiplier = skip ? skip_multiplier + c : NULL;
        for (int32_t v = 0; v < vectors; ++v) {
          block.scale[v] =
              qcc_wide_scale_of(qcc_load(multiplier + c + 8 * v), qcc_load(shift + c + 8 * v), p->output_zero_point);
        }
        switch (vectors) {
          case 8: qcc_wide_tile_1x8(&in, &offset, &block, 0, 1); break;
          case 4: qcc_wide_tile_1x4(&in, &offset, &block, 0, 1); break;
          case 2: qcc_wide_pixels(2, &in, p->stride_width, &block); break;
          default: qcc_wide_pixels(1, &in, p->stride_width, &block); break;
        }
        block.weights += 16 * words * vectors;
      }
    }
  }
}

#endif
