/* s8_avg_pool2d_avx512vnni: average pooling, and means and sums over neighbouring axes, with requantization.
 *
 *   acc = factor * sum over the window on the image of (x - input_zero_point)
 *   output[n][i][j][c] = requantize(acc), saturated to [low, high]
 *
 * input    int8[batch][input_height][input_width][channels]
 * factors  int32[output_height][output_width] (divisor / count of each window), or NULL for 1
 * scale    float[blocks][64]: blocks of 64 channels in the order of lanes; requantize_channels is not used
 * output   int8[batch][output_height][output_width][channels]; does not overlap input
 *
 * Four pixels are interleaved and added by one vpdpbusd with ones. A mean over all pixels is a window of one row.
 * Accumulator: int32, bounded by the compiler; the sums of x + 128 on the way wrap around.
 * Reference: AvgPool2d.int_ref, ReduceMean.int_ref, ReduceSum.int_ref, Requantize.int_ref.
 */
#include "qcc_avx512_lanes.h"
#include "qcc_window.h"

void qcc_s8_avg_pool2d_avx512vnni(const qcc_avg_pool2d_params *params, const int8_t *QCC_RESTRICT input,
                                  const int32_t *QCC_RESTRICT factors, const float *QCC_RESTRICT scale,
                                  int8_t *QCC_RESTRICT output) {
  const qcc_avg_pool2d_params *p = params;
  const ptrdiff_t line = (ptrdiff_t)p->input_width * p->channels;
  const ptrdiff_t step = (ptrdiff_t)p->dilation_width * p->channels;
  const qcc_lanes_output o = qcc_lanes_saturation(p->output_zero_point, p->low, p->high);
  for (int32_t n = 0; n < p->batch; ++n, input += line * p->input_height) {
    for (int32_t i = 0; i < p->output_height; ++i) {
      const int32_t top = i * p->stride_height - p->pad_top;
      const qcc_range rows = qcc_taps_inside(top, p->kernel_height, p->dilation_height, p->input_height);
      for (int32_t j = 0; j < p->output_width; ++j, output += p->channels) {
        const int32_t left = j * p->stride_width - p->pad_left;
        const qcc_range columns = qcc_taps_inside(left, p->kernel_width, p->dilation_width, p->input_width);
        const int32_t count = rows.count > 0 && columns.count > 0 ? rows.count * columns.count : 0;
        const int32_t factor = factors ? factors[(ptrdiff_t)i * p->output_width + j] : 1;
        const __m512i start = _mm512_set1_epi32(-count * (128 + p->input_zero_point));
        for (int32_t c = 0; c < p->channels; c += 64) {
          const __mmask64 lanes = qcc_first_lanes(p->channels - c);
          __m512i acc[4] = {start, start, start, start};
          for (int32_t a = rows.first; a < rows.first + rows.count; ++a) {
            const ptrdiff_t row = top + a * p->dilation_height, column = left + columns.first * p->dilation_width;
            qcc_lanes_sum(acc, input + row * line + column * p->channels + c, step, columns.count, lanes);
          }
          QCC_UNROLL
          for (int k = 0; k < 4; ++k) {
            acc[k] = _mm512_mullo_epi32(acc[k], _mm512_set1_epi32(factor));
          }
          _mm512_mask_storeu_epi8(output + c, lanes, qcc_lanes_requantize(acc, scale + c, 16, o));
        }
      }
    }
  }
}
