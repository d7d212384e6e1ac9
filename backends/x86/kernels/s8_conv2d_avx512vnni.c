/* s8_conv2d_avx512vnni: 2-D convolution as an implicit matrix product, with requantization and a residual operand.
 *
 * input    int8[batch][input_height][input_width][input_channels]
 * skip     int8, shape of the output, or NULL
 * weights  int8[blocks][kernel_height][runs][ceil(run / 4)][vectors][16][4]: blocks of up to 64 output channels (4 vectors
 *          of 16; the last block has as many vectors as it needs), zero where there is no channel. A run is what lies side by
 *          side in the input: a whole kernel row, or one tap where dilation_width is not 1
 * bias     int32[output channels rounded up to 16], with -128 * sum(w) and the zero_point of the input folded in
 * skip_multiplier  int32[the same], or NULL
 * scale    float[the same], certified
 * output   int8[batch][output_height][output_width][output_channels]; may be written over skip
 * workspace  where there is padding: the padded image and 64 bytes
 *
 * groups is 1; any stride, dilation and padding. A register tile is `rows` output pixels by one block of channels; their
 * runs are read where they are, so there is no im2col buffer. A padded image is copied first: that costs less than to ask
 * for each tap whether it is inside.
 * Reference: Conv2d.int_ref, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_avx512vnni.h"

#define MAX_ROWS 14

/* The image as the tiles see it: padded where needed. */
typedef struct {
  const int8_t *data;
  ptrdiff_t line, pixel;  /* bytes from row to row, from pixel to pixel */
  int32_t run_step, runs; /* bytes from run to run, runs in a kernel row */
  int32_t quads, rest;    /* 4-byte groups of a run that can be read whole, bytes behind them that must be read singly */
} image_view;

/* One tile: `rows` pixels by `vectors` * 16 channels, all taps. */
QCC_INLINE void conv_tile(const int rows, const int vectors, const qcc_conv2d_params *p, const image_view *at,
                          const ptrdiff_t *offset, const int8_t *w, const int32_t *bias, const float *scale,
                          const int32_t *skip_multiplier, const int8_t *skip, int8_t *output, int32_t valid,
                          __mmask16 last) {
  __m512i acc[24 + 4];
  QCC_UNROLL
  for (int v = 0; v < vectors; ++v) {
    const __m512i b = _mm512_loadu_si512(bias + 16 * v);
    QCC_UNROLL
    for (int r = 0; r < rows; ++r) {
      acc[r * vectors + v] = b;
    }
  }
  for (int32_t a = 0; a < p->kernel_height; ++a) {
    const int8_t *run = at->data + (ptrdiff_t)(a * p->dilation_height) * at->line;
    for (int32_t b = 0; b < at->runs; ++b, run += at->run_step) {
      const int8_t *x[MAX_ROWS];
      QCC_UNROLL
      for (int r = 0; r < rows; ++r) {
        x[r] = run + offset[r];
      }
      for (int32_t k = 0; k < at->quads; ++k) {
        __m512i column[4];
        QCC_UNROLL
        for (int v = 0; v < vectors; ++v) {
          column[v] = _mm512_loadu_si512(w + 64 * v);
        }
        QCC_UNROLL
        for (int r = 0; r < rows; ++r) {
          const __m512i row = qcc_broadcast_u8(x[r] + 4 * k);
          QCC_UNROLL
          for (int v = 0; v < vectors; ++v) {
            acc[r * vectors + v] = _mm512_dpbusd_epi32(acc[r * vectors + v], row, column[v]);
          }
        }
        w += 64 * vectors;
      }
      if (at->rest) {
        __m512i column[4];
        QCC_UNROLL
        for (int v = 0; v < vectors; ++v) {
          column[v] = _mm512_loadu_si512(w + 64 * v);
        }
        QCC_UNROLL
        for (int r = 0; r < rows; ++r) {
          const __m512i row = qcc_broadcast_u8_part(x[r] + 4 * at->quads, at->rest);
          QCC_UNROLL
          for (int v = 0; v < vectors; ++v) {
            acc[r * vectors + v] = _mm512_dpbusd_epi32(acc[r * vectors + v], row, column[v]);
          }
        }
        w += 64 * vectors;
      }
    }
  }
  const qcc_avx512_output o = {_mm512_set1_epi32(p->output_zero_point), _mm512_set1_epi32(p->low),
                               _mm512_set1_epi32(p->high)};
  QCC_UNROLL
  for (int r = 0; r < rows; ++r) {
    const ptrdiff_t pixel = (ptrdiff_t)r * p->output_channels;
    if (r < valid) {
      QCC_UNROLL
      for (int v = 0; v < vectors; ++v) {
        const __mmask16 mask = v == vectors - 1 ? last : (__mmask16)0xFFFF;
        __m512i sum = acc[r * vectors + v];
        if (skip) {
          const __m128i s = _mm_maskz_loadu_epi8(mask, skip + pixel + 16 * v);
          const __m512i centred = _mm512_sub_epi32(_mm512_cvtepi8_epi32(s), _mm512_set1_epi32(p->skip_zero_point));
          sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(centred, _mm512_loadu_si512(skip_multiplier + 16 * v)));
        }
        _mm_mask_storeu_epi8(output + pixel + 16 * v, mask,
                             qcc_avx512_requantize(sum, _mm512_loadu_ps(scale + 16 * v), o));
      }
    }
  }
}

/* The same with the numbers of rows and vectors known to the compiler, so that the tile stays in registers. */
#define TILE(rows, vectors)                                                                                     \
  static void tile_##rows##x##vectors(const qcc_conv2d_params *p, const image_view *at, const ptrdiff_t *offset, \
                                      const int8_t *w, const int32_t *bias, const float *scale,                 \
                                      const int32_t *skip_multiplier, const int8_t *skip, int8_t *output,       \
                                      int32_t valid, __mmask16 last) {                                          \
    conv_tile(rows, vectors, p, at, offset, w, bias, scale, skip_multiplier, skip, output, valid, last);        \
  }
TILE(6, 4)
TILE(8, 3)
TILE(12, 2)
TILE(14, 1)

static void fill(int8_t *to, int32_t value, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; ++i) {
    to[i] = (int8_t)value;
  }
}

/* The part of the padded image that the taps reach: height x width pixels. */
static void copy_padded(const qcc_conv2d_params *p, const int8_t *input, int8_t *to, int32_t height, int32_t width) {
  const ptrdiff_t c = p->input_channels;
  const int32_t from_left = p->pad_left < width ? p->pad_left : width;
  const int32_t inside = p->input_width < width - from_left ? p->input_width : width - from_left;
  for (int32_t y = 0; y < height; ++y, to += width * c) {
    const int32_t row = y - p->pad_top;
    if (row < 0 || row >= p->input_height) {
      fill(to, p->pad_value, width * c);
      continue;
    }
    fill(to, p->pad_value, from_left * c);
    __builtin_memcpy(to + from_left * c, input + row * p->input_width * c, (size_t)(inside * c));
    fill(to + (from_left + inside) * c, p->pad_value, (width - from_left - inside) * c);
  }
  fill(to, 0, 4); /* what a last group of four bytes may read beyond the image */
}

void qcc_s8_conv2d_avx512vnni(const qcc_conv2d_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                              const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                              const int32_t *QCC_RESTRICT skip_multiplier, const float *QCC_RESTRICT scale,
                              int8_t *output, void *workspace) {
  const qcc_conv2d_params *p = params;
  const int32_t count = p->output_height * p->output_width;
  const int32_t height = (p->output_height - 1) * p->stride_height + (p->kernel_height - 1) * p->dilation_height + 1;
  const int32_t width = (p->output_width - 1) * p->stride_width + (p->kernel_width - 1) * p->dilation_width + 1;
  const int padded = p->pad_top > 0 || p->pad_left > 0 || height > p->input_height || width > p->input_width;
  const int32_t run = (p->dilation_width == 1 ? p->kernel_width : 1) * p->input_channels;
  const ptrdiff_t image = (ptrdiff_t)p->input_height * p->input_width * p->input_channels;
  image_view at;
  at.pixel = p->input_channels;
  at.line = (ptrdiff_t)(padded ? width : p->input_width) * p->input_channels;
  at.runs = p->dilation_width == 1 ? 1 : p->kernel_width;
  at.run_step = p->dilation_width * p->input_channels;
  at.quads = padded ? (run + 3) / 4 : run / 4;
  at.rest = padded ? 0 : run % 4;
  const ptrdiff_t steps = (ptrdiff_t)p->kernel_height * at.runs * ((run + 3) / 4);

  for (int32_t n = 0; n < p->batch; ++n) {
    const int8_t *w = weights;
    at.data = input + n * image;
    if (padded) {
      copy_padded(p, at.data, (int8_t *)workspace, height, width);
      at.data = (const int8_t *)workspace;
    }
    for (int32_t o = 0; o < p->output_channels; o += 64) {
      const int32_t left = p->output_channels - o;
      const int32_t vectors = left >= 64 ? 4 : (left + 15) / 16;
      const __mmask16 last = left % 16 && left < 64 ? (__mmask16)((1u << (left % 16)) - 1u) : (__mmask16)0xFFFF;
      const int32_t rows = vectors == 4 ? 6 : vectors == 3 ? 8 : vectors == 2 ? 12 : 14;
      int32_t oy = 0, ox = 0;
      for (int32_t first = 0; first < count; first += rows) {
        const int32_t valid = count - first < rows ? count - first : rows;
        ptrdiff_t offset[MAX_ROWS];
        for (int32_t r = 0; r < rows; ++r) {
          offset[r] = oy * p->stride_height * at.line + ox * p->stride_width * at.pixel;
          if (r < valid - 1 || valid == rows) { /* rows beyond the image repeat its last pixel */
            if (++ox == p->output_width) {
              ox = 0;
              ++oy;
            }
          }
        }
        const ptrdiff_t start = ((ptrdiff_t)n * count + first) * p->output_channels + o;
        const int8_t *s = skip ? skip + start : NULL;
        const int32_t *m = skip_multiplier ? skip_multiplier + o : NULL;
        switch (vectors) {
          case 4: tile_6x4(p, &at, offset, w, bias + o, scale + o, m, s, output + start, valid, last); break;
          case 3: tile_8x3(p, &at, offset, w, bias + o, scale + o, m, s, output + start, valid, last); break;
          case 2: tile_12x2(p, &at, offset, w, bias + o, scale + o, m, s, output + start, valid, last); break;
          default: tile_14x1(p, &at, offset, w, bias + o, scale + o, m, s, output + start, valid, last); break;
        }
      }
      w += steps * vectors * 64;
    }
  }
}
