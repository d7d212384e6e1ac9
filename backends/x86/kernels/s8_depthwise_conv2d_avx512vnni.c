/* s8_depthwise_conv2d_avx512vnni: convolution of each channel with its own filter, of any size, stride and dilation.
 *
 * input    int8[batch][input_height][input_width][channels]
 * skip     int8, shape of the output, or NULL
 * weights  int8[blocks][ceil(taps / 4)][4][16][4]: blocks of 64 channels, quads of taps in the order of the filter, lanes;
 *          zeros fill the last quad
 * bias     int32[blocks][64], with -128 * sum(w) and the zero_point of the input folded in
 * skip_multiplier  int32[blocks][64], or NULL
 * scale    float[blocks][64]
 * output   int8[batch][output_height][output_width][channels]; may be written over skip
 *
 * Up to 128 taps. The taps of a pixel are read through pointers, four are interleaved for one vpdpbusd.
 * With `pixels` > 1 (few channels, stride_width 1), a vector holds that many neighbouring pixels, the weights repeat, and
 * there is one block.
 * Reference: Conv2d.int_ref, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_avx512_depthwise.h"

enum { TAPS = 128 };

/* The taps of the pixel at output column 0. */
typedef struct {
  const int8_t *at[TAPS]; /* channel 0 */
  int32_t column[TAPS];
  __mmask64 inside[TAPS]; /* the row of the tap lies on the image: all or none */
  int32_t quads;
} taps;

QCC_INLINE void find_taps(const qcc_avx512_depthwise_params *p, const int8_t *input, int32_t y, taps *found) {
  const int32_t count = p->kernel_height * p->kernel_width;
  found->quads = (count + 3) / 4;
  for (int32_t t = 0; t < 4 * found->quads; ++t) {
    const int32_t tap = t < count ? t : 0; /* its weights are zero */
    const int32_t row = y * p->stride_height - p->pad_top + tap / p->kernel_width * p->dilation_height;
    const int32_t column = tap % p->kernel_width * p->dilation_width - p->pad_left;
    const int inside = row >= 0 && row < p->input_height;
    found->at[t] = input + ((ptrdiff_t)(inside ? row : 0) * p->input_width + column) * p->channels;
    found->column[t] = column;
    found->inside[t] = inside ? ~(__mmask64)0 : 0;
  }
}

/* The vector at output column x. `edge`: some of what is read lies outside the image. */
QCC_INLINE void vector(const int edge, const qcc_avx512_depthwise_params *p, const taps *in, ptrdiff_t c, const int8_t *w,
                       const qcc_depthwise_block *block, int32_t x, __mmask64 lanes, qcc_lanes_output o) {
  const ptrdiff_t channels = p->channels;
  const int32_t left = x * p->stride_width;
  const __m512i padding = _mm512_set1_epi8((int8_t)p->pad_value);
  __m512i acc[4];
  QCC_UNROLL
  for (int j = 0; j < 4; ++j) {
    acc[j] = _mm512_loadu_si512(block->bias + 16 * j);
  }
  for (int32_t t = 0; t < 4 * in->quads; t += 4) {
    __m512i bytes[4], quads[4];
    QCC_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int8_t *at = in->at[t + i] + left * channels + c;
      if (edge) {
        const __mmask64 inside = qcc_columns_inside(p, left + in->column[t + i], block->lanes) & in->inside[t + i];
        bytes[i] = qcc_load_padded(at, inside, padding);
      } else {
        bytes[i] = qcc_centre(_mm512_maskz_loadu_epi8(block->lanes, at));
      }
    }
    qcc_interleave(bytes, quads);
    QCC_UNROLL
    for (int j = 0; j < 4; ++j) {
      acc[j] = _mm512_dpbusd_epi32(acc[j], quads[j], _mm512_loadu_si512(w + 64 * (t + j)));
    }
  }
  qcc_depthwise_finish(p, block, acc, x * channels, lanes, o);
}

void qcc_s8_depthwise_conv2d_avx512vnni(const qcc_avx512_depthwise_params *params, const int8_t *QCC_RESTRICT input,
                                        const int8_t *skip, const int8_t *QCC_RESTRICT weights,
                                        const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                        const float *QCC_RESTRICT scale, int8_t *output) {
  const qcc_avx512_depthwise_params *p = params;
  const int32_t channels = p->channels, width = p->pixels * channels;
  const ptrdiff_t image = (ptrdiff_t)p->input_height * p->input_width * channels;
  const qcc_lanes_output o = qcc_lanes_saturation(p->output_zero_point, p->low, p->high);
  const int32_t reach_height = (p->kernel_height - 1) * p->dilation_height;
  const int32_t reach_width = (p->kernel_width - 1) * p->dilation_width + p->pixels - 1;
  taps in;
  for (int32_t n = 0; n < p->batch; ++n, input += image) {
    for (int32_t y = 0; y < p->output_height; ++y) {
      const int32_t top = y * p->stride_height - p->pad_top;
      const int inside = top >= 0 && top + reach_height < p->input_height;
      const ptrdiff_t start = ((ptrdiff_t)n * p->output_height + y) * p->output_width * channels;
      find_taps(p, input, y, &in);
      for (int32_t c = 0; c < width; c += 64) {
        const qcc_depthwise_block block = {scale + c,
                                           bias + c,
                                           skip_multiplier ? skip_multiplier + c : NULL,
                                           skip ? skip + start + c : NULL,
                                           output + start + c,
                                           qcc_first_lanes(width - c)};
        const int8_t *w = weights + (ptrdiff_t)4 * in.quads * c;
        for (int32_t x = 0; x < p->output_width; x += p->pixels) {
          const int32_t left = x * p->stride_width - p->pad_left, remaining = p->output_width - x;
          if (inside && left >= 0 && left + reach_width < p->input_width && remaining >= p->pixels) {
            vector(0, p, &in, c, w, &block, x, block.lanes, o);
          } else {
            const __mmask64 lanes = remaining < p->pixels ? qcc_first_lanes(remaining * channels) : block.lanes;
            vector(1, p, &in, c, w, &block, x, lanes, o);
          }
        }
      }
    }
  }
}
