/* What the kernels for the vectors of Armv8.1-M (MVE, Cortex-M55 and M85) share.
 *
 * Requantization of four channels, as in qcc_arm_dsp.h: rounding and zero_point are one term added to the upper half of
 * the product. The constants of 4 channels are int32[4][4]: bias, multiplier, that term, and 32 - shift.
 */
#ifndef QCC_ARM_MVE_H
#define QCC_ARM_MVE_H

#include "qcc_arm_dsp.h"

#if !defined(__ARM_FEATURE_MVE)
#error "this library needs a processor with MVE (Cortex-M55, M85), and a compiler told so: -mcpu=cortex-m55"
#endif

#include <arm_mve.h>

#ifdef __cplusplus
extern "C" {
#endif

void qcc_s8_conv2d_mve(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *skip,
                       const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                       const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output, void *workspace);

void qcc_s8_conv2d_short_mve(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *skip,
                             const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                             const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output);

void qcc_s8_depthwise_conv2d_mve(const qcc_dsp_conv2d_params *params, const int8_t *input,
                                 const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                                 int8_t *output, void *workspace);

#ifdef __cplusplus
}
#endif

#endif
