/* s8_conv2d_stem_avx512vnni: 2-D convolution of images with few channels, whose kernel rows leave one byte over.
 *
 * A kernel row of 3 x 3 channels is 9 bytes: two quads (four bytes, what vpdpbusd adds up) and one byte, for which a third
 * quad would be three quarters zero. The last bytes of four kernel rows make one quad: 3 x 3 x 3 takes seven, not nine.
 * They are gathered for all pixels of an output row, before it, as far apart as the pixels are.
 *
 * input    int8[batch][input_height][input_width][input_channels]
 * weights  int8[blocks][quads][vectors][16][4]: blocks of `vectors` * 16 output channels in the order of
 *          qcc_avx512vnni_conv.h; the quads of all kernel rows, then those of their last bytes, zero behind the last row
 * bias     int32[output_channels up to whole blocks], in that order, with -128 * sum(w) and the zero_point of the input
 *          folded in
 * scale    float[as bias]: see single_rounding in vnni.py
 * output   int8[batch][output_height][output_width], pixels output_step bytes apart, each [output_channels]
 * workspace  uint8: the padded image, 64 bytes, and for each quad of last bytes one for each output pixel, stride_width *
 *          input_channels bytes apart, up to whole registers, and 6 more, which the last tile of a row may read
 *
 * kernel_width * input_channels is 4 * n + 1, stride_width * input_channels from 4 to 64; there are up to 128 quads; vectors
 * is 2 or 4, and output_channels, up to a multiple of 16, a multiple of `vectors` * 16.
 * Reference: Conv2d.int_ref, Requantize.int_ref.
 */
#include "qcc_avx512vnni.h"

#define QCC_STEM_QUADS 128 /* at most */
#define QCC_STEM_HALF 12   /* vectors of half a tile */

typedef struct {
  int32_t quads;                /* of the kernel rows and then of their last bytes */
  const ptrdiff_t *at;          /* bytes from the first tap of a pixel to each of them */
  ptrdiff_t pixel, output_step; /* bytes from pixel to pixel */
  const int8_t *weights;
  const int32_t *bias;
  const float *scale;
  float integer; /* for qcc_requantize_bits: repeated from memory they need no vector unit */
  int32_t bits, low, high;
  __mmask64 lanes; /* the channels that exist */
} qcc_stem;

/* Four vectors of sums to 64 bytes: one pixel, or two of 32 channels. */
QCC_INLINE void qcc_stem_store(const int vectors, const qcc_stem *s, const __m512i *sums, int8_t *output, const int both) {
  __m512i q[4];
  QCC_UNROLL
  for (int i = 0; i < 4; ++i) {
    q[i] = qcc_requantize_bits(sums[i], _mm512_loadu_ps(s->scale + 16 * (i % vectors)), _mm512_set1_ps(s->integer),
                               _mm512_set1_epi32(s->bits));
  }
  __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
  bytes = _mm512_max_epi8(bytes, _mm512_set1_epi8((char)s->low));
  bytes = _mm512_min_epi8(bytes, _mm512_set1_epi8((char)s->high));
  if (vectors == 4) {
    _mm512_mask_storeu_epi8(output, s->lanes, bytes);
    return;
  }
  bytes = _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15), bytes);
  _mm256_mask_storeu_epi8(output, (__mmask32)s->lanes, _mm512_castsi512_si256(bytes));
  if (both) {
    _mm256_mask_storeu_epi8(output + s->output_step, (__mmask32)s->lanes, _mm512_extracti64x4_epi64(bytes, 1));
  }
}

QCC_INLINE void qcc_stem_bias(const int rows, const int vectors, const int32_t *bias, __m512i *acc) {
  QCC_UNROLL
  for (int v = 0; v < vectors; ++v) {
    const __m512i b = _mm512_loadu_si512(bias + 16 * v);
    QCC_UNROLL
    for (int r = 0; r < rows; ++r) {
      acc[r * vectors + v] = b;
    }
  }
}

/* Adds quads `from` to `to` of the pixels from x on. */
QCC_INLINE void qcc_stem_quads(const int rows, const int vectors, const qcc_stem *s, const uint8_t *x, int32_t from,
                               int32_t to, __m512i *acc) {
  const int8_t *w = s->weights + 64 * vectors * (ptrdiff_t)from;
  for (int32_t k = from; k < to; ++k, w += 64 * vectors) {
    const uint8_t *quad = x + s->at[k];
    __m512i column[4];
    QCC_UNROLL
    for (int v = 0; v < vectors; ++v) {
      column[v] = _mm512_loadu_si512(w + 64 * v);
      QCC_IN_REGISTER(column[v]);
    }
    QCC_UNROLL
    for (int r = 0; r < rows; ++r) {
      int32_t word;
      __builtin_memcpy(&word, quad + r * s->pixel, 4);
      const __m512i row = _mm512_set1_epi32(word);
      QCC_UNROLL
      for (int v = 0; v < vectors; ++v) {
        acc[r * vectors + v] = _mm512_dpbusd_epi32(acc[r * vectors + v], row, column[v]);
        QCC_IN_REGISTER(acc[r * vectors + v]);
      }
    }
  }
}

/* `width` pixels of a row, one block of channels. x: the first tap of the first pixel. The products of a tile and the
 * requantization of the tile before it take turns (see qcc_conv_turns). The last tile computes what nobody wants where the
 * row ends within it. */
QCC_INLINE void qcc_stem_pixels(const int rows, const int vectors, const qcc_stem *whole, const uint8_t *x, int8_t *output,
                                int32_t width) {
  const int pixels = 4 / vectors, turns = rows / pixels;
  const qcc_stem s = *whole; /* a copy, which no store to the output changes */
  const int32_t part = s.quads / turns;
  __m512i acc[QCC_STEM_HALF], done[QCC_STEM_HALF];
  qcc_stem_bias(rows, vectors, s.bias, acc);
  qcc_stem_quads(rows, vectors, &s, x, 0, s.quads, acc);
  for (; width > 0; width -= rows) {
    const int32_t quads = width > rows ? s.quads : 0;
    x += rows * s.pixel;
    QCC_UNROLL
    for (int i = 0; i < rows * vectors; ++i) {
      done[i] = acc[i];
    }
    qcc_stem_bias(rows, vectors, s.bias, acc);
    QCC_UNROLL
    for (int i = 0; i < turns; ++i) {
      if (i * pixels < width) {
        qcc_stem_store(vectors, &s, done + 4 * i, output, i * pixels + 1 < width);
        output += pixels * s.output_step;
      }
      qcc_stem_quads(rows, vectors, &s, x, quads ? i * part : 0, i == turns - 1 || !quads ? quads : (i + 1) * part, acc);
    }
  }
}

/* The same with sizes known to the compiler, so that the sums stay in registers. */
static void pixels_3x4(const qcc_stem *s, const uint8_t *x, int8_t *output, int32_t width) {
  qcc_stem_pixels(3, 4, s, x, output, width);
}
static void pixels_6x2(const qcc_stem *s, const uint8_t *x, int8_t *output, int32_t width) {
  qcc_stem_pixels(6, 2, s, x, output, width);
}

/* `bytes` bytes of the quads of the last bytes of up to four kernel rows. Byte a of a pixel comes from row a, read from
 * `a` bytes before it on. phases: the byte of its pixel that each of the first 64 is. */
static void qcc_stem_lasts(const uint8_t *x, ptrdiff_t line, int32_t rows, ptrdiff_t pixel, ptrdiff_t bytes,
                           const uint8_t *phases, uint8_t *to) {
  const __m512i size = _mm512_set1_epi8((char)pixel), next = _mm512_set1_epi8((char)(64 % pixel));
  __m512i phase = _mm512_loadu_si512(phases);
  for (ptrdiff_t i = 0; i < bytes; i += 64) {
    __m512i quads = _mm512_loadu_si512(x + i);
    for (int32_t a = 1; a < rows; ++a) {
      const __mmask64 here = _mm512_cmpeq_epi8_mask(phase, _mm512_set1_epi8((char)a));
      quads = _mm512_mask_blend_epi8(here, quads, _mm512_loadu_si512(x + i + a * (line - 1)));
    }
    _mm512_storeu_si512(to + i, quads);
    phase = _mm512_add_epi8(phase, next);
    phase = _mm512_mask_sub_epi8(phase, _mm512_cmpge_epu8_mask(phase, size), phase, size);
  }
}

static void qcc_stem_fill(uint8_t *to, int32_t value, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; ++i) {
    to[i] = (uint8_t)(value ^ 0x80);
  }
}

/* The part of the padded image that the taps reach, height x width pixels, as uint8. */
static void qcc_stem_pad(const qcc_avx512_conv_params *p, const int8_t *input, uint8_t *to, int32_t height, int32_t width) {
  const __m512i sign = _mm512_set1_epi8((char)0x80);
  const ptrdiff_t c = p->input_channels, line = width * c;
  const int32_t left = p->pad_left < width ? p->pad_left : width;
  const int32_t inside = p->input_width < width - left ? p->input_width : width - left;
  for (int32_t y = 0; y < height; ++y, to += line) {
    const int32_t row = y - p->pad_top;
    if (row < 0 || row >= p->input_height) {
      qcc_stem_fill(to, p->pad_value, line);
      continue;
    }
    const int8_t *from = input + (ptrdiff_t)row * p->input_width * c;
    qcc_stem_fill(to, p->pad_value, left * c);
    ptrdiff_t i = 0;
    for (; i + 64 <= inside * c; i += 64) {
      _mm512_storeu_si512(to + left * c + i, _mm512_xor_si512(_mm512_loadu_si512(from + i), sign));
    }
    const __mmask64 rest = ((__mmask64)1 << (inside * c - i)) - 1;
    _mm512_mask_storeu_epi8(to + left * c + i, rest, _mm512_xor_si512(_mm512_maskz_loadu_epi8(rest, from + i), sign));
    qcc_stem_fill(to + (left + inside) * c, p->pad_value, (width - left - inside) * c);
  }
}

void qcc_s8_conv2d_stem_avx512vnni(const qcc_avx512_conv_params *params, const int8_t *QCC_RESTRICT input,
                                   const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                                   const float *QCC_RESTRICT scale, int8_t *QCC_RESTRICT output, void *workspace) {
  const qcc_avx512_conv_params *p = params;
  const int32_t height = (p->output_height - 1) * p->stride_height + p->kernel_height;
  const int32_t width = (p->output_width - 1) * p->stride_width + p->kernel_width;
  const int32_t run = p->kernel_width * p->input_channels / 4, quads = p->kernel_height * run + (p->kernel_height + 3) / 4;
  const ptrdiff_t line = (ptrdiff_t)width * p->input_channels, pixel = (ptrdiff_t)p->stride_width * p->input_channels;
  const ptrdiff_t bytes = (p->output_width * pixel + 63) / 64 * 64; /* of a row of quads of last bytes */
  uint8_t *image = (uint8_t *)workspace, *lasts = image + height * line + 64;
  uint8_t phases[64];
  ptrdiff_t at[QCC_STEM_QUADS];
  qcc_stem s;
  s.quads = quads;
  s.at = at;
  s.pixel = pixel;
  s.output_step = p->output_step;
  s.integer = (float)(0xC00000 + p->output_zero_point);
  s.bits = QCC_ROUNDED_BITS;
  s.low = p->low;
  s.high = p->high;
  for (int32_t k = 0; k < p->kernel_height * run; ++k) {
    at[k] = k / run * line + k % run * 4;
  }
  for (int32_t i = 0; i < 64; ++i) {
    phases[i] = (uint8_t)(i % pixel);
  }
  for (int32_t n = 0; n < p->batch; ++n) {
    qcc_stem_pad(p, input + (ptrdiff_t)n * p->input_height * p->input_width * p->input_channels, image, height, width);
    for (int32_t i = 0; i < p->output_height; ++i, output += p->output_width * p->output_step) {
      const uint8_t *x = image + i * p->stride_height * line;
      for (int32_t k = 0; 4 * k < p->kernel_height; ++k) {
        const int32_t rows = p->kernel_height - 4 * k < 4 ? p->kernel_height - 4 * k : 4;
        qcc_stem_lasts(x + 4 * (k * line + run), line, rows, pixel, bytes, phases, lasts + k * bytes);
        at[p->kernel_height * run + k] = lasts + k * bytes - x;
      }
      for (int32_t o = 0; o < p->output_channels; o += 16 * p->vectors) {
        s.weights = weights + (ptrdiff_t)o * 4 * quads;
        s.bias = bias + o;
        s.scale = scale + o;
        s.lanes = ~(__mmask64)0 >> (p->output_channels - o < 64 ? 64 - (p->output_channels - o) : 0);
        (p->vectors == 4 ? pixels_3x4 : pixels_6x2)(&s, x, output + o, p->output_width);
      }
    }
  }
}
