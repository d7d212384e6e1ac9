/* s16_depthwise_conv2d_avx512vnni: depthwise 2-D convolution with tensors of 16 bits, requantization and a residual operand.
 *
 * input    int8 or int16 [batch][input_height][input_width][channels]
 * skip     int8 or int16, shape of the output, or NULL
 * weights  int8[blocks][taps][32]: blocks of 32 channels, zero where there is no channel
 * bias     int32[blocks][2][16], in the order of qcc_avx512_wide.h, with the zero_points of input and skip folded in, plus
 *          2^31
 * skip_multiplier  int32[as bias], or NULL
 * multiplier, shift  int32[as bias], see qcc_requantize.h
 * output   int8 or int16 [batch][output_height][output_width][channels]; may be written over a skip of the same type
 *
 * Any stride, dilation and padding, up to 64 taps. The sum, with the residual operand, lies within int32, and what it
 * requantizes to below 2^29.
 * vpdpwssd adds two products; here one of them is by zero: to interleave two taps takes longer.
 * Reference: Conv2d.int_ref, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_avx512_wide.h"

#define TAPS 64
#define CHAINS 3

/* A row of output and a block of its channels. */
typedef struct {
  const int8_t *weights;
  const int32_t *bias, *skip_multiplier;
  const void *skip;
  void *output;
  const char *input; /* the first tap of the first output pixel */
  ptrdiff_t at;      /* element of skip and output */
  int32_t taps, channels, width;
  ptrdiff_t pixel;        /* bytes from output pixel to pixel */
  ptrdiff_t offset[TAPS]; /* of the taps, in bytes */
  int32_t column[TAPS];   /* of the taps; beyond all images in a row outside */
  int32_t stride, left, input_width;
  int32_t first, end; /* output pixels of which all taps are inside */
  __mmask32 lanes;
  double scale[32];
} block_row;

/* sums += the products of tap t of the pixel whose tap 0 is at `start`, in column `left` of the image: weights[0] has those
 * of the even channels in low halves, weights[1] those of the odd ones in high halves.
 * inside: whether all taps are; pad: what is read for one outside. */
QCC_INLINE void add_tap(const int inside, const int bytes, const block_row *row, int t, const char *start, int32_t left,
                        const void *pad, const __m512i *weights, __m512i *sums) {
  const void *from = start + row->offset[t];
  if (!inside) {
    from = (uint32_t)(left + row->column[t]) < (uint32_t)row->input_width ? from : pad;
  }
  const __m512i x = qcc_wide_loads(from, 0, bytes, row->lanes);
  sums[0] = _mm512_dpwssd_epi32(sums[0], x, weights[0]);
  sums[1] = _mm512_dpwssd_epi32(sums[1], x, weights[1]);
}

QCC_INLINE void load_weights(const int8_t *w, int t, __m512i *weights) {
  const __m512i x = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(w + 32 * t)));
  weights[0] = _mm512_maskz_mov_epi16(0x55555555, x);
  weights[1] = _mm512_maskz_mov_epi16(0xAAAAAAAA, x);
}

/* Output pixels `from` to `to`. taps: how many there are, up to 9; 0 where the compiler does not know. */
QCC_INLINE void pixels(const int taps, const int inside, const int bytes, const block_row *row, __m512i (*w)[2],
                       int32_t from, int32_t to, const void *pad, qcc_wide_output o) {
  const __m512i zero = _mm512_setzero_si512();
  __m512i weights[2];
  for (int32_t x = from; x < to; ++x) {
    const char *start = row->input + x * row->pixel;
    const ptrdiff_t at = row->at + (ptrdiff_t)x * row->channels;
    const int32_t left = x * row->stride - row->left;
    __m512i sums[2] = {_mm512_loadu_si512(row->bias), _mm512_loadu_si512(row->bias + 16)};
    /* in CHAINS parts: one after the other, the products would take longer than all the rest */
    __m512i parts[CHAINS][2];
    QCC_UNROLL
    for (int i = 0; i < CHAINS; ++i) {
      parts[i][0] = i ? zero : sums[0];
      parts[i][1] = i ? zero : sums[1];
    }
    QCC_UNROLL
    for (int t = 0; t < taps; ++t) {
      add_tap(inside, bytes, row, t, start, left, pad, w[t], parts[t % CHAINS]);
    }
    QCC_UNROLL
    for (int i = 0; taps && i < CHAINS; ++i) {
      sums[0] = i ? _mm512_add_epi32(sums[0], parts[i][0]) : parts[0][0];
      sums[1] = i ? _mm512_add_epi32(sums[1], parts[i][1]) : parts[0][1];
    }
    for (int t = 0; taps == 0 && t < row->taps; ++t) {
      load_weights(row->weights, t, weights);
      add_tap(inside, bytes, row, t, start, left, pad, weights, sums);
    }
    if (row->skip) {
      qcc_wide_add_pair(sums, qcc_wide_loads(row->skip, at, o.skip_bytes, row->lanes), row->skip_multiplier);
    }
    qcc_wide_finish_pair(sums[0], sums[1], row->scale, row->output, at, row->lanes, &o);
  }
}

QCC_INLINE void whole_row(const int taps, const int bytes, const block_row *given, const void *pad, qcc_wide_output o) {
  const block_row row = *given; /* which no store to the output changes */
  __m512i w[9][2];
  QCC_UNROLL
  for (int t = 0; t < taps; ++t) {
    load_weights(row.weights, t, w[t]);
    QCC_IN_REGISTER(w[t][0]);
    QCC_IN_REGISTER(w[t][1]);
  }
  pixels(taps, 0, bytes, &row, w, 0, row.first, pad, o);
  pixels(taps, 1, bytes, &row, w, row.first, row.end, pad, o);
  pixels(taps, 0, bytes, &row, w, row.end, row.width, pad, o);
}

#define ROW_FUNCTION(name, taps, bytes)                                        \
  static void name(const block_row *row, const void *pad, qcc_wide_output o) { \
    whole_row(taps, bytes, row, pad, o);                                       \
  }
ROW_FUNCTION(row_of_8_bits, 0, 1)
ROW_FUNCTION(row_of_16_bits, 0, 2)
ROW_FUNCTION(nine_taps_of_8_bits, 9, 1) /* 3x3: the weights stay in registers */
ROW_FUNCTION(nine_taps_of_16_bits, 9, 2)

/* The taps of output row oy, and the output pixels that lie inside with all of them. */
static void place_taps(const qcc_avx512_wide_depthwise_params *p, int32_t oy, block_row *row) {
  const int32_t top = oy * p->stride_height - p->pad_top, reach = (p->kernel_width - 1) * p->dilation_width;
  int inside = 1;
  int32_t t = 0;
  for (int32_t a = 0; a < p->kernel_height; ++a) {
    const int32_t y = top + a * p->dilation_height;
    const int exists = y >= 0 && y < p->input_height;
    inside &= exists;
    for (int32_t b = 0; b < p->kernel_width; ++b, ++t) {
      row->column[t] = exists ? b * p->dilation_width : INT32_MAX / 2;
      row->offset[t] = ((ptrdiff_t)a * p->dilation_height * p->input_width + b * p->dilation_width) * p->channels *
                       p->input_bytes;
    }
  }
  const int32_t room = p->input_width - 1 - reach + p->pad_left; /* the last place of tap 0 */
  int32_t first = (p->pad_left + p->stride_width - 1) / p->stride_width;
  int32_t end = inside && room >= 0 ? room / p->stride_width + 1 : 0;
  end = end < p->output_width ? end : p->output_width;
  first = first < end ? first : end;
  row->first = end > 0 ? first : 0;
  row->end = end > 0 ? end : 0;
}

void qcc_s16_depthwise_conv2d_avx512vnni(const qcc_avx512_wide_depthwise_params *params, const void *QCC_RESTRICT input,
                                         const void *skip, const int8_t *QCC_RESTRICT weights,
                                         const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                         const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                         void *output) {
  const qcc_avx512_wide_depthwise_params *p = params;
  const qcc_wide_output o =
      qcc_wide_saturation(p->output_zero_point, p->low, p->high, p->skip_bytes, p->output_bytes);
  const __m512i pad = p->input_bytes == 2 ? _mm512_set1_epi16((int16_t)p->pad_value) : _mm512_set1_epi8((int8_t)p->pad_value);
  block_row row;
  row.skip = skip;
  row.output = output;
  row.taps = p->kernel_height * p->kernel_width;
  row.channels = p->channels;
  row.width = p->output_width;
  row.pixel = (ptrdiff_t)p->stride_width * p->channels * p->input_bytes;
  row.stride = p->stride_width;
  row.left = p->pad_left;
  row.input_width = p->input_width;
  for (int32_t n = 0; n < p->batch; ++n) {
    for (int32_t oy = 0; oy < p->output_height; ++oy) {
      place_taps(p, oy, &row);
      const ptrdiff_t line = (ptrdiff_t)n * p->input_height + (ptrdiff_t)oy * p->stride_height - p->pad_top;
      for (int32_t c = 0; c < p->channels; c += 32) {
        row.input = (const char *)input + ((line * p->input_width - p->pad_left) * p->channels + c) * p->input_bytes;
        row.at = ((ptrdiff_t)n * p->output_height + oy) * p->output_width * p->channels + c;
        row.weights = weights + (ptrdiff_t)c * row.taps;
        row.bias = bias + c;
        row.skip_multiplier = skip ? skip_multiplier + c : NULL;
        row.lanes = qcc_wide_lanes(p->channels - c);
        qcc_wide_scale(multiplier + c, shift + c, row.scale);
        qcc_wide_scale(multiplier + c + 16, shift + c + 16, row.scale + 16);
        if (p->input_bytes == 2) {
          (row.taps == 9 ? nine_taps_of_16_bits : row_of_16_bits)(&row, &pad, o);
        } else {
          (row.taps == 9 ? nine_taps_of_8_bits : row_of_8_bits)(&row, &pad, o);
        }
      }
    }
  }
}
