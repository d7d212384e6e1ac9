/* 2-D convolution as an implicit matrix product: the register tile and the loops around it.
 *
 * QCC_CONV_EXACT: 0 or 1, defined by the .c file: how to requantize.
 *
 * A tile is `rows` output pixels by one block of up to 64 channels (`vectors` of 16), all taps, then requantization. The
 * taps of a kernel row lie side by side in the input: a run, read in groups of four bytes (quads) where it is, so there is
 * no im2col buffer. A padded image, one whose runs are no whole quads, and a group of channels are copied first, which
 * costs less than to ask for each tap whether it is inside; the copy is uint8 already.
 *
 * Channel 4 * vectors * j + 4 * v + i of a block is in lane 4 * j + i of vector v, so that packing within the four 128-bit
 * parts of a register puts the bytes of a pixel in the order of memory, for less than 4 vectors after one permutation.
 */
#ifndef QCC_AVX512VNNI_CONV_H
#define QCC_AVX512VNNI_CONV_H

#include "qcc_avx512vnni_output.h"
#include "qcc_regions.h"

#define QCC_CONV_ROWS 16 /* the most pixels of a tile */
#define QCC_CONV_HALF 12 /* vectors of half a tile */
#define QCC_CONV_MOST(vectors) ((vectors) == 4 ? 6 : (vectors) == 3 ? 8 : (vectors) == 2 ? 12 : 16) /* pixels of a tile */

/* Where the next tile begins. */
typedef struct {
  const int8_t *x;
  int32_t column;
  const int8_t *skip;
  int8_t *output;
  int32_t written; /* pixels of the line that are in the output */
  const int8_t *later;  /* weights of the next block: while this one computes, they come to the level-2 cache */
  ptrdiff_t later_step; /* bytes of them for each quad; below 64 a power of 2 */
  ptrdiff_t later_mask; /* those quads prefetch whose number has none of these bits: one for each line of the cache */
} qcc_conv_place;

/* ---------------------------------------------------------------- tiles */

/* Where the pixels of the next tile begin; of a partial one those that do not exist repeat the last. */
QCC_INLINE void qcc_conv_starts(const int rows, const int partial, const qcc_conv_image *image, qcc_conv_place *place,
                                int32_t valid, const int8_t **start) {
  QCC_UNROLL
  for (int r = 0; r < rows; ++r) {
    start[r] = place->x;
    if (!partial || r < valid - 1 || valid == rows) {
      const int ends = ++place->column == image->width;
      place->column = ends ? 0 : place->column;
      place->x += image->pixel + (ends ? image->wrap : 0);
    }
  }
}

QCC_INLINE void qcc_conv_bias(const int rows, const int vectors, const int32_t *bias, __m512i *acc) {
  QCC_UNROLL
  for (int v = 0; v < vectors; ++v) {
    const __m512i b = _mm512_loadu_si512(bias + 16 * v);
    QCC_UNROLL
    for (int r = 0; r < rows; ++r) {
      acc[r * vectors + v] = b;
    }
  }
}

/* Adds quads `from` to `to` of a run, whose weights begin at w. */
QCC_INLINE void qcc_conv_quads(const int rows, const int vectors, const int copied, const int8_t *const *x, int32_t from,
                               int32_t to, const int8_t *w, const qcc_conv_place *place, __m512i *acc) {
  w += 64 * vectors * (ptrdiff_t)from;
  for (int32_t k = from; k < to; ++k, w += 64 * vectors) {
    __m512i column[4];
    if (vectors == 4 && !(k & place->later_mask)) {
      _mm_prefetch((const char *)place->later + k * place->later_step, _MM_HINT_T1);
    }
    QCC_UNROLL
    for (int v = 0; v < vectors; ++v) {
      column[v] = _mm512_loadu_si512(w + 64 * v);
      QCC_IN_REGISTER(column[v]);
    }
    QCC_UNROLL
    for (int r = 0; r < rows; ++r) {
      int32_t word;
      __builtin_memcpy(&word, x[r] + 4 * k, 4);
      const __m512i bytes = _mm512_set1_epi32(word);
      const __m512i row = copied ? bytes : _mm512_xor_si512(bytes, _mm512_set1_epi8((char)0x80));
      QCC_UNROLL
      for (int v = 0; v < vectors; ++v) {
        acc[r * vectors + v] = _mm512_dpbusd_epi32(acc[r * vectors + v], row, column[v]);
        if (rows * vectors == QCC_CONV_HALF) { /* of 32 registers some 30 are in use: not these in memory */
          QCC_IN_REGISTER(acc[r * vectors + v]);
        }
      }
    }
  }
}

/* The sums of the pixels from `r` on that share 64 bytes to the output; `valid` of all exist. */
QCC_INLINE void qcc_conv_finish(const int rows, const int vectors, const int copied, const int r, int32_t valid,
                                const __m512i *acc, const qcc_conv_image *image, const qcc_conv_block *block,
                                qcc_conv_place *place) {
  const int pixels = vectors > 2 ? 1 : 4 / vectors;
  __m512i sums[4];
  QCC_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int row = r + i / vectors < rows ? r + i / vectors : r;
    sums[i] = vectors == 3 ? acc[3 * r + i % 3] : acc[row * vectors + i % vectors];
  }
  const int32_t count = valid - r < pixels ? valid - r : pixels;
  ptrdiff_t at[5] = {0};
  QCC_UNROLL
  for (int i = 0; i < pixels; ++i) {
    at[i + 1] = at[i] + (i < count ? image->output_step : 0);
    if (copied && i < count && ++place->written == image->width) { /* only a padded image has regions */
      place->written = 0;
      at[i + 1] += image->output_wrap;
    }
  }
  if (place->skip) {
    const __m512i skip = qcc_conv_load(vectors, place->skip, at, block->lanes, count);
    qcc_conv_add(QCC_CONV_EXACT, vectors, sums, skip, block->skip_multiplier);
    place->skip += at[pixels];
  }
  const __m512i q = qcc_conv_requantize(QCC_CONV_EXACT, vectors, sums, image, block);
  qcc_conv_store(vectors, place->output, at, block->lanes, count, q);
  place->output += at[pixels];
}

/* Until the sums are there, so are the next pixels of the residual operand. */
QCC_INLINE void qcc_conv_prefetch(const int rows, const qcc_conv_image *image, const int8_t *skip) {
  if (skip) {
    QCC_UNROLL
    for (int r = 0; r < rows; ++r) {
      _mm_prefetch((const char *)skip + r * image->output_step, _MM_HINT_T0);
    }
  }
}

/* `tiles` tiles, one behind the other. copied: the image is uint8. valid: the pixels of a tile that exist; in a partial
 * one the others repeat the last of them. (To gcc, which must not know that all exist, `valid` keeps the pixels apart in
 * the second half: in one block it would move the sums to memory.) */
QCC_INLINE void qcc_conv_tiles(const int rows, const int vectors, const int copied, const int partial,
                               const qcc_conv_image *image, const qcc_conv_block *block, qcc_conv_place *place,
                               int32_t tiles, int32_t valid) {
  const int pixels = vectors > 2 ? 1 : 4 / vectors;
  for (; tiles > 0; --tiles) {
    const int8_t *start[QCC_CONV_ROWS];
    __m512i acc[24];
    qcc_conv_starts(rows, partial, image, place, valid, start);
    qcc_conv_prefetch(rows, image, place->skip);
    qcc_conv_bias(rows, vectors, block->bias, acc);
    const int8_t *w = block->weights;
    ptrdiff_t line = 0;
    for (int32_t a = 0; a < image->lines; ++a, line += image->line_step) {
      ptrdiff_t run = line;
      for (int32_t b = 0; b < image->runs; ++b, run += image->run_step) {
        const int8_t *x[QCC_CONV_ROWS];
        QCC_UNROLL
        for (int r = 0; r < rows; ++r) {
          x[r] = start[r] + run;
        }
        qcc_conv_quads(rows, vectors, copied, x, 0, image->quads, w, place, acc);
        w += 64 * vectors * (ptrdiff_t)image->quads;
        place->later += vectors == 4 ? place->later_step * image->quads : 0;
      }
      w += 64 * vectors * (ptrdiff_t)image->left_out;
    }
    QCC_UNROLL
    for (int r = 0; r < rows; r += pixels) {
      if (r < valid) {
        qcc_conv_finish(rows, vectors, copied, r, valid, acc, image, block, place);
      }
    }
  }
}

/* Whether qcc_conv_turns is for the image: few taps, of which a block's weights, up to 32 kB, stay in the level-1 cache.
 * (Several kernel rows are mostly those of a padded image, and for a single one gcc makes better code without the loop.) */
QCC_INLINE int qcc_conv_short(const qcc_conv_image *image, int copied) {
  return image->runs == 1 && (copied || image->lines == 1) && image->quads >= 4 && image->lines * image->quads <= 128;
}

/* Tiles of half the pixels, so that the sums of the tile before are in registers too: a processor sees about a hundred
 * instructions ahead, and would first requantize all of one tile and then multiply for the next; here they take turns. */
QCC_INLINE void qcc_conv_turns(const int rows, const int vectors, const int copied, const qcc_conv_image *whole,
                               const qcc_conv_block *all, qcc_conv_place *begin, int32_t tiles) {
  const int pixels = vectors > 2 ? 1 : 4 / vectors, turns = rows / pixels;
  const qcc_conv_image image = *whole; /* copies, which no store to the output changes */
  const qcc_conv_block block = *all;
  qcc_conv_place place = *begin;
  const int8_t *start[QCC_CONV_ROWS];
  __m512i acc[QCC_CONV_HALF], done[QCC_CONV_HALF];
  QCC_UNROLL
  for (int r = 0; r < rows; ++r) {
    start[r] = place.x;
  }
  qcc_conv_bias(rows, vectors, block.bias, acc);
  for (int32_t t = 0; t <= tiles; ++t) {
    const int32_t quads = t < tiles ? image.quads : 0;
    if (quads) {
      qcc_conv_starts(rows, 0, &image, &place, rows, start);
    }
    QCC_UNROLL
    for (int i = 0; i < rows * vectors; ++i) {
      done[i] = acc[i];
    }
    qcc_conv_bias(rows, vectors, block.bias, acc);
    const int32_t part = quads < 8 ? 0 : quads / turns;
    int32_t from = 0;
    QCC_UNROLL
    for (int i = 0; i < turns; ++i) {
      if (t > 0) {
        qcc_conv_prefetch(pixels, &image, place.skip ? place.skip + rows * image.output_step : NULL);
        qcc_conv_finish(rows, vectors, copied, i * pixels, rows, done, &image, &block, &place);
      }
      const int32_t to = i == turns - 1 ? quads : from + part;
      qcc_conv_quads(rows, vectors, copied, start, from, to, block.weights, &place, acc);
      from = to;
    }
    place.later += vectors == 4 ? place.later_step * quads : 0;
    const int8_t *w = block.weights;
    for (int32_t a = copied && quads ? image.lines : 1; a > 1; --a) { /* the kernel rows behind the first */
      w += 64 * vectors * (ptrdiff_t)(quads + image.left_out);
      QCC_UNROLL
      for (int r = 0; r < rows; ++r) {
        start[r] += image.line_step;
      }
      qcc_conv_quads(rows, vectors, copied, start, 0, quads, w, &place, acc);
      place.later += vectors == 4 ? place.later_step * quads : 0;
    }
  }
  *begin = place;
}

typedef void qcc_conv_function(const qcc_conv_image *, const qcc_conv_block *, qcc_conv_place *, int32_t, int32_t);

/* The same with sizes known to the compiler, so that the sums stay in registers. */
#define QCC_CONV_FUNCTION(rows, vectors, copied, partial)                                                               \
  static void tiles_##rows##x##vectors##_##copied(const qcc_conv_image *image, const qcc_conv_block *block,             \
                                                  qcc_conv_place *place, int32_t tiles, int32_t valid) {                \
    qcc_conv_tiles(rows, vectors, copied, partial, image, block, place, tiles, valid);                                  \
  }
#define QCC_CONV_BOTH(rows, vectors, partial) \
  QCC_CONV_FUNCTION(rows, vectors, 0, partial) QCC_CONV_FUNCTION(rows, vectors, 1, partial)
#define QCC_CONV_NAMES(rows, vectors) {tiles_##rows##x##vectors##_0, tiles_##rows##x##vectors##_1}
#if QCC_CONV_EXACT /* rare: one size for each number of vectors */
#define QCC_CONV_SIZES(most, fewer, least, vectors) \
  QCC_CONV_BOTH(least, vectors, 1)                  \
  static qcc_conv_function *const tiles_of_##vectors[3][2] = {{NULL, NULL}, {NULL, NULL}, QCC_CONV_NAMES(least, vectors)};
#else /* what fills the registers, and one and two pixels less */
#define QCC_CONV_SIZES(most, fewer, least, vectors)                                                 \
  QCC_CONV_BOTH(most, vectors, 0) QCC_CONV_BOTH(fewer, vectors, 0) QCC_CONV_BOTH(least, vectors, 1) \
  static qcc_conv_function *const tiles_of_##vectors[3][2] = {                                      \
      QCC_CONV_NAMES(most, vectors), QCC_CONV_NAMES(fewer, vectors), QCC_CONV_NAMES(least, vectors)};
#endif
QCC_CONV_SIZES(16, 15, 14, 1)
QCC_CONV_SIZES(12, 11, 10, 2)
QCC_CONV_SIZES(8, 7, 6, 3)
QCC_CONV_SIZES(6, 5, 4, 4)

typedef void qcc_conv_turns_function(const qcc_conv_image *, const qcc_conv_block *, qcc_conv_place *, int32_t);

#define QCC_CONV_TURNS(rows, vectors, copied)                                                                    \
  static void turns_##vectors##_##copied(const qcc_conv_image *image, const qcc_conv_block *block,               \
                                         qcc_conv_place *place, int32_t tiles) {                                 \
    qcc_conv_turns(rows, vectors, copied, image, block, place, tiles);                                           \
  }
#define QCC_CONV_BOTH_TURNS(rows, vectors) QCC_CONV_TURNS(rows, vectors, 0) QCC_CONV_TURNS(rows, vectors, 1)
QCC_CONV_BOTH_TURNS(12, 1)
QCC_CONV_BOTH_TURNS(6, 2)
QCC_CONV_BOTH_TURNS(4, 3)
QCC_CONV_BOTH_TURNS(3, 4)
static qcc_conv_turns_function *const turns_of[4][2] = {
    {turns_1_0, turns_1_1}, {turns_2_0, turns_2_1}, {turns_3_0, turns_3_1}, {turns_4_0, turns_4_1}};

/* All pixels of one block of channels: tiles that differ by one pixel at most, so that none is nearly empty. */
static void qcc_conv_pixels(int vectors, int copied, int32_t count, const qcc_conv_image *image,
                            const qcc_conv_block *block, int follows, qcc_conv_place *place) {
  const int32_t most = QCC_CONV_MOST(vectors), least = most - 2;
  qcc_conv_function *const(*sizes)[2] =
      vectors == 4 ? tiles_of_4 : vectors == 3 ? tiles_of_3 : vectors == 2 ? tiles_of_2 : tiles_of_1;
  int32_t turns = 0;
  if (!QCC_CONV_EXACT && count > most && qcc_conv_short(image, copied)) {
    const int32_t rows = QCC_CONV_HALF / vectors;
    turns = (count - least) / rows;
    turns += count - turns * rows > most; /* what is left is one tile, of full size or partial */
    count -= turns * rows;
  }
  const int32_t tiles = (count + most - 1) / most;
  place->later_step = follows ? (64 * vectors + turns + tiles - 1) / (turns + tiles) : 0;
  while (place->later_step < 64 && (place->later_step & (place->later_step - 1))) {
    ++place->later_step;
  }
  place->later_mask = !follows ? -1 : place->later_step < 64 ? 64 / place->later_step - 1 : 0;
  if (turns) {
    turns_of[vectors - 1][copied](image, block, place, turns);
  }
  const int32_t few = count / tiles, more = count % tiles; /* `more` tiles have few + 1 pixels */
  if (few >= least && !QCC_CONV_EXACT) {
    if (more) {
      sizes[most - few - 1][copied](image, block, place, more, few + 1);
    }
    sizes[most - few][copied](image, block, place, tiles - more, few);
    return;
  }
  for (int32_t left = count; left > 0; left -= least) {
    sizes[2][copied](image, block, place, 1, left < least ? left : least);
  }
}

/* ---------------------------------------------------------------- the padded image */

static void qcc_conv_fill(int8_t *to, int32_t value, ptrdiff_t count) {
  const __m512i v = _mm512_set1_epi8((char)(value ^ 0x80));
  for (; count > 0; count -= 64, to += 64) {
    _mm512_mask_storeu_epi8(to, count >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << count) - 1, v);
  }
}

static void qcc_conv_copy(int8_t *to, const int8_t *from, ptrdiff_t count) {
  const __m512i sign = _mm512_set1_epi8((char)0x80);
  for (; count >= 64; count -= 64, to += 64, from += 64) {
    _mm512_storeu_si512(to, _mm512_xor_si512(_mm512_loadu_si512(from), sign));
  }
  const __mmask64 rest = ((__mmask64)1 << count) - 1;
  _mm512_mask_storeu_epi8(to, rest, _mm512_xor_si512(_mm512_maskz_loadu_epi8(rest, from), sign));
}

/* The part of the padded image that the taps reach, height x width pixels, as uint8, and four bytes that a last quad reads. */
static void qcc_conv_pad(const qcc_avx512_conv_params *p, const int8_t *input, int8_t *to, int32_t height, int32_t width) {
  const ptrdiff_t c = p->input_channels;
  const int32_t left = p->pad_left < width ? p->pad_left : width;
  const int32_t inside = p->input_width < width - left ? p->input_width : width - left;
  for (int32_t y = 0; y < height; ++y, to += width * c) {
    const int32_t row = y - p->pad_top;
    if (row < 0 || row >= p->input_height) {
      qcc_conv_fill(to, p->pad_value, width * c);
      continue;
    }
    const int8_t *from = input + (ptrdiff_t)row * p->input_width * p->input_step;
    qcc_conv_fill(to, p->pad_value, left * c);
    if (p->input_step == c) {
      qcc_conv_copy(to + left * c, from, inside * c);
    } else {
      for (int32_t x = 0; x < inside; ++x) {
        qcc_conv_copy(to + (left + x) * c, from + (ptrdiff_t)x * p->input_step, c);
      }
    }
    qcc_conv_fill(to + (left + inside) * c, p->pad_value, (width - left - inside) * c);
  }
  qcc_conv_fill(to, 0, 4);
}

/* ---------------------------------------------------------------- what lies in the padding */

/* Taps times pixels that the tiles compute, the requantization as `more` taps. */
static int32_t qcc_conv_work(int vectors, const qcc_band *rows, const qcc_band *columns, int32_t more) {
  const int32_t most = QCC_CONV_MOST(vectors), least = most - 2, count = rows->count * columns->count;
  const int32_t tiles = (count + most - 1) / most, worked = (count + least - 1) / least * least;
  return count ? (count / tiles < least ? worked : count) * (rows->taps * columns->taps + more) : 0;
}

/* The regions that leave out as many products with the padding as it pays to: rows at the top and the bottom, columns at
 * the sides of the others, or nothing. */
static void qcc_conv_regions(const qcc_avx512_conv_params *p, int padded, qcc_band *rows, qcc_band *columns) {
  qcc_whole(rows, p->output_height, p->kernel_height);
  qcc_whole(columns, p->output_width, p->kernel_width);
  if (!padded || p->pad_value != -128) {
    return; /* -128 is zero as uint8: products of other values count */
  }
  const qcc_band height = rows[1], width = columns[1];
  qcc_band of_rows[3], of_columns[3];
  qcc_bands(of_rows, p->output_height, p->input_height, p->stride_height, p->kernel_height, p->dilation_height, p->pad_top);
  qcc_bands(of_columns, p->output_width, p->input_width, p->stride_width, p->kernel_width, 1, p->pad_left);
  const int32_t more = 16 / p->input_channels + 1; /* a requantization takes as long as four quads or so */
  const int32_t inner = qcc_conv_work(p->vectors, of_rows + 1, &width, more);
  const int32_t edges = qcc_conv_work(p->vectors, of_rows, &width, more) + qcc_conv_work(p->vectors, of_rows + 2, &width, more);
  if (inner && edges + inner < qcc_conv_work(p->vectors, &height, &width, more)) {
    for (int i = 0; i < 3; ++i) {
      rows[i] = of_rows[i];
    }
  }
  int32_t sides = 0;
  for (int i = 0; i < 3; ++i) {
    sides += qcc_conv_work(p->vectors, rows + 1, of_columns + i, more);
  }
  if (p->dilation_width == 1 && p->input_channels % 4 == 0 && of_columns[1].count &&
      sides < qcc_conv_work(p->vectors, rows + 1, &width, more)) {
    for (int i = 0; i < 3; ++i) {
      columns[i] = of_columns[i];
    }
  }
}

/* ---------------------------------------------------------------- all */

QCC_INLINE void qcc_conv(const qcc_avx512_conv_params *p, const int8_t *input, const int8_t *skip, qcc_conv_block constants,
                         int8_t *output, void *workspace) {
  const int32_t height = (p->output_height - 1) * p->stride_height + (p->kernel_height - 1) * p->dilation_height + 1;
  const int32_t width = (p->output_width - 1) * p->stride_width + (p->kernel_width - 1) * p->dilation_width + 1;
  const int32_t run = (p->dilation_width == 1 ? p->kernel_width : 1) * p->input_channels;
  const int padded = p->pad_top > 0 || p->pad_left > 0 || height > p->input_height || width > p->input_width;
  const int copied = padded || run % 4 || p->groups > 1;
  const ptrdiff_t step = copied ? p->input_channels : p->input_step;
  const ptrdiff_t line = (copied ? width : p->input_width) * step;
  const int32_t count = p->output_height * p->output_width;
  qcc_conv_image image;
  image.pixel = p->stride_width * step;
  image.line_step = p->dilation_height * line;
  image.runs = p->dilation_width == 1 ? 1 : p->kernel_width;
  image.run_step = p->dilation_width * step;
  image.output_step = p->output_step;
  image.zero_point = p->output_zero_point;
  image.low = p->low;
  image.high = p->high;
  image.integer = (float)(0xC00000 + p->output_zero_point);
  image.bits = QCC_ROUNDED_BITS;
  image.clamps = p->low > -128 || p->high < 127;
  const int32_t line_quads = image.runs * ((run + 3) / 4);
  const ptrdiff_t quads = (ptrdiff_t)p->kernel_height * line_quads;
  qcc_band rows[3], columns[3];
  qcc_conv_regions(p, padded, rows, columns);

  for (int32_t n = 0; n < p->batch; ++n) {
    qcc_conv_block block = constants;
    for (int32_t g = 0; g < p->groups; ++g) {
      const int8_t *data = input + (ptrdiff_t)n * p->input_height * p->input_width * p->input_step + g * p->input_channels;
      if (copied) {
        qcc_conv_pad(p, data, (int8_t *)workspace, height, width);
        data = (const int8_t *)workspace;
      }
      for (int32_t o = 0; o < p->output_channels; o += 16 * p->vectors) {
        const int32_t left = p->output_channels - o;
        const int vectors = left >= 16 * p->vectors ? p->vectors : (left + 15) / 16;
        const int32_t channels = left < 16 * vectors ? left : 16 * vectors;
        const ptrdiff_t start = (ptrdiff_t)n * count * p->output_step + g * p->output_channels + o;
        const int follows = left > 16 * vectors;
        const int8_t *const own = block.weights, *const later = own + (follows ? quads * vectors * 64 : 0);
        block.lanes = channels == 64 ? ~(__mmask64)0 : ((__mmask64)1 << channels) - 1;
        for (int m = 0; m < 3; ++m) {
          for (int l = 0; l < 3; ++l) {
            const int i = (m + 1) % 3, j = (l + 1) % 3; /* the most pixels first: the weights come to the cache */
            const qcc_band row = rows[i], whole = {0, i == 1 ? 0 : j == 1 ? p->output_width : 0, 0, p->kernel_width};
            const qcc_band column = i == 1 ? columns[j] : whole;
            const ptrdiff_t at = start + ((ptrdiff_t)row.first * p->output_width + column.first) * p->output_step;
            if (row.count == 0 || column.count == 0) {
              continue;
            }
            image.lines = row.taps;
            image.quads = column.taps == p->kernel_width ? (run + 3) / 4 : column.taps * p->input_channels / 4;
            image.left_out = line_quads - image.runs * image.quads;
            image.wrap = p->stride_height * line - column.count * image.pixel;
            image.output_wrap = (p->output_width - column.count) * image.output_step;
            image.width = image.wrap == 0 ? row.count * column.count : column.count;
            block.weights = own + 64 * vectors * (row.tap * (ptrdiff_t)line_quads + column.tap * p->input_channels / 4);
            const int8_t *x = data + row.first * p->stride_height * line + column.first * image.pixel +
                              row.tap * image.line_step + column.tap * step;
            qcc_conv_place place = {x, 0, skip ? skip + at : NULL, output + at, 0, later, 0, 0};
            qcc_conv_pixels(vectors, copied, row.count * column.count, &image, &block, follows && i == 1 && j == 1, &place);
          }
        }
        block.weights = own + quads * vectors * 64;
        block.bias += 16 * vectors;
        if (skip) {
          block.skip_multiplier = (const int32_t *)block.skip_multiplier + 16 * vectors;
        }
        if (QCC_CONV_EXACT) {
          block.multiplier += 16 * vectors;
          block.shift += 16 * vectors;
        } else {
          block.scale += 16 * vectors;
        }
      }
    }
  }
}

#endif
