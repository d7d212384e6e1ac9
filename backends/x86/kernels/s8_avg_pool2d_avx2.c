/* s8_avg_pool2d_avx2: average pooling, and means and sums over neighbouring axes, with requantization.
 *
 *   acc = factor * sum over the window on the image of (x - input_zero_point)
 *   output[n][i][j][c] = requantize(acc), saturated to [low, high]
 *
 * input    int8[batch][input_height][input_width][channels]
 * factors  int32[output_height][output_width] (divisor / count of each window), or NULL for 1
 * scale    float[channels rounded up to 16]; requantize_channels is not used
 * output   int8[batch][output_height][output_width][channels]; does not overlap input
 *
 * A mean over all pixels is a window of one row.
 * Accumulator: int32, bounded by the compiler.
 * Reference: AvgPool2d.int_ref, ReduceMean.int_ref, ReduceSum.int_ref, Requantize.int_ref.
 */
#include "qcc_avx2_sum.h"
#include "qcc_avx2.h"
#include "qcc_window.h"

void qcc_s8_avg_pool2d_avx2(const qcc_avg_pool2d_params *params, const int8_t *QCC_RESTRICT input,
                            const int32_t *QCC_RESTRICT factors, const float *QCC_RESTRICT scale,
                            int8_t *QCC_RESTRICT output) {
  const qcc_avg_pool2d_params *p = params;
  const ptrdiff_t line = (ptrdiff_t)p->input_width * p->channels;
  const ptrdiff_t step = (ptrdiff_t)p->dilation_width * p->channels;
  const qcc_output o = qcc_saturation(p->output_zero_point, p->low, p->high);
  for (int32_t n = 0; n < p->batch; ++n, input += line * p->input_height) {
    for (int32_t i = 0; i < p->output_height; ++i) {
      const int32_t top = i * p->stride_height - p->pad_top;
      const qcc_range rows = qcc_taps_inside(top, p->kernel_height, p->dilation_height, p->input_height);
      for (int32_t j = 0; j < p->output_width; ++j, output += p->channels) {
        const int32_t left = j * p->stride_width - p->pad_left;
        const qcc_range columns = qcc_taps_inside(left, p->kernel_width, p->dilation_width, p->input_width);
        const int32_t count = rows.count > 0 && columns.count > 0 ? rows.count * columns.count : 0;
        const __m256i factor = _mm256_set1_epi32(factors ? factors[(ptrdiff_t)i * p->output_width + j] : 1);
        const __m256i start = _mm256_set1_epi32(-count * p->input_zero_point);
        for (int32_t c = 0; c < p->channels; c += 16) {
          const int32_t width = p->channels - c;
          __m256i acc[2] = {start, start}, low, high;
          for (int32_t a = rows.first; a < rows.first + rows.count; ++a) {
            const ptrdiff_t row = top + a * p->dilation_height, column = left + columns.first * p->dilation_width;
            const int8_t *x = input + row * line + column * p->channels + c;
            if (width >= 16) {
              qcc_sum(acc, x, step, columns.count, 16);
            } else {
              qcc_sum(acc, x, step, columns.count, width);
            }
          }
          acc[0] = _mm256_mullo_epi32(acc[0], factor);
          acc[1] = _mm256_mullo_epi32(acc[1], factor);
          qcc_split(scale + c, &low, &high);
          const __m256i y = qcc_requantize_16(acc, acc, _mm256_castsi256_ps(low), _mm256_castsi256_ps(high), o);
          qcc_store_bytes(output + c, _mm256_castsi256_si128(y), width);
        }
      }
    }
  }
}
