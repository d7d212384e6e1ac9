/* s8_max_pool2d_avx512: output[n][i][j][c] = largest element of the window that lies on the image.
 *
 * input   int8[batch][input_height][input_width][channels]
 * output  int8[batch][output_height][output_width][channels]; does not overlap input
 *
 * Each window holds an element of the image.
 * Reference: MaxPool2d.int_ref.
 */
#include "qcc_avx512_lanes.h"

void qcc_s8_max_pool2d_avx512(const qcc_max_pool2d_params *params, const int8_t *QCC_RESTRICT input,
                              int8_t *QCC_RESTRICT output) {
  const qcc_max_pool2d_params *p = params;
  const ptrdiff_t line = (ptrdiff_t)p->input_width * p->channels;
  const ptrdiff_t row_step = line * p->dilation_height, step = (ptrdiff_t)p->channels * p->dilation_width;
  for (int32_t n = 0; n < p->batch; ++n, input += line * p->input_height) {
    for (int32_t i = 0; i < p->output_height; ++i) {
      const int32_t top = i * p->stride_height - p->pad_top;
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
  }
}
