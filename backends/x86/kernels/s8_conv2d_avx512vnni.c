/* s8_conv2d_avx512vnni: 2-D convolution as an implicit matrix product, with requantization and a residual operand.
 *
 * input    int8[batch][input_height][input_width][input_channels]
 * skip     int8, shape of the output, or NULL
 * weights  int8[blocks][taps][ceil(input_channels / 4)][vectors][16][4]: blocks of up to 64 output channels (4 vectors of
 *          16; the last block has as many vectors as it needs), zero where there is no channel
 * bias     int32[output channels rounded up to 16], with -128 * sum(w) and the zero_point of the input folded in
 * skip_multiplier  int32[the same], or NULL
 * scale    float[the same], certified
 * padding  int8[input_channels], all pad_value: the pixel around the image
 * output   int8[batch][output_height][output_width][output_channels]; may be written over skip
 *
 * groups is 1; any stride, dilation and padding. A register tile is `rows` output pixels by one block of channels; the taps of
 * a pixel are read through pointers, so there is no im2col buffer.
 * Reference: Conv2d.int_ref, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_avx512vnni.h"

#define MAX_ROWS 14

typedef struct {
  const int8_t *input;   /* of this image */
  const int8_t *padding;
  ptrdiff_t offset[MAX_ROWS]; /* of tap (0, 0) */
  int32_t y[MAX_ROWS], x[MAX_ROWS];
} pixels;

/* One tile: `rows` pixels by `vectors` * 16 channels, all taps. */
QCC_INLINE void conv_tile(const int rows, const int vectors, const qcc_conv2d_params *p, const pixels *at, const int8_t *w,
                          const int32_t *bias, const float *scale, const int32_t *skip_multiplier, const int8_t *skip,
                          int8_t *output, int32_t valid, __mmask16 last) {
  __m512i acc[24 + 4];
  const ptrdiff_t line = (ptrdiff_t)p->input_width * p->input_channels;
  const int32_t quads = p->input_channels / 4, rest = p->input_channels % 4;
  QCC_UNROLL
  for (int v = 0; v < vectors; ++v) {
    const __m512i b = _mm512_loadu_si512(bias + 16 * v);
    QCC_UNROLL
    for (int r = 0; r < rows; ++r) {
      acc[r * vectors + v] = b;
    }
  }
  for (int32_t a = 0; a < p->kernel_height; ++a) {
    for (int32_t b = 0; b < p->kernel_width; ++b) {
      const int32_t dy = a * p->dilation_height, dx = b * p->dilation_width;
      const ptrdiff_t tap = dy * line + (ptrdiff_t)dx * p->input_channels;
      const int8_t *x[MAX_ROWS];
      QCC_UNROLL
      for (int r = 0; r < rows; ++r) {
        const int inside = (uint32_t)(at->y[r] + dy) < (uint32_t)p->input_height &&
                           (uint32_t)(at->x[r] + dx) < (uint32_t)p->input_width;
        x[r] = inside ? at->input + (at->offset[r] + tap) : at->padding;
      }
      for (int32_t k = 0; k < quads; ++k) {
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
      if (rest) {
        __m512i column[4];
        QCC_UNROLL
        for (int v = 0; v < vectors; ++v) {
          column[v] = _mm512_loadu_si512(w + 64 * v);
        }
        QCC_UNROLL
        for (int r = 0; r < rows; ++r) {
          const __m512i row = qcc_broadcast_u8_part(x[r] + 4 * quads, rest);
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
        _mm_mask_storeu_epi8(output + pixel + 16 * v, mask, qcc_avx512_requantize(sum, _mm512_loadu_ps(scale + 16 * v), o));
      }
    }
  }
}

/* The same with the numbers of rows and vectors known to the compiler, so that the tile stays in registers. */
#define TILE(rows, vectors)                                                                                       \
  static void tile_##rows##x##vectors(const qcc_conv2d_params *p, const pixels *at, const int8_t *w, const int32_t *bias, \
                                      const float *scale, const int32_t *skip_multiplier, const int8_t *skip,     \
                                      int8_t *output, int32_t valid, __mmask16 last) {                            \
    conv_tile(rows, vectors, p, at, w, bias, scale, skip_multiplier, skip, output, valid, last);                  \
  }
TILE(6, 4)
TILE(8, 3)
TILE(12, 2)
TILE(14, 1)

void qcc_s8_conv2d_avx512vnni(const qcc_conv2d_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                              const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                              const int32_t *QCC_RESTRICT skip_multiplier, const float *QCC_RESTRICT scale,
                              const int8_t *QCC_RESTRICT padding, int8_t *output) {
  const qcc_conv2d_params *p = params;
  const int32_t count = p->output_height * p->output_width;
  const ptrdiff_t steps = (ptrdiff_t)p->kernel_height * p->kernel_width * ((p->input_channels + 3) / 4);
  const ptrdiff_t image = (ptrdiff_t)p->input_height * p->input_width * p->input_channels;

  for (int32_t n = 0; n < p->batch; ++n) {
    const int8_t *w = weights;
    for (int32_t o = 0; o < p->output_channels; o += 64) {
      const int32_t left = p->output_channels - o;
      const int32_t vectors = left >= 64 ? 4 : (left + 15) / 16;
      const __mmask16 last = left % 16 && left < 64 ? (__mmask16)((1u << (left % 16)) - 1u) : (__mmask16)0xFFFF;
      const int32_t rows = vectors == 4 ? 6 : vectors == 3 ? 8 : vectors == 2 ? 12 : 14;
      int32_t oy = 0, ox = 0;
      for (int32_t first = 0; first < count; first += rows) {
        const int32_t valid = count - first < rows ? count - first : rows;
        pixels at;
        at.input = input + n * image;
        at.padding = padding;
        for (int32_t r = 0; r < rows; ++r) {
          at.y[r] = oy * p->stride_height - p->pad_top;
          at.x[r] = ox * p->stride_width - p->pad_left;
          at.offset[r] = ((ptrdiff_t)at.y[r] * p->input_width + at.x[r]) * p->input_channels;
          if (r < valid - 1 || (r == valid - 1 && valid == rows)) { /* rows beyond the image repeat its last pixel */
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
          case 4: tile_6x4(p, &at, w, bias + o, scale + o, m, s, output + start, valid, last); break;
          case 3: tile_8x3(p, &at, w, bias + o, scale + o, m, s, output + start, valid, last); break;
          case 2: tile_12x2(p, &at, w, bias + o, scale + o, m, s, output + start, valid, last); break;
          default: tile_14x1(p, &at, w, bias + o, scale + o, m, s, output + start, valid, last); break;
        }
      }
      w += steps * vectors * 64;
    }
  }
}
