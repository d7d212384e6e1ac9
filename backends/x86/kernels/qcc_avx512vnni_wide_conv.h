/* 2-D convolution with int16 input, or with int8 input and a result or residual operand of 16 bits: an implicit matrix
 * product, as qcc_avx512vnni_conv.h.
 *
 * QCC_WIDE_INPUT: bytes of an element of the input, 1 or 2, defined by the .c file.
 *
 * A tile is `rows` output pixels by one block of up to 64 channels (`vectors` of 16), all taps, then requantization. The
 * taps of a kernel row lie side by side in the input: a run, read in words of 4 bytes: vpdpwssd multiplies two int16 by two
 * weights, which are int8 in memory; vpdpbusd four bytes by four weights, with x ^ 0x80 in place of x. A padded image, one
 * whose runs are no whole words, and a group of channels are copied first.
 *
 * Sums wrap around in 32 bits; the compiler has proved that they end within them.
 */
#ifndef QCC_AVX512VNNI_WIDE_CONV_H
#define QCC_AVX512VNNI_WIDE_CONV_H

#include "qcc_avx512_wide.h"

#if QCC_WIDE_INPUT == 2
typedef int16_t qcc_wide_element;
#else
typedef int8_t qcc_wide_element;
#endif
#define QCC_WIDE_COLUMN (16 * 4 / QCC_WIDE_INPUT) /* bytes of the weights of a word and 16 channels */
#define QCC_WIDE_ROWS 16                          /* the most pixels of a tile */

/* The image as the tiles see it. Steps are in bytes. */
typedef struct {
  int32_t width;                 /* output pixels of a line */
  ptrdiff_t pixel, wrap;         /* from output pixel to pixel; and more where a line ends */
  int32_t lines, runs, words;    /* kernel rows, runs of a kernel row, words of a run */
  ptrdiff_t line_step, run_step; /* from kernel row to kernel row, from run to run */
  ptrdiff_t output_step;         /* in elements */
} qcc_wide_image;

/* The constants of a block of channels. */
typedef struct {
  const int8_t *weights;
  const int32_t *bias, *skip_multiplier;
  __mmask32 lanes[2]; /* the channels that exist */
  double scale[64];
} qcc_wide_block;

/* Where the next tile begins. */
typedef struct {
  const int8_t *x;
  int32_t column;
  const void *skip;
  void *output;
  ptrdiff_t at; /* element of skip and output */
} qcc_wide_place;

/* Adds the words of a run, whose weights begin at w. */
QCC_INLINE void qcc_wide_words(const int rows, const int vectors, const int8_t *const *x, int32_t words, const int8_t *w,
                               __m512i *acc) {
  for (int32_t k = 0; k < words; ++k, w += QCC_WIDE_COLUMN * vectors) {
    __m512i column[4];
    QCC_UNROLL
    for (int v = 0; v < vectors; ++v) {
#if QCC_WIDE_INPUT == 2
      column[v] = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(w + QCC_WIDE_COLUMN * v)));
#else
      column[v] = _mm512_loadu_si512(w + QCC_WIDE_COLUMN * v);
#endif
      QCC_IN_REGISTER(column[v]);
    }
    QCC_UNROLL
    for (int r = 0; r < rows; ++r) {
      int32_t word;
      __builtin_memcpy(&word, x[r] + 4 * k, 4);
      const __m512i row = _mm512_set1_epi32(word);
      QCC_UNROLL
      for (int v = 0; v < vectors; ++v) {
#if QCC_WIDE_INPUT == 2
        acc[r * vectors + v] = _mm512_dpwssd_epi32(acc[r * vectors + v], row, column[v]);
#else
        acc[r * vectors + v] =
            _mm512_dpbusd_epi32(acc[r * vectors + v], _mm512_xor_si512(row, _mm512_set1_epi8((char)0x80)), column[v]);
#endif
      }
    }
  }
}

/* The sums of one pixel to the output. */
QCC_INLINE void qcc_wide_finish(const int vectors, __m512i *sums, const qcc_wide_block *block, qcc_wide_place *place,
                                ptrdiff_t step, const qcc_wide_output *o) {
  QCC_UNROLL
  for (int v = 0; v < vectors; v += 2) {
    const ptrdiff_t at = place->at + 16 * v;
    const __mmask32 lanes = block->lanes[v / 2];
    const int pair = v + 1 < vectors;
    if (place->skip) {
      const __m512i x = qcc_wide_loads(place->skip, at, o->skip_bytes, pair ? lanes : lanes & 0xFFFF);
      if (pair) {
        qcc_wide_add_pair(sums + v, x, block->skip_multiplier + 16 * v);
      } else {
        const __m512i s = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(x));
        sums[v] = _mm512_add_epi32(sums[v], _mm512_mullo_epi32(s, _mm512_loadu_si512(block->skip_multiplier + 16 * v)));
      }
    }
    if (pair) {
      qcc_wide_finish_pair(sums[v], sums[pair ? v + 1 : v], block->scale + 16 * v, place->output, at, lanes, o);
    } else {
      qcc_wide_finish_single(sums[v], block->scale + 16 * v, place->output, at, lanes, o);
    }
  }
  place->at += step;
}

/* `tiles` tiles, one behind the other. valid: the pixels of a tile that exist; the others repeat the last of them. */
QCC_INLINE void qcc_wide_tiles(const int rows, const int vectors, const qcc_wide_image *image, const qcc_wide_block *block,
                               qcc_wide_place *place, int32_t tiles, int32_t valid, const qcc_wide_output *given) {
#if QCC_WIDE_INPUT == 2
  const qcc_wide_output held = *given, *o = &held;
#else /* here more registers would be needed than there are: gcc would keep weights in memory */
  const qcc_wide_output *o = given;
#endif
  for (; tiles > 0; --tiles) {
    const int8_t *start[QCC_WIDE_ROWS];
    __m512i acc[24];
    QCC_UNROLL
    for (int r = 0; r < rows; ++r) {
      start[r] = place->x;
      if (r < valid - 1 || valid == rows) {
        const int ends = ++place->column == image->width;
        place->column = ends ? 0 : place->column;
        place->x += image->pixel + (ends ? image->wrap : 0);
      }
    }
    QCC_UNROLL
    for (int v = 0; v < vectors; ++v) {
      const __m512i b = _mm512_loadu_si512(block->bias + 16 * v);
      QCC_UNROLL
      for (int r = 0; r < rows; ++r) {
        acc[r * vectors + v] = b;
      }
    }
    const int8_t *w = block->weights;
    ptrdiff_t line = 0;
    for (int32_t a = 0; a < image->lines; ++a, line += image->line_step) {
      ptrdiff_t run = line;
      for (int32_t b = 0; b < image->runs; ++b, run += image->run_step) {
        const int8_t *x[QCC_WIDE_ROWS];
        QCC_UNROLL
        for (int r = 0; r < rows; ++r) {
          x[r] = start[r] + run;
        }
        qcc_wide_words(rows, vectors, x, image->words, w, acc);
        w += QCC_WIDE_COLUMN * vectors * (ptrdiff_t)image->words;
      }
    }
    QCC_UNROLL
    for (int r = 0; r < rows; ++r) {
      if (r < valid) {
        qcc_wide_finish(vectors, acc + r * vectors, block, place, image->output_step, o);
      }
    }
  }
}

typedef void qcc_wide_function(const qcc_wide_image *, const qcc_wide_block *, qcc_wide_place *, int32_t, int32_t,
                               const qcc_wide_output *);

/* The same with sizes known to the compiler, so that the sums stay in registers. */
#define QCC_WIDE_FUNCTION(rows, vectors)                                                                          \
  static void tiles_##rows##x##vectors(const qcc_wide_image *image, const qcc_wide_block *block,                  \
                                       qcc_wide_place *place, int32_t tiles, int32_t valid, const qcc_wide_output *o) {  \
    qcc_wide_tiles(rows, vectors, image, block, place, tiles, valid, o);                                          \
  }
/* What fills the registers, one and two pixels less, and one pixel. */
#define QCC_WIDE_SIZES(most, fewer, least, vectors)                                                     \
  QCC_WIDE_FUNCTION(most, vectors) QCC_WIDE_FUNCTION(fewer, vectors) QCC_WIDE_FUNCTION(least, vectors)  \
  QCC_WIDE_FUNCTION(1, vectors)                                                                         \
  static qcc_wide_function *const tiles_of_##vectors[4] = {tiles_##most##x##vectors, tiles_##fewer##x##vectors, \
                                                           tiles_##least##x##vectors, tiles_1x##vectors};
QCC_WIDE_SIZES(16, 15, 14, 1)
QCC_WIDE_SIZES(12, 11, 10, 2)
QCC_WIDE_SIZES(8, 7, 6, 3)
QCC_WIDE_SIZES(6, 5, 4, 4)

/* All pixels of one block of channels: tiles that differ by one pixel at most, so that none is nearly empty. */
static void qcc_wide_pixels(int vectors, int32_t count, const qcc_wide_image *image, const qcc_wide_block *block,
                            qcc_wide_place *place, const qcc_wide_output *o) {
  const int32_t most = vectors == 4 ? 6 : vectors == 3 ? 8 : vectors == 2 ? 12 : 16, least = most - 2;
  qcc_wide_function *const *sizes =
      vectors == 4 ? tiles_of_4 : vectors == 3 ? tiles_of_3 : vectors == 2 ? tiles_of_2 : tiles_of_1;
  const int32_t tiles = (count + most - 1) / most;
  const int32_t few = count / tiles, more = count % tiles; /* `more` tiles have few + 1 pixels */
  if (few >= least) {
    if (more) {
      sizes[most - few - 1](image, block, place, more, few + 1, o);
    }
    sizes[most - few](image, block, place, tiles - more, few, o);
  } else if (count == 1) {
    sizes[3](image, block, place, 1, 1, o);
  } else {
    for (int32_t left = count; left > 0; left -= least) {
      sizes[2](image, block, place, 1, left < least ? left : least, o);
    }
  }
}

/* ---------------------------------------------------------------- the padded image */

static void qcc_wide_fill(qcc_wide_element *to, int32_t value, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; ++i) {
    to[i] = (qcc_wide_element)value;
  }
}

/* The rows of a group of channels as the taps reach them, and what a last word may read. */
static void qcc_wide_pad(const qcc_avx512_wide_conv_params *p, const qcc_wide_element *input, qcc_wide_element *to,
                         int32_t height, int32_t width) {
  const ptrdiff_t c = p->input_channels;
  const int32_t left = p->pad_left < width ? p->pad_left : width;
  const int32_t inside = p->input_width < width - left ? p->input_width : width - left;
  for (int32_t y = 0; y < height; ++y, to += width * c) {
    const int32_t row = y - p->pad_top;
    if (row < 0 || row >= p->input_height) {
      qcc_wide_fill(to, p->pad_value, width * c);
      continue;
    }
    const qcc_wide_element *from = input + (ptrdiff_t)row * p->input_width * p->input_step;
    qcc_wide_fill(to, p->pad_value, left * c);
    if (p->input_step == c) {
      __builtin_memcpy(to + left * c, from, (size_t)(inside * c) * sizeof *to);
    } else {
      for (int32_t x = 0; x < inside; ++x) {
        __builtin_memcpy(to + (left + x) * c, from + (ptrdiff_t)x * p->input_step, (size_t)c * sizeof *to);
      }
    }
    qcc_wide_fill(to + (left + inside) * c, p->pad_value, (width - left - inside) * c);
  }
  qcc_wide_fill(to, 0, 4 / QCC_WIDE_INPUT);
}

/* ---------------------------------------------------------------- all */

QCC_INLINE void qcc_wide_conv(const qcc_avx512_wide_conv_params *p, const qcc_wide_element *input, const void *skip,
                              const int8_t *weights, const int32_t *bias, const int32_t *skip_multiplier,
                              const int32_t *multiplier, const int32_t *shift, void *output, void *workspace) {
  const int32_t height = (p->output_height - 1) * p->stride_height + (p->kernel_height - 1) * p->dilation_height + 1;
  const int32_t width = (p->output_width - 1) * p->stride_width + (p->kernel_width - 1) * p->dilation_width + 1;
  const int32_t run = (p->dilation_width == 1 ? p->kernel_width : 1) * p->input_channels;
  const int32_t word = 4 / QCC_WIDE_INPUT;
  const int padded = p->pad_top > 0 || p->pad_left > 0 || height > p->input_height || width > p->input_width;
  const int copied = padded || run % word || p->groups > 1;
  const ptrdiff_t step = QCC_WIDE_INPUT * (copied ? p->input_channels : p->input_step);
  const ptrdiff_t line = (copied ? width : p->input_width) * step;
  const int32_t count = p->output_height * p->output_width;
  const qcc_wide_output o =
      qcc_wide_saturation(p->output_zero_point, p->low, p->high, p->skip_bytes, p->output_bytes);
  qcc_wide_image image;
  image.pixel = p->stride_width * step;
  image.wrap = p->stride_height * line - p->output_width * image.pixel;
  image.width = image.wrap == 0 ? count : p->output_width;
  image.lines = p->kernel_height;
  image.line_step = p->dilation_height * line;
  image.runs = p->dilation_width == 1 ? 1 : p->kernel_width;
  image.run_step = p->dilation_width * step;
  image.words = (run + word - 1) / word;
  image.output_step = p->output_step;
  const ptrdiff_t words = (ptrdiff_t)image.lines * image.runs * image.words;

  for (int32_t n = 0; n < p->batch; ++n) {
    ptrdiff_t channel = 0; /* in the packed constants */
    qcc_wide_block block;
    block.weights = weights;
    for (int32_t g = 0; g < p->groups; ++g) {
      const qcc_wide_element *data =
          input + (ptrdiff_t)n * p->input_height * p->input_width * p->input_step + g * p->input_channels;
      if (copied) {
        qcc_wide_pad(p, data, (qcc_wide_element *)workspace, height, width);
        data = (const qcc_wide_element *)workspace;
      }
      for (int32_t start = 0; start < p->output_channels; start += 16 * p->vectors) {
        const int32_t left = p->output_channels - start;
        const int vectors = left >= 16 * p->vectors ? p->vectors : (left + 15) / 16;
        const int32_t channels = left < 16 * vectors ? left : 16 * vectors;
        qcc_wide_place place;
        place.x = (const int8_t *)data;
        place.column = 0;
        place.skip = skip;
        place.output = output;
        place.at = (ptrdiff_t)n * count * p->output_step + g * p->output_channels + start;
        block.bias = bias + channel;
        block.skip_multiplier = skip ? skip_multiplier + channel : NULL;
        block.lanes[0] = qcc_wide_lanes(channels);
        block.lanes[1] = channels > 32 ? qcc_wide_lanes(channels - 32) : 0;
        for (int i = 0; i < 16 * vectors; i += 16) {
          qcc_wide_scale(multiplier + channel + i, shift + channel + i, block.scale + i);
        }
        qcc_wide_pixels(vectors, count, &image, &block, &place, &o);
        block.weights += QCC_WIDE_COLUMN * words * vectors;
        channel += 16 * vectors;
      }
    }
  }
}

#endif
