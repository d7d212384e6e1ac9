/* What the kernels for the vectors of Armv8.1-M (MVE, Cortex-M55 and M85) share.
 *
 * Requantization of four channels, as in qcc_arm_dsp.h: rounding and zero_point are one term added to the upper half of
 * the product. The constants of 4 channels are int32[QCC_MVE_CHANNEL][4]: bias, up where QCC_UP is 1, multiplier, that term, and
 * 32 - up - shift.
 */
#ifndef QCC_ARM_MVE_H
#define QCC_ARM_MVE_H

#include "qcc_arm_dsp.h"
#include "qcc_integer.h"

#if !defined(__ARM_FEATURE_MVE)
#error "this library needs a processor with MVE (Cortex-M55, M85), and a compiler told so: -mcpu=cortex-m55"
#endif

#include <arm_mve.h>

#if QCC_UP
enum { QCC_MVE_CHANNEL = 5 };
#else
enum { QCC_MVE_CHANNEL = 4 };
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The taps of one axis of a window that lie on the image: from `first` to before `end`. */
typedef struct {
  int32_t first, end;
} qcc_mve_range;

static inline qcc_mve_range qcc_mve_taps_inside(int32_t start, int32_t taps, int32_t dilation, int32_t size) {
  qcc_mve_range r = {0, taps};
  if (start < 0) {
    r.first = qcc_dsp_clamp((dilation - 1 - start) / dilation, 0, taps);
  }
  if (start + (taps - 1) * dilation >= size) {
    r.end = qcc_dsp_clamp((size - start + dilation - 1) / dilation, r.first, taps);
  }
  return r;
}

void qcc_s8_conv2d_mve(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *skip,
                       const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                       const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output, void *workspace);

void qcc_s8_conv2d_up_mve(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *skip,
                          const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                          const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output, void *workspace);

void qcc_s8_conv2d_short_mve(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *skip,
                             const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                             const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output);

void qcc_s8_conv2d_short_up_mve(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *skip,
                                const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                                const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output);

void qcc_s8_depthwise_conv2d_mve(const qcc_dsp_conv2d_params *params, const int8_t *input,
                                 const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                                 int8_t *output, void *workspace);

void qcc_s8_depthwise_conv2d_up_mve(const qcc_dsp_conv2d_params *params, const int8_t *input,
                                    const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                                    int8_t *output, void *workspace);

void qcc_s8_avg_pool2d_mve(const qcc_avg_pool2d_params *params, const int8_t *QCC_RESTRICT input,
                           const int32_t *QCC_RESTRICT factors, const int32_t *QCC_RESTRICT constants,
                           int8_t *QCC_RESTRICT output);

#ifdef __cplusplus
}
#endif

#endif
