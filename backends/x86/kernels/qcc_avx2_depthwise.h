/* Convolution of each channel with its own filter, of any size, stride and dilation; over qcc_dot16.
 *
 * input    int8[batch][input_height][input_width][channels]
 * skip     int8, shape of the output, or NULL
 * weights  int16[blocks][ceil(taps / 2)][2][8][2]: blocks of 16 channels (2 vectors, in the order of qcc_avx2.h), pairs of
 *          taps in the order of the filter; zeros fill the last pair
 * bias     int32[blocks][16], in the order of the vectors, with the zero_point of the input folded in
 * skip_multiplier  int32[blocks][16], or NULL
 * scale    float[blocks][16], certified
 * output   int8[batch][output_height][output_width][channels]; may be written over skip
 * workspace  the padded image under `band` rows of output as int16, and 32 bytes
 *
 * Up to 128 taps. Two taps are interleaved for one vpmaddwd; a tile is 4 pixels by 16 channels, so that a weight is loaded
 * once for 4 pixels.
 * Reference: Conv2d.int_ref, Add.int_ref, Requantize.int_ref.
 */
#ifndef QCC_AVX2_DEPTHWISE_H
#define QCC_AVX2_DEPTHWISE_H

#include "qcc_avx2_image.h"

enum { QCC_TAPS = 128 };

typedef struct {
  ptrdiff_t offset[QCC_TAPS]; /* bytes from the first tap; what fills the last pair repeats a tap */
  int32_t pairs;
} qcc_taps;

/* `pixels` vectors of 16 channels, `step` bytes apart. */
QCC_INLINE void qcc_depthwise_tile(const int pixels, const qcc_taps *taps, const int8_t *x, ptrdiff_t step,
                                   const int16_t *w, const int32_t *bias, const qcc_epilogue *e, ptrdiff_t first) {
  const ptrdiff_t *offset = taps->offset;
  __m256i acc[8];
  QCC_UNROLL
  for (int i = 0; i < 2 * pixels; ++i) {
    acc[i] = qcc_load(bias + 8 * (i % 2));
  }
  for (int32_t t = 0; t < taps->pairs; ++t, offset += 2, w += 32) {
    const __m256i low = qcc_load(w), high = qcc_load(w + 16);
    QCC_UNROLL
    for (int i = 0; i < pixels; ++i) {
      const __m256i a = qcc_load(x + i * step + offset[0]), b = qcc_load(x + i * step + offset[1]);
      qcc_dot16(&acc[2 * i], _mm256_unpacklo_epi16(a, b), low);
      qcc_dot16(&acc[2 * i + 1], _mm256_unpackhi_epi16(a, b), high);
    }
  }
  QCC_UNROLL
  for (int i = 0; i < pixels; i += 2) {
    qcc_finish(2, e, acc + 2 * i, acc + 2 * i + 2 * (pixels > 1), (first + i) * e->step,
               (first + i + 1) * e->step, pixels > 1);
  }
}

/* A row of `count` pixels of one block of channels. */
static void qcc_depthwise_row(const qcc_taps *taps, const int8_t *x, ptrdiff_t step, int32_t count, const int16_t *w,
                              const int32_t *bias, const qcc_epilogue *e) {
  int32_t i = 0;
  for (; i + 4 <= count; i += 4, x += 4 * step) {
    qcc_depthwise_tile(4, taps, x, step, w, bias, e, i);
  }
  if (i + 2 <= count) {
    qcc_depthwise_tile(2, taps, x, step, w, bias, e, i);
    i += 2;
    x += 2 * step;
  }
  if (i < count) {
    qcc_depthwise_tile(1, taps, x, step, w, bias, e, i);
  }
}

QCC_INLINE void qcc_depthwise_conv2d(const qcc_avx2_conv2d_params *p, const int8_t *input, const int8_t *skip,
                                     const int16_t *weights, const int32_t *bias, const int32_t *skip_multiplier,
                                     const float *scale, int8_t *output, int8_t *workspace) {
  const int32_t channels = p->output_channels, count = p->kernel_height * p->kernel_width;
  const int32_t width = qcc_reach(p->output_width, p->stride_width, p->kernel_width, p->dilation_width);
  const ptrdiff_t pixel = (ptrdiff_t)2 * channels, line = pixel * width;
  const qcc_output saturation = qcc_saturation(p->output_zero_point, p->low, p->high);
  qcc_taps taps;
  taps.pairs = (count + 1) / 2;
  for (int32_t t = 0; t < 2 * taps.pairs; ++t) {
    const int32_t tap = t < count ? t : 0;
    taps.offset[t] = tap / p->kernel_width * p->dilation_height * line + tap % p->kernel_width * p->dilation_width * pixel;
  }
  const ptrdiff_t image = (ptrdiff_t)p->input_height * p->input_width * channels;
  for (int32_t n = 0; n < p->batch; ++n, input += image) {
    for (int32_t y = 0; y < p->output_height; ++y) {
      const int32_t row = y % p->band;
      if (row == 0) {
        const int32_t rows = p->output_height - y < p->band ? p->output_height - y : p->band;
        const int32_t height = qcc_reach(rows, p->stride_height, p->kernel_height, p->dilation_height);
        qcc_copy_padded(2, p, input, workspace, y * p->stride_height, height, width, 0);
        qcc_fill(2, workspace + height * line, 0, 16); /* a last vector may read it */
      }
      const ptrdiff_t start = ((ptrdiff_t)n * p->output_height + y) * p->output_width * channels;
      for (int32_t c = 0; c < channels; c += 16) {
        const qcc_epilogue e = {scale + c,
                                skip_multiplier ? skip_multiplier + c : NULL,
                                skip ? skip + start + c : NULL,
                                output + start + c,
                                channels,
                                channels - c < 16 ? channels - c : 16,
                                p->skip_zero_point,
                                saturation};
        const int8_t *x = workspace + row * p->stride_height * line + 2 * c;
        const int16_t *w = weights + (ptrdiff_t)2 * taps.pairs * c;
        qcc_depthwise_row(&taps, x, p->stride_width * pixel, p->output_width, w, bias + c, &e);
      }
    }
  }
}

#endif
