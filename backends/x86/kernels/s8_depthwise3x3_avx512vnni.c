/* s8_depthwise3x3_avx512vnni: 3x3 convolution of each channel with its own filter; strides (1, 1) or (2, 2), no dilation.
 *
 * input    int8[batch][input_height][input_width][channels]
 * skip     int8, shape of the output, or NULL
 * weights  int8[blocks][3][rows][4][16][4]: blocks of 64 channels, kernel columns, output rows (2 with stride 1, else 1),
 *          lanes, and the three weights of the column with a zero: behind them for row 0, before them for row 1
 * bias     int32[blocks][64], with -128 * sum(w) and the zero_point of the input folded in
 * skip_multiplier  int32[blocks][64], or NULL
 * scale    float[blocks][64]
 * output   int8[batch][output_height][output_width][channels]; may be written over skip
 *
 * With stride 1, two rows of output read four rows of input: one column of these, interleaved, is the operand of both. A
 * tile is two pixels wide, so that two of its four columns serve both pixels. With `pixels` > 1 (few channels), a vector
 * holds that many neighbouring pixels, the weights repeat, and there is one block.
 *
 * Time for 64 outputs in the first-level cache, on Zen 5: this 3.7 ns; without the tile 4.9 ns; all 9 taps as three
 * quads (s8_depthwise_conv2d_avx512vnni) 7.6 ns; pairs of taps as int16 (vpdpwssd) 7.1 ns; int32 lanes (vpmulld) 11.3 ns.
 * Reference: Conv2d.int_ref, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_avx512_depthwise.h"

/* The rows of input under `rows` rows of output, from column 0 and the block's first channel on. */
typedef struct {
  const int8_t *row[4];
  __mmask64 inside[4]; /* all or none */
} input_rows;

/* `rows` rows by `pixels` vectors at output column x. `edge`: some of what is read lies outside the image. */
QCC_INLINE void tile(const int rows, const int pixels, const int stride, const int edge,
                     const qcc_avx512_depthwise_params *p, const input_rows *in, const int8_t *w,
                     const qcc_depthwise_block *block, int32_t x, __mmask64 lanes, qcc_lanes_output o) {
  const int32_t left = x * stride - p->pad_left;
  const ptrdiff_t channels = p->channels;
  const __m512i padding = _mm512_set1_epi8((int8_t)p->pad_value);
  __m512i acc[2 * 2 * 4];
  QCC_UNROLL
  for (int i = 0; i < 4 * rows * pixels; ++i) {
    acc[i] = _mm512_loadu_si512(block->bias + 16 * (i % 4));
  }
  QCC_UNROLL
  for (int b = 0; b < 3 + stride * (pixels - 1); ++b) {
    const __mmask64 inside = edge ? qcc_columns_inside(p, left + b, block->lanes) : block->lanes;
    __m512i column[4], quads[4];
    QCC_UNROLL
    for (int r = 0; r < rows + 2; ++r) {
      const int8_t *at = in->row[r] + (left + b) * channels;
      column[r] = edge ? qcc_load_padded(at, inside & in->inside[r], padding)
                       : qcc_centre(_mm512_maskz_loadu_epi8(inside, at));
    }
    if (rows == 1) {
      column[3] = column[2]; /* its weights are zero */
    }
    qcc_interleave(column, quads);
    QCC_UNROLL
    for (int i = 0; i < pixels; ++i) {
      const int tap = b - stride * i;
      if (tap >= 0 && tap < 3) {
        QCC_UNROLL
        for (int j = 0; j < 4 * rows; ++j) {
          acc[4 * rows * i + j] = _mm512_dpbusd_epi32(acc[4 * rows * i + j], quads[j % 4],
                                                      _mm512_loadu_si512(w + 64 * (4 * (3 - stride) * tap + j)));
        }
      }
    }
  }
  QCC_UNROLL
  for (int i = 0; i < pixels; ++i) {
    QCC_UNROLL
    for (int r = 0; r < rows; ++r) {
      const ptrdiff_t pixel = (ptrdiff_t)r * p->output_width + x + i;
      qcc_depthwise_finish(p, block, acc + 4 * (rows * i + r), pixel * channels, lanes, o);
    }
  }
}

/* One block of `rows` rows. */
QCC_INLINE void strip(const int rows, const int stride, const qcc_avx512_depthwise_params *p, const input_rows *in,
                      const int8_t *w, const qcc_depthwise_block *block) {
  const qcc_lanes_output o = qcc_lanes_saturation(p->output_zero_point, p->low, p->high);
  int inside = 1;
  for (int r = 0; r < rows + 2; ++r) {
    inside &= in->inside[r] != 0;
  }
  /* columns of output from `first` on, before `end`, read nothing outside the image */
  const int32_t first = inside ? (p->pad_left + stride - 1) / stride : p->output_width;
  const int32_t room = p->input_width + p->pad_left - 3;
  const int32_t end = room < 0 ? 0 : room / stride + 1;
  int32_t x = 0;
  if (p->pixels == 1) {
    for (; x + 2 <= p->output_width; x += 2) {
      if (x >= first && x + 2 <= end) {
        tile(rows, 2, stride, 0, p, in, w, block, x, block->lanes, o);
      } else {
        tile(rows, 2, stride, 1, p, in, w, block, x, block->lanes, o);
      }
    }
  }
  for (; x < p->output_width; x += p->pixels) {
    if (x >= first && x + p->pixels <= end && x + p->pixels <= p->output_width) {
      tile(rows, 1, stride, 0, p, in, w, block, x, block->lanes, o);
    } else {
      const int32_t left = p->output_width - x;
      const __mmask64 lanes = left < p->pixels ? qcc_first_lanes(left * p->channels) : block->lanes;
      tile(rows, 1, stride, 1, p, in, w, block, x, lanes, o);
    }
  }
}

/* The same with constants. */
#define STRIP(rows, stride)                                                                             \
  static void strip_##rows##_##stride(const qcc_avx512_depthwise_params *p, const input_rows *in,       \
                                      const int8_t *w, const qcc_depthwise_block *block) {              \
    strip(rows, stride, p, in, w, block);                                                               \
  }
STRIP(2, 1)
STRIP(1, 1)
STRIP(1, 2)

void qcc_s8_depthwise3x3_avx512vnni(const qcc_avx512_depthwise_params *params, const int8_t *QCC_RESTRICT input,
                                    const int8_t *skip, const int8_t *QCC_RESTRICT weights,
                                    const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                    const float *QCC_RESTRICT scale, int8_t *output) {
  const qcc_avx512_depthwise_params *p = params;
  const int32_t channels = p->channels, width = p->pixels * channels;
  const ptrdiff_t line = (ptrdiff_t)p->input_width * channels, output_line = (ptrdiff_t)p->output_width * channels;
  const int32_t sets = p->stride_height == 1 ? 2 : 1;
  for (int32_t n = 0; n < p->batch; ++n, input += line * p->input_height) {
    int32_t rows = sets;
    for (int32_t y = 0; y < p->output_height; y += rows) {
      rows = p->output_height - y < sets ? 1 : sets;
      const ptrdiff_t start = ((ptrdiff_t)n * p->output_height + y) * output_line;
      for (int32_t c = 0; c < width; c += 64) {
        input_rows in;
        for (int32_t r = 0; r < 4; ++r) {
          const int32_t row = y * p->stride_height - p->pad_top + r;
          const int inside = row >= 0 && row < p->input_height;
          in.row[r] = input + (inside ? row * line : 0) + c;
          in.inside[r] = inside ? ~(__mmask64)0 : 0;
        }
        const qcc_depthwise_block block = {scale + c,
                                           bias + c,
                                           skip_multiplier ? skip_multiplier + c : NULL,
                                           skip ? skip + start + c : NULL,
                                           output + start + c,
                                           qcc_first_lanes(width - c)};
        const int8_t *w = weights + (ptrdiff_t)12 * sets * c;
        if (rows == 2) {
          strip_2_1(p, &in, w, &block);
        } else if (sets == 2) {
          strip_1_1(p, &in, w, &block);
        } else {
          strip_1_2(p, &in, w, &block);
        }
      }
    }
  }
}
