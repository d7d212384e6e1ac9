/* s8_conv2d_few_avx512vnni: 2-D convolution with few output channels; requantization and a residual operand.
 *
 * The lanes of a register are 16 neighbouring output pixels, and the weights are broadcast: any multiple of 8 channels fills
 * the registers. For that the padded image is copied into planes, one for each quad (four input channels), in which the
 * quads of neighbouring pixels lie side by side; all planes of a row come before the next row, and there are as many rows
 * as eight rows of the output see.
 *
 * input    int8[batch][input_height][input_width], pixels input_step bytes apart, each [input_channels]
 * skip     int8, as the output, or NULL
 * weights  int8[ceil(output_channels / 16)][2][kernel_height][quads][kernel_width][8][4], zero where there is no channel
 * bias     int32[output_channels up to a multiple of 16], with -128 * sum(w), the zero_point of the input and that of the
 *          skip operand folded in
 * skip_multiplier  int16[as bias][2], channel 4 * i + k: {m, 0} for k < 2, else {0, m}; or NULL
 * scale    float[as bias]: see single_rounding in vnni.py
 * output   int8[batch][output_height][output_width], pixels output_step bytes apart, each [output_channels]; may be written
 *          over skip
 * workspace  uint8[rows][quads][width][4] and 64 bytes; width: as many pixels as whole registers of output pixels see
 *
 * stride_width, the dilations, groups and vectors are 1; pad_left is less than 16.
 * Reference: Conv2d.int_ref, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_avx512vnni.h"

#define QCC_FEW_ROWS 8 /* of the output, of which the workspace has the image */
#define QCC_FEW_TILE 2 /* registers of pixels in a tile, each with 8 channels */
#define QCC_FEW_APART static __attribute__((noinline)) /* inline it would take the registers of the loops around it */

/* What is the same for all tiles. */
typedef struct {
  const uint8_t *planes;
  ptrdiff_t plane;             /* bytes */
  ptrdiff_t row;               /* bytes from the taps of an output pixel to those of the one below */
  int32_t lines, taps;         /* planes that a pixel sees, and pixels of each */
  int32_t width, channels;     /* of the output */
  ptrdiff_t step;              /* bytes from output pixel to pixel */
  const int8_t *skip, *weights;
  const int32_t *bias;
  const int16_t *skip_multiplier;
  const float *scale;
  int8_t *output;
  int32_t zero_point, low, high, clamps; /* clamps: whether low and high are not those of int8 */
} qcc_few;

/* ---------------------------------------------------------------- 16 pixels of 16 channels, and their planes */

/* Four registers of 4 x 4 dwords: in each 128 bits dword k of x[i] changes places with dword i of x[k]. */
QCC_INLINE void qcc_few_transpose(__m512i *x) {
  const __m512i a = _mm512_unpacklo_epi32(x[0], x[1]), b = _mm512_unpacklo_epi32(x[2], x[3]);
  const __m512i c = _mm512_unpackhi_epi32(x[0], x[1]), d = _mm512_unpackhi_epi32(x[2], x[3]);
  x[0] = _mm512_unpacklo_epi64(a, b);
  x[1] = _mm512_unpackhi_epi64(a, b);
  x[2] = _mm512_unpacklo_epi64(c, d);
  x[3] = _mm512_unpackhi_epi64(c, d);
}

/* Dword 4 * i + k changes places with dword 4 * k + i. */
QCC_INLINE __m512i qcc_few_order(__m512i x) {
  return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), x);
}

/* The first `count` dwords (16 or more: all). */
QCC_INLINE __mmask16 qcc_few_first(int32_t count) { return (__mmask16)(count >= 16 ? 0xFFFF : (1 << count) - 1); }

/* Four pixels to each register; behind the last of `count` it is repeated. */
QCC_FEW_APART void qcc_few_gather(const int8_t *x, ptrdiff_t step, __mmask16 channels, int32_t count, __m512i *quads) {
  __m128i pixel[16];
  QCC_UNROLL
  for (int k = 0; k < 16; ++k) {
    pixel[k] = _mm_maskz_loadu_epi8(channels, x);
    x += k + 1 < count ? step : 0;
  }
  QCC_UNROLL
  for (int i = 0; i < 4; ++i) {
    const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(pixel[4 * i]), pixel[4 * i + 1], 1);
    const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(pixel[4 * i + 2]), pixel[4 * i + 3], 1);
    quads[i] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  }
}

/* `count` of 16 pixels, `step` bytes apart, to four planes: dword k of quads[i] is quad i of pixel k. `channels`: those that
 * exist. */
QCC_INLINE void qcc_few_load(const int8_t *x, ptrdiff_t step, __mmask16 channels, int32_t count, __m512i *quads) {
  if (step == 16 && channels == 0xFFFF && count >= 16) {
    QCC_UNROLL
    for (int i = 0; i < 4; ++i) {
      quads[i] = _mm512_loadu_si512(x + 64 * i);
    }
  } else {
    qcc_few_gather(x, step, channels, count, quads);
  }
  qcc_few_transpose(quads);
  QCC_UNROLL
  for (int i = 0; i < 4; ++i) {
    quads[i] = qcc_few_order(quads[i]);
  }
}

/* And back. */
QCC_INLINE void qcc_few_store(int8_t *to, ptrdiff_t step, __mmask16 channels, int32_t count, __m512i *quads) {
  QCC_UNROLL
  for (int i = 0; i < 4; ++i) {
    quads[i] = qcc_few_order(quads[i]);
  }
  qcc_few_transpose(quads);
  if (step == 16 && channels == 0xFFFF && count >= 16) {
    QCC_UNROLL
    for (int i = 0; i < 4; ++i) {
      _mm512_storeu_si512(to + 64 * i, quads[i]);
    }
    return;
  }
  __m128i pixel[16];
  for (int i = 0; i < 4; ++i) {
    _mm512_storeu_si512(pixel + 4 * i, quads[i]);
  }
  for (int k = 0; k < 16 && k < count; ++k) {
    _mm_mask_storeu_epi8(to + k * step, channels, pixel[k]);
  }
}

/* ---------------------------------------------------------------- the padded image */

/* The first `count` dwords; masks only where they are needed, as their stores take longer. */
QCC_INLINE void qcc_few_put(uint8_t *to, int32_t count, __m512i quads) {
  if (count >= 16) {
    _mm512_storeu_si512(to, quads);
  } else {
    _mm512_mask_storeu_epi32(to, qcc_few_first(count), quads);
  }
}

/* The pixels of a row that lie inside, to their planes. Of up to four channels, the bytes of a pixel to a dword. */
QCC_FEW_APART void qcc_few_copy_row(const int8_t *from, ptrdiff_t step, int32_t channels, int32_t inside, uint8_t *to,
                                    ptrdiff_t plane) {
  const __m512i sign = _mm512_set1_epi8((char)0x80);
  if (channels <= 4 && step == channels) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
    const __m512i dword = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    const __m512i dwords = _mm512_add_epi32(lane, _mm512_mullo_epi32(dword, _mm512_set1_epi32(channels)));
    const __m512i bytes = _mm512_add_epi32(_mm512_set1_epi32(0x03020100),
                                           _mm512_mullo_epi32(lane, _mm512_set1_epi32(channels * 0x01010101)));
    for (int32_t x = 0; x < inside; x += 16) {
      const int32_t left = (inside - x) * channels;
      const __mmask64 read = left >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << left) - 1;
      const __m512i pixels = _mm512_maskz_loadu_epi8(read, from + (ptrdiff_t)x * channels);
      const __m512i quads = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(dwords, pixels), bytes);
      qcc_few_put(to + 4 * x, inside - x, _mm512_xor_si512(quads, sign));
    }
    return;
  }
  for (int32_t c = 0; c < channels; c += 16) {
    const int32_t left = channels - c;
    const __mmask16 these = qcc_few_first(left);
    for (int32_t x = 0; x < inside; x += 16) {
      __m512i quads[4];
      qcc_few_load(from + x * step + c, step, these, inside - x, quads);
      QCC_UNROLL
      for (int i = 0; i < 4; ++i) {
        if (4 * i < left) {
          qcc_few_put(to + (c / 4 + i) * plane + 4 * x, inside - x, _mm512_xor_si512(quads[i], sign));
        }
      }
    }
  }
}

/* At least `count` bytes; up to 60 more, which are written later. */
QCC_INLINE void qcc_few_fill(uint8_t *to, ptrdiff_t count, __m512i value) {
  for (ptrdiff_t i = 0; i < count; i += 64) {
    _mm512_storeu_si512(to + i, value);
  }
}

/* `count` rows of the padded image from row `first` on (0: the first one that a tap reaches). */
static void qcc_few_copy(const qcc_avx512_conv_params *p, const int8_t *input, uint8_t *to, ptrdiff_t plane, int32_t first,
                         int32_t count) {
  const int32_t quads = (p->input_channels + 3) / 4, width = (int32_t)(plane / 4) - p->pad_left;
  const int32_t inside = p->input_width < width ? p->input_width : width;
  const ptrdiff_t left = 4 * p->pad_left, gap = plane - 4 * inside;
  const __m512i around = _mm512_set1_epi8((char)(p->pad_value ^ 0x80));
  for (int32_t y = first; y < first + count; ++y, to += quads * plane) {
    const int32_t row = y - p->pad_top;
    if (row < 0 || row >= p->input_height) {
      qcc_few_fill(to, quads * plane, around);
      continue;
    }
    qcc_few_fill(to, left, around);
    for (int32_t q = 1; q <= quads; ++q) { /* from the last pixel inside to the first one of the next plane */
      qcc_few_fill(to + left + q * plane - gap, gap, around);
    }
    qcc_few_copy_row(input + (ptrdiff_t)row * p->input_width * p->input_step, p->input_step, p->input_channels, inside,
                     to + left, plane);
  }
}

/* ---------------------------------------------------------------- tiles */

/* acc[k] += byte k of each dword of skip, times multiplier: four channels of a register of pixels. */
QCC_INLINE void qcc_few_add(__m512i *acc, __m512i skip, const int16_t *multiplier) {
  const __m512i words[2] = {_mm512_srai_epi16(_mm512_slli_epi16(skip, 8), 8), _mm512_srai_epi16(skip, 8)};
  QCC_UNROLL
  for (int k = 0; k < 4; ++k) {
    int32_t pair;
    __builtin_memcpy(&pair, multiplier + 2 * k, 4);
    acc[k] = _mm512_dpwssd_epi32(acc[k], words[k % 2], _mm512_set1_epi32(pair));
  }
}

/* Four channels of a register of pixels: the bytes of a pixel side by side. */
QCC_INLINE __m512i qcc_few_requantize(const __m512i *acc, const float *scale, int32_t zero_point) {
  __m512i q[4];
  QCC_UNROLL
  for (int k = 0; k < 4; ++k) {
    q[k] = qcc_requantize_rounded(acc[k], _mm512_set1_ps(scale[k]), zero_point);
  }
  const __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
  const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_shuffle_epi8(bytes, _mm512_broadcast_i32x4(order));
}

/* acc[tile * c + v]: channel c of 8, pixels v; sums of one tap of one plane. */
QCC_INLINE void qcc_few_tap(const int tile, const uint8_t *const *x, ptrdiff_t at, const int8_t *w, __m512i *acc) {
  __m512i pixels[QCC_FEW_TILE];
  QCC_UNROLL
  for (int v = 0; v < tile; ++v) {
    pixels[v] = _mm512_loadu_si512(x[v] + at);
  }
  QCC_UNROLL
  for (int c = 0; c < 8; ++c) {
    int32_t word;
    __builtin_memcpy(&word, w + 4 * c, 4);
    QCC_UNROLL
    for (int v = 0; v < tile; ++v) {
      acc[tile * c + v] = _mm512_dpbusd_epi32(acc[tile * c + v], pixels[v], _mm512_set1_epi32(word));
    }
  }
}

/* Channels `first` to `first` + 7 of `tile` registers of pixels to bytes. skip, quads: [first channel / 4][register]. */
QCC_INLINE void qcc_few_eight(const int tile, const int taps, const qcc_few *f, ptrdiff_t first, const int8_t *w,
                              const uint8_t *const *x, __m512i (*skip)[QCC_FEW_TILE], __m512i (*quads)[QCC_FEW_TILE]) {
  __m512i acc[8 * QCC_FEW_TILE];
  QCC_UNROLL
  for (int c = 0; c < 8; ++c) {
    QCC_UNROLL
    for (int v = 0; v < tile; ++v) {
      acc[tile * c + v] = _mm512_set1_epi32(f->bias[first + c]);
    }
  }
  ptrdiff_t line = 0;
  for (int32_t l = 0; l < f->lines; ++l, line += f->plane) {
    if (taps) {
      QCC_UNROLL
      for (int k = 0; k < taps; ++k, w += 32) {
        qcc_few_tap(tile, x, line + 4 * k, w, acc);
      }
    } else {
      for (int32_t k = 0; k < f->taps; ++k, w += 32) {
        qcc_few_tap(tile, x, line + 4 * k, w, acc);
      }
    }
  }
  QCC_UNROLL
  for (int g = 0; g < 2; ++g) {
    if (first + 4 * g < f->channels) {
      QCC_UNROLL
      for (int v = 0; v < tile; ++v) {
        __m512i four[4];
        QCC_UNROLL
        for (int k = 0; k < 4; ++k) {
          four[k] = acc[tile * (4 * g + k) + v];
        }
        if (f->skip) {
          qcc_few_add(four, skip[g][v], f->skip_multiplier + 2 * (first + 4 * g));
        }
        __m512i q = qcc_few_requantize(four, f->scale + first + 4 * g, f->zero_point);
        if (f->clamps) {
          q = _mm512_max_epi8(q, _mm512_set1_epi8((char)f->low));
          q = _mm512_min_epi8(q, _mm512_set1_epi8((char)f->high));
        }
        quads[g][v] = q;
      }
    }
  }
}

/* `tile` registers of pixels from the one at (y, column) on, all channels. */
QCC_INLINE void qcc_few_tile(const int tile, const int taps, const qcc_few *f, int32_t y, int32_t column) {
  const uint8_t *x[QCC_FEW_TILE];
  ptrdiff_t start[QCC_FEW_TILE];
  int32_t count[QCC_FEW_TILE];
  QCC_UNROLL
  for (int v = 0; v < tile; ++v) {
    x[v] = f->planes + y * f->row + column * 64;
    start[v] = ((ptrdiff_t)y * f->width + 16 * column) * f->step;
    count[v] = f->width - 16 * column;
    const int ends = count[v] <= 16;
    y += ends;
    column = ends ? 0 : column + 1;
  }
  const int8_t *w = f->weights;
  for (ptrdiff_t o = 0; o < f->channels; o += 16) {
    const __mmask16 channels = qcc_few_first(f->channels - (int32_t)o);
    __m512i quads[4][QCC_FEW_TILE], skip[4][QCC_FEW_TILE];
    if (f->skip) {
      QCC_UNROLL
      for (int v = 0; v < tile; ++v) {
        __m512i four[4];
        qcc_few_load(f->skip + start[v] + o, f->step, channels, count[v], four);
        QCC_UNROLL
        for (int i = 0; i < 4; ++i) {
          skip[i][v] = four[i];
        }
      }
    }
    for (int half = 0; half < 2; ++half, w += 32 * f->lines * f->taps) {
      if (o + 8 * half < f->channels) {
        qcc_few_eight(tile, taps, f, o + 8 * half, w, x, skip + 2 * half, quads + 2 * half);
      }
    }
    QCC_UNROLL
    for (int v = 0; v < tile; ++v) {
      __m512i four[4];
      QCC_UNROLL
      for (int i = 0; i < 4; ++i) {
        four[i] = quads[i][v];
      }
      qcc_few_store(f->output + start[v] + o, f->step, channels, count[v], four);
    }
  }
}

/* The same with sizes known to the compiler, so that the sums stay in registers. taps: 3, or 0 for any number. */
#define QCC_FEW_FUNCTION(name, tile, taps)                                                     \
  static void name(const qcc_few *f, int32_t y, int32_t column) { qcc_few_tile(tile, taps, f, y, column); }
QCC_FEW_FUNCTION(tile_of_one, 1, 0)
QCC_FEW_FUNCTION(tile_of_one_3, 1, 3)
QCC_FEW_FUNCTION(tile_of_all, QCC_FEW_TILE, 0)
QCC_FEW_FUNCTION(tile_of_all_3, QCC_FEW_TILE, 3)
typedef void qcc_few_function(const qcc_few *, int32_t, int32_t);
static qcc_few_function *const tiles[2][2] = {{tile_of_one, tile_of_one_3}, {tile_of_all, tile_of_all_3}};

/* `count` rows of the output, from the planes of their taps. */
static void qcc_few_rows(const qcc_few *f, int32_t count) {
  const int32_t across = (f->width + 15) / 16;
  for (int32_t i = 0, left = count * across; left > 0;) {
    const int all = left >= QCC_FEW_TILE;
    tiles[all][f->taps == 3](f, i / across, i % across);
    i += all ? QCC_FEW_TILE : 1;
    left -= all ? QCC_FEW_TILE : 1;
  }
}

void qcc_s8_conv2d_few_avx512vnni(const qcc_avx512_conv_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                                  const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                                  const int16_t *QCC_RESTRICT skip_multiplier, const float *QCC_RESTRICT scale,
                                  int8_t *output, void *workspace) {
  const qcc_avx512_conv_params *p = params;
  const int32_t quads = (p->input_channels + 3) / 4, across = (p->output_width + 15) / 16;
  uint8_t *planes = (uint8_t *)workspace;
  qcc_few f;
  f.planes = planes;
  f.plane = 4 * (16 * across + p->kernel_width - 1);
  f.row = p->stride_height * quads * f.plane;
  f.lines = p->kernel_height * quads;
  f.taps = p->kernel_width;
  f.width = p->output_width;
  f.channels = p->output_channels;
  f.step = p->output_step;
  f.weights = weights;
  f.bias = bias;
  f.skip_multiplier = skip_multiplier;
  f.scale = scale;
  f.zero_point = p->output_zero_point;
  f.low = p->low;
  f.high = p->high;
  f.clamps = p->low > -128 || p->high < 127;
  const int32_t shared = p->kernel_height > p->stride_height ? p->kernel_height - p->stride_height : 0;
  const ptrdiff_t image_row = quads * f.plane, output_row = (ptrdiff_t)p->output_width * p->output_step;
  for (int32_t n = 0; n < p->batch; ++n) {
    const int8_t *image = input + (ptrdiff_t)n * p->input_height * p->input_width * p->input_step;
    for (int32_t y = 0; y < p->output_height; y += QCC_FEW_ROWS) {
      const int32_t count = p->output_height - y < QCC_FEW_ROWS ? p->output_height - y : QCC_FEW_ROWS;
      const int32_t kept = y > 0 ? shared : 0;
      __builtin_memmove(planes, planes + QCC_FEW_ROWS * f.row, (size_t)(kept * image_row)); /* seen by both */
      qcc_few_copy(p, image, planes + kept * image_row, f.plane, y * p->stride_height + kept,
                   (count - 1) * p->stride_height + p->kernel_height - kept);
      const ptrdiff_t start = (n * p->output_height + y) * output_row;
      f.skip = skip ? skip + start : NULL;
      f.output = output + start;
      qcc_few_rows(&f, count);
    }
  }
}
