/* s8_max_pool2d_avx512: output[n][i][j][c] = largest element of the window that lies on the image.
 *
 * input   int8[batch][input_height][input_width][channels]
 * output  int8[batch][output_height][output_width][channels]; does not overlap input
 *
 * Each window holds an element of the image. Neighbouring windows of 3 x 3 share the largest elements of their columns, so
 * that with a stride of 2 an output takes six loads and not nine.
 * Reference: MaxPool2d.int_ref.
 */
#include "qcc_avx512_lanes.h"
#include "qcc_window.h"

/* What is outside counts as the nearest element on the image, which is in the window too. */
QCC_INLINE ptrdiff_t nearest(int32_t at, int32_t size) { return at < 0 ? 0 : at < size ? at : size - 1; }

/* 64 bytes, or those of `lanes`: masks only where they are needed, as their stores take longer. */
QCC_INLINE __m512i load_lanes(const int whole, const int8_t *x, __mmask64 lanes) {
  return whole ? _mm512_loadu_si512(x) : _mm512_maskz_loadu_epi8(lanes, x);
}

/* The largest elements of a column of three. */
QCC_INLINE __m512i column_of_three(const int whole, const int8_t *const *row, ptrdiff_t at, __mmask64 lanes) {
  const __m512i x = load_lanes(whole, row[0] + at, lanes), y = load_lanes(whole, row[1] + at, lanes);
  return _mm512_max_epi8(_mm512_max_epi8(x, y), load_lanes(whole, row[2] + at, lanes));
}

/* 64 or fewer channels of a row of 3 x 3 windows without dilation; stride: 1 or 2, from column to column. */
QCC_INLINE void row_of_three(const int stride, const int whole, const qcc_max_pool2d_params *p, int32_t top,
                             const int8_t *input, __mmask64 lanes, int8_t *output) {
  const ptrdiff_t channels = p->channels, line = p->input_width * channels;
  const int8_t *const row[3] = {input + nearest(top, p->input_height) * line,
                                input + nearest(top + 1, p->input_height) * line,
                                input + nearest(top + 2, p->input_height) * line};
  int32_t x = -p->pad_left; /* of the next column */
  __m512i column[3];
  QCC_UNROLL
  for (int b = 0; b < 3 - stride; ++b, ++x) {
    column[b] = column_of_three(whole, row, nearest(x, p->input_width) * channels, lanes);
  }
  for (int32_t j = 0; j < p->output_width; ++j, output += channels) {
    QCC_UNROLL
    for (int b = 3 - stride; b < 3; ++b, ++x) {
      column[b] = column_of_three(whole, row, nearest(x, p->input_width) * channels, lanes);
    }
    const __m512i largest = _mm512_max_epi8(_mm512_max_epi8(column[0], column[1]), column[2]);
    if (whole) {
      _mm512_storeu_si512(output, largest);
    } else {
      _mm512_mask_storeu_epi8(output, lanes, largest);
    }
    column[0] = column[stride];
    column[1] = column[2];
  }
}

static void rows_of_three(const qcc_max_pool2d_params *p, int32_t top, const int8_t *input, int8_t *output) {
  for (int32_t c = 0; c < p->channels; c += 64) {
    const __mmask64 lanes = qcc_first_lanes(p->channels - c);
    if (p->stride_width == 1) {
      row_of_three(1, 0, p, top, input + c, lanes, output + c);
    } else if (p->channels - c < 64) {
      row_of_three(2, 0, p, top, input + c, lanes, output + c);
    } else {
      row_of_three(2, 1, p, top, input + c, lanes, output + c);
    }
  }
}

/* A row of any windows. */
static void row_of_any(const qcc_max_pool2d_params *p, int32_t top, const int8_t *input, int8_t *output) {
  const ptrdiff_t line = (ptrdiff_t)p->input_width * p->channels;
  const ptrdiff_t row_step = line * p->dilation_height, step = (ptrdiff_t)p->channels * p->dilation_width;
  const qcc_range rows = qcc_taps_inside(top, p->kernel_height, p->dilation_height, p->input_height);
  for (int32_t j = 0; j < p->output_width; ++j, output += p->channels) {
    const int32_t left = j * p->stride_width - p->pad_left;
    const qcc_range columns = qcc_taps_inside(left, p->kernel_width, p->dilation_width, p->input_width);
    const int8_t *corner = input + (top + rows.first * p->dilation_height) * line +
                           (ptrdiff_t)(left + columns.first * p->dilation_width) * p->channels;
    for (int32_t c = 0; c < p->channels; c += 64) {
      const __mmask64 lanes = qcc_first_lanes(p->channels - c);
      const int8_t *row = corner + c;
      __m512i largest = _mm512_set1_epi8(-128);
      for (int32_t a = 0; a < rows.count; ++a, row += row_step) {
        const int8_t *x = row;
        for (int32_t b = 0; b < columns.count; ++b, x += step) {
          largest = _mm512_max_epi8(largest, _mm512_maskz_loadu_epi8(lanes, x));
        }
      }
      _mm512_mask_storeu_epi8(output + c, lanes, largest);
    }
  }
}

void qcc_s8_max_pool2d_avx512(const qcc_max_pool2d_params *params, const int8_t *QCC_RESTRICT input,
                              int8_t *QCC_RESTRICT output) {
  const qcc_max_pool2d_params *p = params;
  const ptrdiff_t image = (ptrdiff_t)p->input_height * p->input_width * p->channels;
  const int three = p->kernel_height == 3 && p->kernel_width == 3 && p->dilation_height == 1 && p->dilation_width == 1 &&
                    p->stride_width <= 2;
  for (int32_t n = 0; n < p->batch; ++n, input += image) {
    for (int32_t i = 0; i < p->output_height; ++i, output += (ptrdiff_t)p->output_width * p->channels) {
      const int32_t top = i * p->stride_height - p->pad_top;
      if (three) {
        rows_of_three(p, top, input, output);
      } else {
        row_of_any(p, top, input, output);
      }
    }
  }
}
