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

#include "qcc_avx512vnni.h"

#define QCC_CONV_ROWS 16 /* the most pixels of a tile */

/* The image as the tiles see it, and what is the same for all channels. */
typedef struct {
  const int8_t *data;                   /* the first tap of the first output pixel */
  int32_t width;                        /* output pixels of a line */
  ptrdiff_t pixel, wrap;                /* bytes from output pixel to pixel; and more where a line ends */
  int32_t lines, runs, quads;           /* kernel rows, runs of a kernel row, quads of a run */
  ptrdiff_t line_step, run_step;        /* bytes from kernel row to kernel row, from run to run */
  ptrdiff_t output_step;
  int32_t zero_point, low, high, clamps; /* clamps: whether low and high are not those of int8 */
  float integer;                         /* for qcc_requantize_bits: repeated from memory they need no vector unit */
  int32_t bits;
} qcc_conv_image;

/* The constants of a block of channels; of the last three those that the requantization needs. */
typedef struct {
  const int8_t *weights;
  const int32_t *bias;
  const void *skip_multiplier;
  const float *scale;
  const int32_t *multiplier, *shift;
  __mmask64 lanes; /* the channels that exist */
} qcc_conv_block;

/* Where the next tile begins. */
typedef struct {
  const int8_t *x;
  int32_t column;
  const int8_t *skip;
  int8_t *output;
  const int8_t *later;  /* weights of the next block: while this one computes, they come to the level-2 cache */
  ptrdiff_t later_step; /* bytes of them for each quad */
} qcc_conv_place;

/* ---------------------------------------------------------------- requantization */

/* Four vectors of sums to 64 bytes: byte 16 * j + 4 * i + k is lane 4 * j + k of sums[i]. */
QCC_INLINE __m512i qcc_conv_requantize(const int exact, const int vectors, const __m512i *sums,
                                       const qcc_conv_image *image, const qcc_conv_block *block) {
  __m512i q[4];
  QCC_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int at = 16 * (i % vectors);
    if (exact) {
      q[i] = qcc_requantize_exact(sums[i], _mm512_loadu_si512(block->multiplier + at), _mm512_loadu_si512(block->shift + at),
                                  image->zero_point);
    } else {
      q[i] = qcc_requantize_bits(sums[i], _mm512_loadu_ps(block->scale + at), _mm512_set1_ps(image->integer),
                                 _mm512_set1_epi32(image->bits));
    }
  }
  __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
  if (image->clamps) {
    bytes = _mm512_max_epi8(bytes, _mm512_set1_epi8((char)image->low));
    bytes = _mm512_min_epi8(bytes, _mm512_set1_epi8((char)image->high));
  }
  return bytes;
}

/* For vpshufb: bytes `first` to first + 3 of 16, each in an int32 of its own, or in both int16 of one. */
#define QCC_CONV_PLACE(exact, byte) (int32_t)((exact) ? 0x80808000u + (byte) : 0x80008000u + 0x10001u * (byte))
#define QCC_CONV_PLACES(exact, first)                                                   \
  _mm512_set4_epi32(QCC_CONV_PLACE(exact, first + 3), QCC_CONV_PLACE(exact, first + 2), \
                    QCC_CONV_PLACE(exact, first + 1), QCC_CONV_PLACE(exact, first))

/* sums += (skip + 128) * multiplier, for 64 bytes in the order of qcc_conv_requantize. */
QCC_INLINE void qcc_conv_add(const int exact, const int vectors, __m512i *sums, __m512i skip, const void *multiplier) {
  const __m512i bytes = _mm512_xor_si512(skip, _mm512_set1_epi8((char)0x80));
  const __m512i places[4] = {QCC_CONV_PLACES(exact, 0), QCC_CONV_PLACES(exact, 4), QCC_CONV_PLACES(exact, 8),
                             QCC_CONV_PLACES(exact, 12)};
  QCC_UNROLL
  for (int i = 0; i < 4; ++i) {
    const __m512i m = _mm512_loadu_si512((const int32_t *)multiplier + 16 * (i % vectors));
    const __m512i x = _mm512_shuffle_epi8(bytes, places[i]);
    sums[i] = exact ? _mm512_add_epi32(sums[i], _mm512_mullo_epi32(x, m)) : _mm512_dpwssd_epi32(sums[i], x, m);
  }
}

/* Pixels in memory to the order of qcc_conv_requantize, and back: 4 dwords of each of `vectors`, 4 / vectors pixels. */
QCC_INLINE __m512i qcc_conv_order(const int vectors, const int back, __m512i x) {
  switch (vectors) {
    case 1: return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), x);
    case 2:
      return _mm512_permutexvar_epi32(back ? _mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15)
                                           : _mm512_setr_epi32(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15), x);
    case 3:
      return _mm512_permutexvar_epi32(back ? _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15)
                                           : _mm512_setr_epi32(0, 1, 2, 12, 3, 4, 5, 13, 6, 7, 8, 14, 9, 10, 11, 15), x);
    default: return x;
  }
}

/* The pixels that share 64 bytes; `count` of them exist. */
QCC_INLINE __m512i qcc_conv_load(const int vectors, const int8_t *x, ptrdiff_t step, __mmask64 lanes, int32_t count) {
  if (vectors > 2) {
    return qcc_conv_order(vectors, 0, _mm512_maskz_loadu_epi8(lanes, x));
  }
  if (vectors == 2) {
    const __m256i first = _mm256_maskz_loadu_epi8((__mmask32)lanes, x);
    const __m256i second = count > 1 ? _mm256_maskz_loadu_epi8((__mmask32)lanes, x + step) : first;
    return qcc_conv_order(2, 0, _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1));
  }
  const __mmask16 m = (__mmask16)lanes;
  __m512i pixels = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(m, x));
  pixels = _mm512_inserti32x4(pixels, _mm_maskz_loadu_epi8(count > 1 ? m : (__mmask16)0, x + step), 1);
  pixels = _mm512_inserti32x4(pixels, _mm_maskz_loadu_epi8(count > 2 ? m : (__mmask16)0, x + 2 * step), 2);
  pixels = _mm512_inserti32x4(pixels, _mm_maskz_loadu_epi8(count > 3 ? m : (__mmask16)0, x + 3 * step), 3);
  return qcc_conv_order(1, 0, pixels);
}

QCC_INLINE void qcc_conv_store(const int vectors, int8_t *to, ptrdiff_t step, __mmask64 lanes, int32_t count, __m512i q) {
  q = qcc_conv_order(vectors, 1, q);
  if (vectors > 2) {
    _mm512_mask_storeu_epi8(to, lanes, q);
  } else if (vectors == 2) {
    _mm256_mask_storeu_epi8(to, (__mmask32)lanes, _mm512_castsi512_si256(q));
    if (count > 1) {
      _mm256_mask_storeu_epi8(to + step, (__mmask32)lanes, _mm512_extracti64x4_epi64(q, 1));
    }
  } else {
    _mm_mask_storeu_epi8(to, (__mmask16)lanes, _mm512_castsi512_si128(q));
    if (count > 1) {
      _mm_mask_storeu_epi8(to + step, (__mmask16)lanes, _mm512_extracti32x4_epi32(q, 1));
    }
    if (count > 2) {
      _mm_mask_storeu_epi8(to + 2 * step, (__mmask16)lanes, _mm512_extracti32x4_epi32(q, 2));
    }
    if (count > 3) {
      _mm_mask_storeu_epi8(to + 3 * step, (__mmask16)lanes, _mm512_extracti32x4_epi32(q, 3));
    }
  }
}

/* ---------------------------------------------------------------- tiles */

/* `tiles` tiles, one behind the other. copied: the image is uint8. valid: the pixels of a tile that exist; in a partial
 * one the others repeat the last of them. (To gcc, which must not know that all exist, `valid` keeps the pixels apart in
 * the second half: in one block it would move the sums to memory.) */
QCC_INLINE void qcc_conv_tiles(const int rows, const int vectors, const int copied, const int partial,
                               const qcc_conv_image *image, const qcc_conv_block *block, qcc_conv_place *place,
                               int32_t tiles, int32_t valid) {
  const int pixels = vectors > 2 ? 1 : 4 / vectors;
  for (; tiles > 0; --tiles) {
    const int8_t *start[QCC_CONV_ROWS];
    QCC_UNROLL
    for (int r = 0; r < rows; ++r) {
      start[r] = place->x;
      if (!partial || r < valid - 1 || valid == rows) {
        const int ends = ++place->column == image->width;
        place->column = ends ? 0 : place->column;
        place->x += image->pixel + (ends ? image->wrap : 0);
      }
    }
    if (place->skip) { /* until the sums are there, so is this */
      QCC_UNROLL
      for (int r = 0; r < rows; ++r) {
        _mm_prefetch((const char *)place->skip + r * image->output_step, _MM_HINT_T0);
      }
    }
    __m512i acc[24];
    QCC_UNROLL
    for (int v = 0; v < vectors; ++v) {
      const __m512i b = _mm512_loadu_si512(block->bias + 16 * v);
      QCC_UNROLL
      for (int r = 0; r < rows; ++r) {
        acc[r * vectors + v] = b;
      }
    }
    const int8_t *w = block->weights, *later = place->later;
    const ptrdiff_t later_step = place->later_step;
    ptrdiff_t line = 0;
    for (int32_t a = 0; a < image->lines; ++a, line += image->line_step) {
      ptrdiff_t run = line;
      for (int32_t b = 0; b < image->runs; ++b, run += image->run_step) {
        const int8_t *x[QCC_CONV_ROWS];
        QCC_UNROLL
        for (int r = 0; r < rows; ++r) {
          x[r] = start[r] + run;
        }
        for (int32_t k = 0; k < image->quads; ++k, w += 64 * vectors) {
          __m512i column[4];
          if (vectors == 4) {
            _mm_prefetch((const char *)later, _MM_HINT_T1);
            later += later_step;
          }
          QCC_UNROLL
          for (int v = 0; v < vectors; ++v) {
            column[v] = _mm512_loadu_si512(w + 64 * v);
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
            }
          }
        }
      }
    }
    place->later = later;
    QCC_UNROLL
    for (int r = 0; r < rows; r += pixels) {
      if (r < valid) {
        __m512i sums[4];
        QCC_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int row = r + i / vectors < rows ? r + i / vectors : r;
          sums[i] = vectors == 3 ? acc[3 * r + i % 3] : acc[row * vectors + i % vectors];
        }
        const int32_t count = valid - r < pixels ? valid - r : pixels;
        if (place->skip) {
          const __m512i skip = qcc_conv_load(vectors, place->skip, image->output_step, block->lanes, count);
          qcc_conv_add(QCC_CONV_EXACT, vectors, sums, skip, block->skip_multiplier);
          place->skip += count * image->output_step;
        }
        const __m512i q = qcc_conv_requantize(QCC_CONV_EXACT, vectors, sums, image, block);
        qcc_conv_store(vectors, place->output, image->output_step, block->lanes, count, q);
        place->output += count * image->output_step;
      }
    }
  }
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

/* All pixels of one block of channels: tiles that differ by one pixel at most, so that none is nearly empty. */
static void qcc_conv_pixels(int vectors, int copied, int32_t count, const qcc_conv_image *image,
                            const qcc_conv_block *block, int follows, qcc_conv_place *place) {
  const int32_t most = vectors == 4 ? 6 : vectors == 3 ? 8 : vectors == 2 ? 12 : 16, least = most - 2;
  qcc_conv_function *const(*sizes)[2] =
      vectors == 4 ? tiles_of_4 : vectors == 3 ? tiles_of_3 : vectors == 2 ? tiles_of_2 : tiles_of_1;
  const int32_t tiles = (count + most - 1) / most;
  place->later_step = follows ? (64 * vectors + tiles - 1) / tiles : 0;
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
  image.wrap = p->stride_height * line - p->output_width * image.pixel;
  image.width = image.wrap == 0 ? count : p->output_width;
  image.lines = p->kernel_height;
  image.line_step = p->dilation_height * line;
  image.runs = p->dilation_width == 1 ? 1 : p->kernel_width;
  image.run_step = p->dilation_width * step;
  image.quads = (run + 3) / 4;
  image.output_step = p->output_step;
  image.zero_point = p->output_zero_point;
  image.low = p->low;
  image.high = p->high;
  image.integer = (float)(0xC00000 + p->output_zero_point);
  image.bits = QCC_ROUNDED_BITS;
  image.clamps = p->low > -128 || p->high < 127;
  const ptrdiff_t quads = (ptrdiff_t)image.lines * image.runs * image.quads;

  for (int32_t n = 0; n < p->batch; ++n) {
    qcc_conv_block block = constants;
    for (int32_t g = 0; g < p->groups; ++g) {
      image.data = input + (ptrdiff_t)n * p->input_height * p->input_width * p->input_step + g * p->input_channels;
      if (copied) {
        qcc_conv_pad(p, image.data, (int8_t *)workspace, height, width);
        image.data = (const int8_t *)workspace;
      }
      for (int32_t o = 0; o < p->output_channels; o += 16 * p->vectors) {
        const int32_t left = p->output_channels - o;
        const int vectors = left >= 16 * p->vectors ? p->vectors : (left + 15) / 16;
        const int32_t channels = left < 16 * vectors ? left : 16 * vectors;
        const ptrdiff_t start = (ptrdiff_t)n * count * p->output_step + g * p->output_channels + o;
        const int follows = left > 16 * vectors;
        const int8_t *later = block.weights + (follows ? quads * vectors * 64 : 0);
        qcc_conv_place place = {image.data, 0, skip ? skip + start : NULL, output + start, later, 0};
        block.lanes = channels == 64 ? ~(__mmask64)0 : ((__mmask64)1 << channels) - 1;
        qcc_conv_pixels(vectors, copied, count, &image, &block, follows, &place);
        block.weights += quads * vectors * 64;
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
